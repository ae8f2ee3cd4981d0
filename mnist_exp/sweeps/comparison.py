"""Past runs of any kind as tables, one for each objective, and those as text."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_exp.sweeps import formats
from mnist_exp.sweeps.differences import differing_keys, find_differences
from mnist_exp.sweeps.ranking import compared, rank, unranked
from mnist_exp.sweeps.table import Table, order
from mnist_exp.sweeps.verdict import verdict
from mnist_exp.tracking.job import short_ids
from mnist_exp.tracking.reading import data_digest, recorded_job

if TYPE_CHECKING:
    from mlflow.entities import Run

_WIDTH = 38  # characters for what a row differs in, so that a table has about 100, or with seeds 140
_DIGITS = 8  # of a digest
_PACKAGES = ("tensorflow", "jax", "keras", "numpy")  # the packages that a result depends on


def newest_of_each(runs: Sequence["Run"]) -> list["Run"]:
    """Return the newest of the runs with the same signature: the same experiment twice says nothing of chance.

    A run that came to its end goes before one that was pruned, and that before one that did not finish.
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
    jobs = list(map(recorded_job, runs))
    for place, job in enumerate(jobs):
        if (values := known.get(job.run_id)) is not None:
            jobs[place] = replace(job, values={key: values[key] for key in keys if key in values})
    rows = compared(rank(jobs, direction) if sort is None else [row for job in jobs for row in rank([job], direction)])
    typed = [run.data.tags.get("mnist_exp.overrides", "") for run in runs]
    differences = find_differences(list(known.values()), typed, _WIDTH)
    names, decided = differences.columns, ""
    if sort is None and rows:
        first = {names[key]: differences.cell(key, value) for key, value in rows[0].values.items() if key in names}
        decided = verdict([replace(rows[0], values=first), *rows[1:]], names.values(), direction)
    return Table(
        objective,
        direction,
        rows,
        unranked(jobs),
        differences,
        ids=short_ids(job.run_id for job in jobs),
        title=formats.counted(len(jobs), "run")
        + f", {sort or order(objective, direction)}{_on_the_test_set(runs, objective)}",
        legend=[
            f"Where nothing else is said: {differences.unsaid()}" * bool(differences.usual),
            "The id of a row of several seeds is that of its best run." * any(len(row.jobs) > 1 for row in rows),
        ],
        verdict=decided,
    )


def _configured(runs: Sequence["Run"]) -> dict[str, dict[str, str]]:
    """Return by run id all that can make a result differ: configuration, code, packages, and data where that varies."""
    digests: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    for run in runs:
        digests[_dataset(run)] |= {data_digest(run)} - {""}
    found = {}
    for run in runs:
        tags = run.data.tags
        values = dict(run.data.params)
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


def _on_the_test_set(runs: Sequence["Run"], objective: str) -> str:
    watched = any(run.data.params.get("dataset.validation") == "test" for run in runs)
    if objective.startswith("test_") or (objective.startswith("val_") and watched):
        return ", MEASURED ON THE TEST SET where dataset.validation=test or the objective is a test score"
    return ""


def as_text(found: Sequence[Table], form: str) -> str:
    """Return tables as `table`, `csv`, `json`, `markdown` or `latex`."""
    if form in {"csv", "json"}:
        records = [{"objective": table.objective, **record} for table in found for record in table.records]
        return formats.as_json(records) if form == "json" else formats.as_csv(records).rstrip("\n")
    if form == "table":
        return "\n\n".join(table.text() for table in found)
    as_form = formats.as_markdown if form == "markdown" else formats.as_latex
    return "\n\n".join(as_form(table.title, *table.cells, table.sentences) for table in found)
