"""The jobs of a sweep as a table, with the sentences that say what the ranking decides."""

from collections.abc import Sequence
from dataclasses import replace

from mnist_exp.config.schema import objective_direction
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.formats import counted
from mnist_exp.sweeps.importance import as_sentence, importance
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.ranking import Rounds, Row, compared, rank, unranked
from mnist_exp.sweeps.table import Table, order
from mnist_exp.sweeps.verdict import on_other_images, verdict
from mnist_exp.tracking.job import Job, count_test_images
from mnist_exp.tracking.record import SweepRecord


def rank_jobs(sweep: Sweep, record: SweepRecord, jobs: Sequence[Job], kind: Kind) -> Table:
    """Return the jobs of a sweep ranked, those that differ only in their seed as one row."""
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    rows, raced, notes = kind.arrange(rank(jobs, direction))
    rows = compared(rows, raced)
    if rows:
        notes.append(on_other_images(rows[0], count_test_images((rows[0].jobs[0].data or {}).get("profile"))))
    pruned = any(job.pruned is not None for job in jobs)
    return Table(
        objective,
        direction,
        rows,
        unranked(jobs),
        raced=raced is not None,
        title=_title(sweep, jobs),
        verdict=kind.verdict(record.parent.run_id) or _verdict(sweep, rows, raced, pruned=pruned),
        notes=notes,
    )


def explained(table: Table) -> Table:
    """Return a table that says which keys matter, but not of a race, in which better rows have more jobs."""
    jobs = [job for row in table.rows if row.is_whole for job in row.jobs]
    if table.raced or (found := importance(jobs)) is None:
        return table
    return replace(table, importance=found, notes=[as_sentence(found, table.objective), *table.notes])


def _verdict(sweep: Sweep, rows: Sequence[Row], raced: Rounds | None, *, pruned: bool) -> str:
    if not rows and pruned:
        return "Each job was pruned; a milder rule lets some come to their end, as do resume=true and no prune."
    return verdict(rows, sweep.swept, objective_direction(sweep.config), raced)


def _title(sweep: Sweep, jobs: Sequence[Job]) -> str:
    """Return the number of jobs, their order, and whether the choice rests on the test set."""
    objective, pruned = sweep.config.objective, sum(job.pruned is not None for job in jobs)
    title = counted(len(jobs), "job") + f", {pruned} of them pruned" * (pruned > 0)
    title += f", {order(objective, objective_direction(sweep.config))}"
    if objective.startswith("test_"):
        title += ", MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy dataset.validation=10000"
    elif objective.startswith("val_") and sweep.watches_test_set:
        title += ", MEASURED ON THE TEST SET: to hold images out instead, dataset.validation=10000"
    return title
