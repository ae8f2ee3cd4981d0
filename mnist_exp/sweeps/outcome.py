"""The table of a sweep, with the sentences that say what its ranking decides."""

from collections.abc import Iterable, Sequence

from mnist_exp.config.schema import objective_direction
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.beyond import suggest_values
from mnist_exp.sweeps.comparable import part_measured, why_not_compared
from mnist_exp.sweeps.formats import pluralize
from mnist_exp.sweeps.importance import as_sentence, importance
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.ranking import describe_images, find_unranked, on_other_images, rank
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import SweepRecord


def make_sweep_table(sweep: Sweep, record: SweepRecord, jobs: Sequence[Record], kind: Kind) -> Table:
    """Return a sweep's jobs ranked, with jobs that differ only in seed as one row.

    The notes say which keys matter, but not in a race, in which better rows have more jobs.

    Args:
        sweep: has the values that vary.
        record: of the sweep.
        jobs: that ended.
        kind: arranges the rows and words the verdict.
    """
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    rows = rank(jobs, direction)
    apart = why_not_compared(objective, sweep.configs, jobs)
    if apart and (run_id := record.parent.run_id):
        apart += f" python -m mnist_exp.compare {run_id[:8]} ranks each part by itself."
    rows, notes = (rows, [apart]) if apart else kind.arrange(rows, direction)
    whole = [job for row in rows if row.is_whole for job in row.jobs]
    found = None if kind.is_open else importance(whole, objective, direction)
    decided = ""
    if rows and not apart:
        part = part_measured(objective, {"dataset.validation": str(sweep.config.dataset.validation)})
        decided = kind.verdict(rows, describe_images(rows[0], part), record.parent.run_id)
    if rows:
        notes.append(on_other_images(rows[0]))
    ended = sum(job.status in {"FINISHED", "FAILED"} for job in jobs)
    is_partial = kind.planned > 0 and ended < kind.jobs
    if is_partial:
        notes.append(f"{pluralize(kind.jobs - ended, 'job')} did not run to the end.")
    notes.append(suggest_values(rows, jobs, sweep) if kind.has_lists and not apart and not is_partial else "")
    pruned = sum(job.pruned is not None for job in jobs)
    if not rows and pruned:
        decided = "Each job was pruned; a milder rule lets some come to their end, as do resume=true and no prune."
    title = f"{ended} of {pluralize(kind.jobs, 'job')}" if is_partial else pluralize(len(jobs), "job")
    if pruned:
        title += f", {pruned} of them pruned"
    title += f", {order(objective, direction)}"
    if objective.startswith("test_"):
        title += ", MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy"
        if sweep.watches_test_set:
            title += f" {advise_validation(jobs)}"
    elif objective.startswith("val_") and sweep.watches_test_set:
        title += f", MEASURED ON THE TEST SET: to hold images out instead, {advise_validation(jobs)}"
    return Table(
        objective,
        direction,
        rows,
        find_unranked(jobs),
        raced=kind.is_open,
        planned=kind.planned,
        title=title,
        verdict=decided,
        notes=[as_sentence(found), *notes] if found else notes,
        importance=found,
    )


def advise_validation(jobs: Iterable[Record]) -> str:
    """Return an override that holds out a sixth of the training images, 10000 at most.

    It is a share where their number is not known, or not the same for all. The jobs have held out none so far.
    """
    match list({count for job in jobs if (count := job.images("training"))}):
        case [count] if count > 0:
            return f"dataset.validation={max(1, min(int(float(f'{count / 6:.0e}')), 10_000))}"
    return "dataset.validation=0.2"


def order(objective: str, direction: str) -> str:
    """Return in which order rows are."""
    return f"{'largest' if direction == 'maximize' else 'smallest'} {objective} first"
