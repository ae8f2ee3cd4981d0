"""Past runs as tables: in each those that measure the same, compared as members of the sweeps that they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mnist_exp.sweeps.comparable import measured, part_measured, varying
from mnist_exp.sweeps.formats import counted, differing_keys, find_differences
from mnist_exp.sweeps.outcome import order
from mnist_exp.sweeps.ranking import Row, combination, compared, measured_on, rank, unranked
from mnist_exp.sweeps.table import Table
from mnist_exp.sweeps.verdict import SINGLE, judge, word
from mnist_exp.text import cut
from mnist_exp.tracking.names import short_ids
from mnist_exp.tracking.records import Record

_WIDTH = 38  # characters for what a row differs in, so that a table has about 100, or with seeds 140
_DIGITS = 8  # of a digest
_DIGESTS = {"data", "test_set"}
_PACKAGES = ("tensorflow", "jax", "keras", "numpy")  # the packages that a result depends on
_PARTS = {"backend": "backend", "code": "code", "own_code": "code", "packages": "packages"}
_LONGEST = 110  # characters of a value
_NAMED = 3  # races
_RACED = "A race is decided by its rounds: see the page of sweep {}. Nothing is compared here; for others, type ids."

Measure = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Found:
    """Runs to show, and the sweeps that they belong to.

    `runs`: at least one, in their order. `others`: runs of the same sweeps that are not shown. `sweeps`: the sweep's id
    by that of a run. `races`: ids of sweeps. `are_picked`: whether somebody chose which runs are shown.
    """

    runs: Sequence[Record]
    others: Sequence[Record] = ()
    sweeps: Mapping[str, str] = field(default_factory=dict)
    races: frozenset[str] = frozenset()
    are_picked: bool = False


def newest_of_each(runs: Sequence[Record]) -> list[Record]:
    """Return the newest of the runs with the same signature: the same experiment twice says nothing about chance.

    A whole run goes before one that was pruned, and that before one that did not finish.
    """

    def worth(run: Record) -> tuple[bool, bool, int]:
        return run.is_whole, run.status == "FINISHED", run.start

    best = {run.signature or run.run_id: run for run in sorted(runs, key=worth)}
    kept = {run.run_id for run in best.values()}
    return [run for run in runs if run.run_id in kept]


def tables_of(found: Found, sort: str | None) -> list[Table]:
    """Return a table for each objective, in the order in which they come first, and each way to measure it.

    Args:
        found: the runs. One that was refused has recorded no objective, and one that failed early no data; they go with
            the first table of theirs.
        sort: the words for the order that the runs are in, to keep it in one table; None to rank them.
    """
    known = [*dict.fromkeys(filter(None, map(_objective, found.runs)))] or [("objective", "maximize")]
    keys = differing_keys(list(_configured(found.runs).values()))  # whose values all records have
    if sort is not None:
        return [_table(found, found.runs, (), known[0] if len(known) == 1 else ("value", "maximize"), {}, keys, sort)]
    tables = []
    for objective in known:
        shown = [run for run in found.runs if (_objective(run) or known[0]) == objective]
        hidden = [run for run in found.others if _objective(run) == objective]
        groups = _measures(objective[0], shown, hidden)
        differ = varying(map(dict, groups))
        for measure, (members, others) in groups.items():
            apart = {key: value[:_DIGITS] if key in _DIGESTS else value for key, value in measure if key in differ}
            tables.append(_table(found, members, others, objective, apart, keys))
    return tables


def _objective(run: Record) -> tuple[str, str] | None:
    name = run.parameters.get("objective")
    return (name, run.parameters.get("direction", "maximize")) if name else None


def _measures(
    objective: str, shown: Sequence[Record], hidden: Sequence[Record]
) -> dict[Measure, tuple[list[Record], list[Record]]]:
    """Return the runs that can be compared, those shown and those hidden, by what is equal in them.

    Runs without data, which failed early, go with the first.
    """
    tests = {run.digest: run.test_digest for run in (*shown, *hidden) if run.test_digest}
    groups: dict[Measure, tuple[list[Record], list[Record]]] = {}
    for place, runs in enumerate((sorted(shown, key=lambda run: not run.digest), hidden)):
        for run in runs:
            measure = tuple(measured(objective, run.parameters, run, tests).items())
            if not run.digest:
                measure = next(iter(groups), measure)
            groups.setdefault(measure, ([], []))[place].append(run)
    return {measure: group for measure, group in groups.items() if group[0]}


def _table(
    found: Found,
    runs: Sequence[Record],
    others: Sequence[Record],
    objective: tuple[str, str],
    apart: dict[str, str],
    keys: Sequence[str],
    sort: str | None = None,
) -> Table:
    """Return a table of runs that measure the same, or are sorted.

    `others` are hidden, `apart` tells tables apart, and the records have `keys`.
    """
    name, direction = objective
    known = _configured(runs)
    jobs = [job.with_values(apart | job.values) for job in _jobs(runs, known, keys)]
    rows = rank(jobs, direction) if sort is None else [row for job in jobs for row in rank([job], direction)]
    differences = find_differences(list(known.values()), _WIDTH)
    sweeps = {found.sweeps.get(job.run_id, "") for row in rows for job in row.jobs}
    whole = [run for run in runs if run.digest]
    parts = {part_measured(one[0], run.parameters) for run in whole if (one := _objective(run))}
    title = f"{counted(len(jobs), 'run')}, {sort or order(name, direction)}"
    title += f", {'SOME ' * (len(parts) > 1)}MEASURED ON THE TEST SET" * ("test" in parts)
    decided = ""
    if races := sorted(short_ids(found.races & sweeps).values())[:_NAMED]:
        decided = _RACED.format(", ".join(races))
    elif rows and sort is None:
        hidden, seeds = _hidden(runs, others, direction)
        rows = compared(rows, direction, hidden)
        images = measured_on(rows[0], *parts) if len(parts) == 1 else ""
        single = "one seed may be better or worse by chance, and the sweep has more" if seeds else SINGLE
        family = _family(rows, len(hidden), found)
        decided = word(judge(rows), differences.label, images=images, family=family, single=single)
        decided += f" {counted(seeds, 'run')} of these rows {'are' if seeds > 1 else 'is'} not shown." * (seeds > 0)
        if decided and found.are_picked and "" in sweeps:
            decided += " What is picked for its score looks better than it is."
    return Table(
        name,
        direction,
        rows,
        unranked(jobs),
        differences,
        ids=short_ids(job.run_id for job in jobs),
        listed=sort is not None,
        title=title,
        legend="The id of a row of several seeds is that of its best run." * any(len(row.jobs) > 1 for row in rows),
        verdict=decided,
        notes=[_apart(name, runs, apart), _too(rows)],
    )


def _jobs(
    runs: Sequence[Record], known: Mapping[str, Mapping[str, str]], keys: Sequence[str] | None = None
) -> list[Record]:
    """Return the jobs of runs, each with the values of `keys`, by default those in which the runs differ."""
    keys = differing_keys(list(known.values())) if keys is None else keys
    varied = {run_id: {key: values[key] for key in keys if key in values} for run_id, values in known.items()}
    return [run.with_values(varied.get(run.run_id, run.values)) for run in runs]


def _hidden(runs: Sequence[Record], others: Sequence[Record], direction: str) -> tuple[list[Row], int]:
    """Return the rows of others that are not among the runs, and how many more runs belong to rows that are."""
    jobs = _jobs([*runs, *others], _configured([*runs, *others])) if others else []
    shown = {combination(job.values) for job in jobs[: len(runs)]}
    rest = [job for job in jobs[len(runs) :] if combination(job.values) not in shown]
    return rank(rest, direction), len(others) - len(rest)


def _family(rows: Sequence[Row], hidden: int, found: Found) -> str:
    """Say what rows are a part of; nothing if they are all rows of one sweep, or runs that nobody picked."""
    runs = [job.run_id for row in rows for job in row.jobs]
    ids = [*short_ids(found.sweeps[run] for run in runs if run in found.sweeps).values()]
    single = sum(run not in found.sweeps for run in runs)
    if not (single or hidden or len(ids) > 1) or not (ids or found.are_picked):
        return ""
    parts = [f"sweep {ids[0]}" if len(ids) == 1 else counted(len(ids), "sweep")] if ids else []
    parts += [counted(single, "single run") + " that were picked" * found.are_picked] if single else []
    part = f"these {len(rows)} of " * (hidden > 0)
    return f"{part}the {len(rows) + hidden} rows of {' and '.join(parts)}"


def _apart(objective: str, runs: Sequence[Record], values: Mapping[str, str]) -> str:
    """Say what tells a table from the others of the same objective, or nothing."""
    here = ", ".join(cut(f"{key}={value}", _LONGEST) for key, value in values.items())
    if _DIGESTS & values.keys():
        here += f" ({next((run.data['name'] for run in runs if run.data), '')})"
    return f"Ranked apart from the other {objective}, which is measured otherwise; here {here}." if here else ""


def _too(rows: Sequence[Row]) -> str:
    """Say which parts of the program rows differ in, or nothing."""
    keys = differing_keys([row.values for row in rows])
    parts = dict.fromkeys(_PARTS[part] for key in keys if (part := key.partition(".")[0]) in _PARTS)
    return f"The rows differ in {' and '.join(parts)}, too." if parts else ""


def _configured(runs: Sequence[Record]) -> dict[str, dict[str, str]]:
    """Return by run id all that can make a result differ: configuration, data, code and packages.

    A run without a configuration, which was refused, is left out.
    """
    found = {}
    for run in runs:
        parts = {"data": run.digest[:_DIGITS], "own_code": run.fact("own_code"), "code": run.fact("code")[:_DIGITS]}
        packages = (one.partition(" ") for one in run.fact("packages").split(", "))
        versions = {f"packages.{name}": number for name, _, number in packages if name in _PACKAGES}
        if run.parameters:
            found[run.run_id] = run.parameters | {key: value for key, value in parts.items() if value} | versions
    return found
