"""Show past runs as tables, one for all that measure the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mnist_exp.config import keras_names
from mnist_exp.errors import InputError, did_you_mean
from mnist_exp.sweeps.choice import Found
from mnist_exp.sweeps.comparable import comparison_key, find_conflicts, part_measured
from mnist_exp.sweeps.formats import differing_keys, find_differences, pluralize
from mnist_exp.sweeps.outcome import order
from mnist_exp.sweeps.ranking import Row, combination, compare_rows, describe_images, find_unranked, rank
from mnist_exp.sweeps.table import Table
from mnist_exp.sweeps.verdict import SINGLE, judge, word
from mnist_exp.text import truncate
from mnist_exp.tracking.names import short_ids
from mnist_exp.tracking.records import Record

_MAX_DIFFERENCE_CHARS = 38  # a table then has about 100, or with seeds 140
_DIGEST_CHARS = 8
_DIGESTS = {"data", "test_set"}
_PACKAGES = ("tensorflow", "jax", "keras", "numpy")  # the packages that a result depends on
_PARTS = {"backend": "backend", "code": "code", "own_code": "code", "packages": "packages"}
_MAX_VALUE_CHARS = 110
_MAX_OTHERS = 6  # lines about other tables

Measure = tuple[tuple[str, str], ...]


def drop_repeats(runs: Sequence[Record]) -> list[Record]:
    """Return the newest run of each signature.

    A repeated experiment says nothing about chance.
    A whole run goes before one that was pruned, and that before one that did not finish.
    """

    def worth(run: Record) -> tuple[bool, bool, int]:
        return run.is_whole, run.status == "FINISHED", run.start

    best = {run.signature or run.run_id: run for run in sorted(runs, key=worth)}
    kept = {run.run_id for run in best.values()}
    return [run for run in runs if run.run_id in kept]


def make_tables(found: Found, only: Sequence[str] = ()) -> list[Table]:
    """Return a table for each objective, way to measure it, and race, newest first.

    A run that was refused has recorded no objective, and one that failed early no data: they are in the first table.
    """
    keys = differing_keys(list(_read_configs(found.runs).values()))  # whose values all records have
    groups = _groups(found)
    differ = find_conflicts(map(dict, groups))
    return [
        _table(found, *members, {key: value for key, value in measure if key in differ}, keys, only)
        for measure, members in groups.items()
    ]


def sorted_table(found: Found, metric: str, only: Sequence[str] = ()) -> Table:
    """Return all runs in one table, ordered by a metric, an accuracy from the largest.

    Args:
        found: the chosen runs.
        metric: a metric of epochs or of the end.
        only: the names of columns; by default those that fit.

    Raises:
        InputError: if no run has recorded the metric.
    """
    names = {name for run in found.runs for name in run.scores}
    if metric not in names:
        hint = did_you_mean(metric, names) or f"; there are {', '.join(sorted(names))}"
        raise InputError(f"--sort {metric}: no run has this metric{hint}")
    larger = {name.lower() for name in keras_names.LARGER_IS_BETTER} | {"objective"}
    direction = "maximize" if metric.rpartition("_")[2].lower() in larger else "minimize"
    known = _read_configs(found.runs)
    jobs = [_set_objective(job, metric) for job in _jobs(found.runs, known)]
    rows = [row for job in jobs for row in rank([job], direction)]
    return Table(
        metric,
        direction,
        sorted(rows, key=lambda row: row.mean, reverse=direction == "maximize"),
        find_unranked(jobs),
        find_differences(list(known.values()), _MAX_DIFFERENCE_CHARS),
        ids=short_ids(job.run_id for job in jobs),
        listed=True,
        only=only,
        title=f"{pluralize(len(jobs), 'run')}, {order(metric, direction)}",
    )


def about_others(tables: Sequence[Table]) -> list[str]:
    """Return a line for each table but the first: runs, measure and command."""
    lines = []
    for table in tables[1 : _MAX_OTHERS + 1]:
        newest = max(table.jobs, key=lambda job: job.start)
        count = pluralize(len(table.jobs), "more run")
        verb = "is" if len(table.jobs) == 1 else "are"
        command = f"python -m mnist_exp.compare --like {table.ids[newest.run_id]}"
        lines.append(f"{count} {verb} measured with {table.measure}: {command}")
    if left := tables[_MAX_OTHERS + 1 :]:
        lines.append(f"{sum(len(table.jobs) for table in left)} more runs in {len(left)} more tables: --format csv")
    return lines


def _set_objective(job: Record, metric: str) -> Record:
    scores = {name: value for name, value in job.scores.items() if name != "objective" or name == metric}
    return replace(job, scores=scores | ({"objective": job.scores[metric]} if metric in job.scores else {}))


def _objective(run: Record) -> tuple[str, str] | None:
    name = run.parameters.get("objective")
    return (name, run.parameters.get("direction", "maximize")) if name else None


def _groups(found: Found) -> dict[Measure, tuple[list[Record], list[Record]]]:
    """Return comparable runs, shown and hidden, by the facts that are equal in them.

    Runs without an objective or data, which failed early, are in the first group.
    """
    tests = {run.digest: run.test_digest for run in (*found.runs, *found.others) if run.test_digest}
    groups: dict[Measure, tuple[list[Record], list[Record]]] = {}
    for place, runs in enumerate((sorted(found.runs, key=lambda run: not run.digest), found.others)):
        for run in runs:
            objective, _ = _objective(run) or ("objective", "")
            same = {"objective": objective} | comparison_key(objective, run.parameters, run, tests)
            if found.races:
                sweep = found.sweeps.get(run.run_id, "")
                same["race"] = sweep if sweep in found.races else ""
            measure = tuple(same.items()) if run.digest else next(iter(groups), tuple(same.items()))
            groups.setdefault(measure, ([], []))[place].append(run)
    return {measure: group for measure, group in groups.items() if group[0]}


def _table(
    found: Found,
    runs: Sequence[Record],
    others: Sequence[Record],
    apart: Mapping[str, str],
    keys: Sequence[str],
    only: Sequence[str],
) -> Table:
    """Return a table of runs that measure the same.

    Args:
        found: all runs.
        runs: those of the table.
        others: those that measure the same and are not shown.
        apart: the difference between the tables.
        keys: of the records.
        only: the columns that were asked for.
    """
    name, direction = next(filter(None, map(_objective, runs)), ("objective", "maximize"))
    known = _read_configs(runs)
    apart = {
        key: value[:_DIGEST_CHARS] if key in {*_DIGESTS, "race"} else value for key, value in apart.items() if value
    }
    columns = {key: value for key, value in apart.items() if key not in {"objective", "race"}}
    jobs = [job.with_values(columns | job.values) for job in _jobs(runs, known, keys)]
    rows = rank(jobs, direction)
    ranked = [known[job.run_id] for row in rows for job in row.jobs if job.run_id in known]
    differences = find_differences(ranked if len(rows) > 1 else list(known.values()), _MAX_DIFFERENCE_CHARS)
    part = part_measured(name, runs[0].parameters)
    title = f"{pluralize(len(jobs), 'run')}, {order(name, direction)}"
    title += ", MEASURED ON THE TEST SET" if part == "test" and any(run.digest for run in runs) else ""
    decided, notes = "", list[str]()
    sweeps = {found.sweeps.get(run.run_id, "") for run in runs}
    if races := sorted(short_ids(found.races & sweeps).values()):
        decided = f"A race is decided by its rounds: see the report of sweep {races[0]}. Nothing is compared here."
    elif rows:
        hidden, seeds = _hide_rows(runs, others, direction)
        rows = compare_rows(rows, direction, hidden)
        single = "one seed may be better or worse by chance, and the sweep has more" if seeds else SINGLE
        family = _describe_family(rows, len(hidden), found)
        verdict = judge(rows)
        decided = word(verdict, differences.label, images=describe_images(rows[0], part), family=family, single=single)
        if verdict is not None and seeds:
            notes.append(f"Not shown: {pluralize(seeds, 'more run')} of these rows.")
        if verdict is not None and found.are_picked and "" in sweeps:
            notes.append("What is picked for its score looks better than it is.")
    beside = [differences.names[key] for key in differences.names if key not in differences.columns and key != "seed"]
    notes += [_difference_note(rows), f"Without a column: {', '.join(beside)}; --columns shows them." if beside else ""]
    if any(len(row.jobs) > 1 for row in rows):
        notes.append("The id of a row of several seeds is that of its best run.")
    return Table(
        name,
        direction,
        rows,
        find_unranked(jobs),
        differences,
        ids=short_ids(job.run_id for job in jobs),
        only=only,
        measure=_split_note(runs, apart),
        title=title,
        verdict=decided,
        notes=notes,
    )


def _jobs(
    runs: Sequence[Record], known: Mapping[str, Mapping[str, str]], keys: Sequence[str] | None = None
) -> list[Record]:
    """Return runs as jobs with the values of `keys`, by default the differing ones."""
    keys = differing_keys(list(known.values())) if keys is None else keys
    varied = {run_id: {key: values[key] for key in keys if key in values} for run_id, values in known.items()}
    return [run.with_values(varied.get(run.run_id, run.values)) for run in runs]


def _hide_rows(runs: Sequence[Record], others: Sequence[Record], direction: str) -> tuple[list[Row], int]:
    """Return the rows without chosen runs, and how many runs of other rows were not."""
    jobs = _jobs([*runs, *others], _read_configs([*runs, *others])) if others else []
    shown = {combination(job.values) for job in jobs[: len(runs)]}
    rest = [job for job in jobs[len(runs) :] if combination(job.values) not in shown]
    return rank(rest, direction), len(others) - len(rest)


def _describe_family(rows: Sequence[Row], hidden: int, found: Found) -> str:
    """Describe the sweep or choice that rows are a part of, or return ""."""
    runs = [job.run_id for row in rows for job in row.jobs]
    ids = [*short_ids(found.sweeps[run] for run in runs if run in found.sweeps).values()]
    single = sum(run not in found.sweeps for run in runs)
    if not (single or hidden or len(ids) > 1) or not (ids or found.are_picked):
        return ""
    parts = [f"sweep {ids[0]}" if len(ids) == 1 else pluralize(len(ids), "sweep")] if ids else []
    if single:
        parts.append(pluralize(single, "picked run" if found.are_picked else "single run"))
    part = f"these {len(rows)} of " if hidden else ""
    return f"{part}the {len(rows) + hidden} rows of {' and '.join(parts)}"


def _split_note(runs: Sequence[Record], values: Mapping[str, str]) -> str:
    """Say how a table differs from the others, or nothing."""
    here = ", ".join(truncate(f"{key}={value}", _MAX_VALUE_CHARS) for key, value in values.items())
    if _DIGESTS & values.keys():
        here += f" ({next((run.data['name'] for run in runs if run.data), '')})"
    return here


def _difference_note(rows: Sequence[Row]) -> str:
    """Say which parts of the program rows differ in, or nothing."""
    keys = differing_keys([row.values for row in rows])
    parts = dict.fromkeys(_PARTS[part] for key in keys if (part := key.partition(".")[0]) in _PARTS)
    return f"The rows differ in {' and '.join(parts)}, too." if parts else ""


def _read_configs(runs: Sequence[Record]) -> dict[str, dict[str, str]]:
    """Return all that can make a result differ, by run id.

    A sweep's varied keys come first, in the newest sweep's order. Refused runs, without a configuration, are left out.
    """
    found = {}
    swept = dict.fromkeys(key for run in sorted(runs, key=lambda run: -run.start) for key in run.values)
    for run in runs:
        parts = {
            "data": run.digest[:_DIGEST_CHARS],
            "own_code": run.fact("own_code"),
            "code": run.fact("code")[:_DIGEST_CHARS],
        }
        packages = (package.partition(" ") for package in run.fact("packages").split(", "))
        versions = {f"packages.{name}": number for name, _, number in packages if name in _PACKAGES}
        if run.parameters:
            first = {key: run.parameters[key] for key in swept if key in run.parameters}
            found[run.run_id] = (
                first | run.parameters | {key: value for key, value in parts.items() if value} | versions
            )
    return found
