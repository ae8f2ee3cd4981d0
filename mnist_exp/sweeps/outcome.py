"""The table of a sweep, and those of past runs, with the sentences that say what a ranking decides."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_exp.config.schema import objective_direction
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.formats import as_csv, as_json, as_latex, as_markdown, counted, differing_keys, find_differences
from mnist_exp.sweeps.importance import as_sentence, importance
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.ranking import compared, on_other_images, rank, unranked, verdict
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.job import Job, advised_validation, count_test_images, short_ids
from mnist_exp.tracking.reading import data_digest, recorded_job
from mnist_exp.tracking.record import SweepRecord

if TYPE_CHECKING:
    from mlflow.entities import Run

_WIDTH = 38  # characters for what a row differs in, so that a table has about 100, or with seeds 140
_DIGITS = 8  # of a digest
_PACKAGES = ("tensorflow", "jax", "keras", "numpy")  # the packages that a result depends on


def rank_jobs(sweep: Sweep, record: SweepRecord, jobs: Sequence[Job], kind: Kind) -> Table:
    """Return the jobs of a sweep ranked, those that differ only in their seed as one row.

    The notes say which keys matter, but not in a race, in which better rows have more jobs.
    """
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    rows, raced, notes = kind.arrange(rank(jobs, direction))
    rows, pruned = compared(rows, raced), sum(job.pruned is not None for job in jobs)
    whole = [job for row in rows if row.is_whole for job in row.jobs]
    found = importance(whole) if raced is None and not kind.is_open else None
    if rows:
        notes.append(on_other_images(rows[0], count_test_images((rows[0].jobs[0].data or {}).get("profile"))))
    decided = kind.verdict(record.parent.run_id) or verdict(rows, sweep.swept, direction, raced)
    if not rows and pruned and not decided:
        decided = "Each job was pruned; a milder rule lets some come to their end, as do resume=true and no prune."
    title = counted(len(jobs), "job") + f", {pruned} of them pruned" * (pruned > 0)
    title += f", {_order(objective, direction)}"
    if objective.startswith("test_"):
        title += ", MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy"
        title += f" {advised_validation(jobs)}" * sweep.watches_test_set
    elif objective.startswith("val_") and sweep.watches_test_set:
        title += f", MEASURED ON THE TEST SET: to hold images out instead, {advised_validation(jobs)}"
    return Table(
        objective,
        direction,
        rows,
        unranked(jobs),
        raced=raced is not None,
        title=title,
        verdict=decided,
        notes=[as_sentence(found, objective), *notes] if found else notes,
        importance=found,
    )


def newest_of_each(runs: Sequence["Run"]) -> list["Run"]:
    """Return the newest of the runs with the same signature: the same experiment twice says nothing about chance.

    A whole run goes before one that was pruned, and that before one that did not finish.
    """

    def worth(run: "Run") -> tuple[bool, bool, int]:
        return recorded_job(run).is_whole, run.info.status == "FINISHED", run.info.start_time

    best = {run.data.tags.get("mnist_exp.signature", run.info.run_id): run for run in sorted(runs, key=worth)}
    kept = {run.info.run_id for run in best.values()}
    return [run for run in runs if run.info.run_id in kept]


def tables_of(runs: Sequence["Run"], sort: str | None) -> list[Table]:
    """Return a table for each objective, in the order in which the objectives come first.

    Args:
        runs: at least one. A job that was refused has recorded no objective, and goes with the first.
        sort: the words for the order that the runs are in, to keep it in one table; None to rank them.
    """
    recorded = [(run.data.params.get("objective"), run.data.params.get("direction", "maximize")) for run in runs]
    found = [(name, direction) for name, direction in dict.fromkeys(recorded) if name] or [("objective", "maximize")]
    if sort is not None:
        return [_table(runs, *(found[0] if len(found) == 1 else ("value", "maximize")), sort)]
    groups: dict[tuple[str, str], list[Run]] = {one: [] for one in found}
    for run, (name, direction) in zip(runs, recorded, strict=True):
        groups[(name, direction) if name else found[0]].append(run)
    return [_table(members, *one, None) for one, members in groups.items()]


def _table(runs: Sequence["Run"], objective: str, direction: str, sort: str | None) -> Table:
    known = _configured([run for run in runs if run.data.params])
    keys = differing_keys(list(known.values()))
    varied = {run_id: {key: values[key] for key in keys if key in values} for run_id, values in known.items()}
    jobs = [replace(job, values=varied.get(job.run_id, job.values)) for job in map(recorded_job, runs)]
    rows = compared(rank(jobs, direction) if sort is None else [row for job in jobs for row in rank([job], direction)])
    differences = find_differences(list(known.values()), _WIDTH)
    names, decided = differences.columns, ""
    if sort is None and rows:
        first = {names[key]: differences.cell(key, value) for key, value in rows[0].values.items() if key in names}
        decided = verdict([replace(rows[0], values=first), *rows[1:]], names.values(), direction)
    title = f"{counted(len(jobs), 'run')}, {sort or _order(objective, direction)}"
    watched = any(run.data.params.get("dataset.validation") == "test" for run in runs)
    if objective.startswith("test_") or (objective.startswith("val_") and watched):
        title += ", MEASURED ON THE TEST SET where dataset.validation=test or the objective is a test score"
    return Table(
        objective,
        direction,
        rows,
        unranked(jobs),
        differences,
        ids=short_ids(job.run_id for job in jobs),
        listed=sort is not None,
        title=title,
        legend="The id of a row of several seeds is that of its best run." * any(len(row.jobs) > 1 for row in rows),
        verdict=decided,
    )


def _configured(runs: Sequence["Run"]) -> dict[str, dict[str, str]]:
    """Return by run id all that can make a result differ: configuration, code, packages, and data where that varies."""
    digests: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    for run in runs:
        digests[_dataset(run)] |= {data_digest(run)} - {""}
    found = {}
    for run in runs:
        tags, values = run.data.tags, dict(run.data.params)
        if len(digests[_dataset(run)]) > 1 and (digest := data_digest(run)):
            values["data"] = digest[:_DIGITS]
        if "mnist_exp.own_code" in tags:
            values["own_code"] = tags["mnist_exp.own_code"]
        if "mnist_exp.code" in tags:
            values["code"] = tags["mnist_exp.code"][:_DIGITS]
        packages = (one.partition(" ") for one in tags.get("mnist_exp.packages", "").split(", "))
        values |= {f"packages.{name}": number for name, _, number in packages if name in _PACKAGES}
        found[run.info.run_id] = values
    return found


def _dataset(run: "Run") -> tuple[tuple[str, str], ...]:
    return tuple(sorted(item for item in run.data.params.items() if item[0].startswith("dataset.")))


def _order(objective: str, direction: str) -> str:
    return f"{'largest' if direction == 'maximize' else 'smallest'} {objective} first"


def as_text(found: Sequence[Table], form: str) -> str:
    """Return tables as `table`, `csv`, `json`, `markdown` or `latex`."""
    if form in {"csv", "json"}:
        records = [{"objective": table.objective, **record} for table in found for record in table.records]
        return as_json(records) if form == "json" else as_csv(records).rstrip("\n")
    if form == "table":
        return "\n\n".join(table.text() for table in found)
    as_form = as_markdown if form == "markdown" else as_latex
    return "\n\n".join(as_form(table.title, *table.cells, table.sentences) for table in found)
