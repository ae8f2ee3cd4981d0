"""Runs of any kind, ranked: of which objective, what they differ in, and as which text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mnist_exp.errors import printable
from mnist_exp.sweeps import formats, ranking
from mnist_exp.sweeps.differences import Differences, differing_keys, find_differences
from mnist_exp.sweeps.verdict import verdict
from mnist_exp.tracking.job import short_ids
from mnist_exp.tracking.reading import data_digest, recorded_job

if TYPE_CHECKING:
    from mlflow.entities import Run

_WIDTH = 38  # characters of a table for what a row differs in, so that all of it has about 100, or with seeds 140
_DIGITS = 8  # of a digest
_PACKAGES = ("tensorflow", "jax", "keras", "numpy")  # the packages that a result depends on


@dataclass(frozen=True)
class Ranked:
    """Runs of one objective that are ranked, or runs in an order that was asked for.

    `title` and `notes`: a line each; the last note is the `verdict`, if anything can be told. `lines`: the cells of a
    table, header first. `texts`: the places of the columns that hold text. `also`: for each line below the header, what
    no column says. `records`: one a run, for CSV and JSON. `rows`: of each ranked row, best first,
    its place with the id, what it differs in, and the ids of its runs. `metric`: of an epoch, the nearest to the
    objective.
    """

    title: str
    notes: list[str]
    verdict: str
    lines: list[list[str]]
    texts: list[int]
    also: list[str]
    records: list[dict[str, object]]
    rows: list[tuple[str, str, list[str]]]
    metric: str


def newest_of_each(runs: Sequence["Run"]) -> list["Run"]:
    """Keep, of runs with one signature, the newest that came to its end: the same experiment twice says nothing of
    chance. One that was pruned, or else one that did not finish, is kept where there is no better."""

    def worth(run: "Run") -> tuple[bool, bool, int]:
        return recorded_job(run).is_whole, run.info.status == "FINISHED", run.info.start_time

    best: dict[str, Run] = {}
    for run in sorted(runs, key=worth):
        best[run.data.tags.get("mnist_exp.signature", run.info.run_id)] = run
    kept = {run.info.run_id for run in best.values()}
    return [run for run in runs if run.info.run_id in kept]


def ranked_groups(runs: Sequence["Run"], sort: str | None) -> list[Ranked]:
    """Return the runs of each objective ranked, the objectives in the order in which they come first.

    Args:
        runs: at least one. A job that was refused has recorded no objective, and goes with the first.
        sort: the words for the order that the runs are in, if they shall stay in it, in one group; None to rank them.
    """
    recorded = [(run.data.params.get("objective"), run.data.params.get("direction", "maximize")) for run in runs]
    found = [(name, direction) for name, direction in dict.fromkeys(recorded) if name] or [("objective", "maximize")]
    if sort is not None:
        objective, direction = found[0] if len(found) == 1 else ("value", "maximize")
        return [_ranked(runs, objective, direction, sort)]
    groups: dict[tuple[str, str], list[Run]] = {one: [] for one in found}
    for run, (name, direction) in zip(runs, recorded, strict=True):
        groups[(name, direction) if name else found[0]].append(run)
    return [_ranked(members, objective, direction, None) for (objective, direction), members in groups.items()]


def _ranked(runs: Sequence["Run"], objective: str, direction: str, sort: str | None) -> Ranked:
    known = _configured([run for run in runs if run.data.params])
    keys = differing_keys(list(known.values()))
    jobs = []
    for run in runs:
        job, values = recorded_job(run), known.get(run.info.run_id)
        jobs.append(job if values is None else replace(job, values={k: values[k] for k in keys if k in values}))
    rest = ranking.unranked(jobs)
    ranked = [jobs] if sort is None else [[job] for job in jobs]
    rows = [row for members in ranked for row in ranking.rank(members, direction)]
    typed = [run.data.tags.get("mnist_exp.overrides", "") for run in runs]
    differences = find_differences(list(known.values()), typed, _WIDTH)
    short = short_ids(job.run_id for job in jobs)

    def said(values: Mapping[str, str], run_id: str) -> dict[str, str]:
        told = {key: differences.cell(values, key) for key in differences.columns}
        return {"run_id": short[run_id], "also": differences.also(values), **told}

    ids = [ranking.best_job(row, direction).run_id for row in rows]
    shown = [replace(row, values=said(row.values, run_id)) for row, run_id in zip(rows, ids, strict=True)]
    # A ranking says of the pruned of a combination what it says of its row, or of the first of them.
    told = {ranking.combination(row.values): new.values for row, new in zip(rows, shown, strict=True)}
    others = []
    for job in rest:
        values = said(job.values, job.run_id)
        if job.pruned is not None and sort is None:
            values = told.setdefault(ranking.combination(job.values), values)
        others.append(replace(job, values=values))
    lines, texts = ranking.cells(shown, others, objective, {"run_id": "id", "also": "", **differences.columns})
    also = [line.pop(2) for line in lines][1:]
    named = [
        (f"{place}  {short[run_id]}", differences.label(row.values), [job.run_id for job in row.jobs])
        for place, (row, run_id) in enumerate(zip(rows, ids, strict=True), start=1)
    ]
    order = sort or ranking.order(objective, direction)
    usual = f"Where nothing else is said: {unsaid}" if (unsaid := differences.unsaid()) else ""
    has_several = any(len(row.jobs) > 1 for row in rows)
    several = "The id of a row of several seeds is that of its best run." if has_several else ""
    told_apart = _verdict(rows, differences, direction) if sort is None else ""
    return Ranked(
        title=f"{formats.counted(len(jobs), 'run')}, {order}{_on_the_test_set(runs, objective)}",
        notes=[note for note in (usual, several, told_apart) if note],
        verdict=told_apart,
        lines=lines,
        texts=[place - (place > 2) for place in texts if place != 2],
        also=also,
        records=[{"objective": objective, **one} for one in ranking.records(rows, rest, objective, direction)],
        rows=named,
        metric=objective.replace("test_", "val_", 1) if objective not in {"objective", "value"} else "val_loss",
    )


def _configured(runs: Sequence["Run"]) -> dict[str, dict[str, str]]:
    """Return by the run's id all that can make its result differ: configuration, and where they vary data and code."""
    digests: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for run in runs:
        if digest := data_digest(run):
            digests.setdefault(_dataset(run), set()).add(digest)
    found = {}
    for run in runs:
        tags = run.data.tags
        values = dict(run.data.params)
        if len(digests.get(_dataset(run), ())) > 1 and (digest := data_digest(run)):
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


def _verdict(rows: Sequence[ranking.Row], differences: Differences, direction: str) -> str:
    names = differences.columns
    named = [
        replace(row, values={names[key]: differences.cell(row.values, key) for key in names if key in row.values})
        for row in rows
    ]
    return verdict(named, list(names.values()), direction)


def as_text(groups: Sequence[Ranked], form: str) -> str:
    """Return rankings as a person or a program reads them.

    Args:
        groups: one or more.
        form: `table`, `csv`, `json`, `markdown` or `latex`.
    """
    if form in {"csv", "json"}:
        records = [record for group in groups for record in group.records]
        return formats.as_json(records) if form == "json" else formats.as_csv(records).rstrip("\n")
    if form == "table":
        return "\n\n".join(map(_table, groups))
    as_form = formats.as_markdown if form == "markdown" else formats.as_latex
    found = []
    for group in groups:
        lines, texts = group.lines, group.texts
        if any(group.also):
            lines = [[*line, text] for line, text in zip(lines, ["also", *group.also], strict=True)]
            texts = [*texts, len(lines[0]) - 1]
        found.append(as_form(group.title, lines, texts, group.notes))
    return "\n\n".join(found)


def _table(group: Ranked) -> str:
    """Return a ranking as text; what no column says is in a line below its row."""
    header, *rows = formats.aligned(group.lines, group.texts).split("\n")
    below = [f"\n   also {printable(text)}" if text else "" for text in group.also]
    told = [f"{row}{text}" for row, text in zip(rows, below, strict=True)]
    return "\n".join([printable(group.title), header, *told, *map(printable, group.notes)])
