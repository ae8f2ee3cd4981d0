"""From the jobs of a sweep to a ranking: rows, a table and a CSV. Pure functions: nothing here reads a store."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean, stdev

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.statistics import Comparison, compare_with_first
from mnist_exp.tracking.job import Job, short_names, shown_value


@dataclass(frozen=True)
class Row:
    """Finished jobs that differ in nothing but their seed.

    `mean` and `deviation` (of the sample, None for one job) of the objective. `dropped`: the round of a race that
    it was dropped in, None where it was not; `failed`: whether that was since a job failed. `pruned`: how many more
    jobs were stopped as hopeless, so that the mean of the others flatters the row a little.
    """

    values: dict[str, str]
    jobs: tuple[Job, ...]
    mean: float
    deviation: float | None
    dropped: int | None = None
    failed: bool = False
    pruned: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all jobs came to their end, so that the row can be compared."""
        return not self.failed and not self.pruned


@dataclass(frozen=True)
class Rounds:
    """What the intervals of a race are corrected for: the `level` of each of so many `rounds`, over `pairs` of rows.

    `last`: the number of the round that was run last.
    """

    level: float
    rounds: int
    pairs: int
    last: int


def rank(jobs: Sequence[Job], direction: str) -> list[Row]:
    """Return the finished jobs, those that differ only in `seed` as one row, best mean of the objective first.

    Args:
        jobs: in any order; of an objective that is not a number, none is ranked.
        direction: `maximize` or `minimize`.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(combination(job.values), []).append(job)
    rows = []
    for members in groups.values():
        if ranked := tuple(job for job in members if _is_ranked(job)):
            objectives = [job.objective for job in ranked if job.objective is not None]
            several = len(ranked) > 1
            values = {key: value for key, value in ranked[0].values.items() if key != "seed" or not several}
            deviation = stdev(objectives) if several else None
            pruned = sum(job.pruned is not None for job in members)
            rows.append(Row(values, ranked, fmean(objectives), deviation, pruned=pruned))
    return sorted(rows, key=lambda row: row.mean, reverse=direction == "maximize")


def combination(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what jobs of one row share: all that varies but the seed."""
    return tuple(sorted((name, value) for name, value in values.items() if name != "seed"))


def best_job(row: Row, direction: str) -> Job:
    """Return the best job of a row."""
    return (max if direction == "maximize" else min)(row.jobs, key=attrgetter("objective"))


def unranked(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that no row holds: pruned, failed, killed, still running, or of an objective that is not a
    number."""
    return [job for job in jobs if not _is_ranked(job)]


def _is_ranked(job: Job) -> bool:
    return job.is_whole and job.objective is not None and math.isfinite(job.objective)


def compared(rows: Sequence[Row], raced: Rounds | None = None) -> list[Comparison | None]:
    """Return how each row but the first compares with it, by seed.

    Rows of which a job failed in a race or was pruned are not compared. In a race, the rows that ran in its last round
    are compared as that round did.
    """
    scores = [_by_seed(row) if row.is_whole else {} for row in rows]
    if raced is None:
        return compare_with_first(scores)
    ran = sum(row.is_whole and row.dropped in (None, raced.last) for row in rows)
    last_round = compare_with_first(scores[:ran], raced.level, raced.pairs)
    return [*last_round, *compare_with_first(scores, raced.level, raced.pairs)[len(last_round) :]]


def _by_seed(row: Row) -> dict[str, float]:
    """Return the objectives of a row; jobs without a seed are of seeds of their own."""
    return {
        job.values.get("seed", f"{job.run_id} {index}"): job.objective
        for index, job in enumerate(row.jobs)
        if job.objective is not None
    }


def order(objective: str, direction: str) -> str:
    """Return how a ranking is ordered, in words."""
    return f"{'largest' if direction == 'maximize' else 'smallest'} {objective} first"


def cells(
    rows: Sequence[Row],
    rest: Sequence[Job],
    objective: str,
    columns: Mapping[str, str] | None = None,
    raced: Rounds | None = None,
    texts: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[list[list[str]], list[int]]:
    """Return the ranking as lines of cells, header first, and the places of the columns that hold text.

    The columns: what varies, objective, test scores, seconds; best first, the unranked last.

    Of rows of several seeds, it has the deviation over them, and the difference to the first row with its interval; a
    row that cannot be told from the first one is marked with =. The status is shown where something is unranked, how
    many jobs were pruned where a row has such; of a combination that was pruned with all seeds, there is one line.

    Args:
        rows: in the order to show.
        rest: jobs that no row holds.
        objective: its name.
        columns: of what varies, the keys to show and their headers; None for all.
        raced: of a race, whose dropped rows have the round in which they were.
        texts: what to say of values, by key; None for the values themselves.
    """

    def said(values: Mapping[str, str]) -> list[str]:
        return [(texts or {}).get(key, {}).get(value := values.get(key, "")) or shown_value(value) for key in shown]

    jobs = [*(job for row in rows for job in row.jobs), *rest]
    keys = _keys(jobs) if columns is None else list(columns)
    seeds = any(len(row.jobs) > 1 for row in rows)
    others = _others(rows, rest)
    shown = [key for key in keys if key != "seed" or not seeds or any(key in values for values, _ in others)]
    pruned = any(row.pruned for row in rows)
    names, tests = columns or short_names(keys), _test_names(jobs, objective)
    header = ["", *(names[key] for key in shown), objective]
    header += ["std", "n", "difference", "95 % interval"] if seeds else []
    header += ["dropped"] if raced is not None else []
    header += ["pruned"] if pruned else []
    lines = [[*header, *tests, "seconds", *(["status"] if others else [])]]
    found = [None, *compared(rows, raced)] if seeds else [None] * len(rows)
    for place, (row, comparison) in enumerate(zip(rows, found, strict=True), start=1):
        mark = "=" if is_open(row, comparison) else ""
        cells = [f"{place}{mark}", *said(row.values), decimals(row.mean)]
        if seeds:
            cells += ["" if row.deviation is None else decimals(row.deviation), str(len(row.jobs))]
            if comparison is not None:
                cells += [_signed(comparison.difference), f"{_signed(comparison.low)} to {_signed(comparison.high)}"]
            else:
                cells += ["", ""]
        if raced is not None:
            cells += [f"{'failed, ' * row.failed}round {row.dropped}" if row.dropped is not None else ""]
        if pruned:
            cells += [f"{row.pruned} of {row.pruned + len(row.jobs)}" if row.pruned else ""]
        cells += [decimals(fmean((job.scores or {}).get(name, math.nan) for job in row.jobs)) for name in tests]
        cells += [f"{fmean(job.seconds or 0.0 for job in row.jobs):.1f}", *(["FINISHED"] if others else [])]
        lines.append(cells)
    for values, status in others:
        blank = [""] * (len(lines[0]) - len(shown) - 2)
        lines.append(["-", *said(values), *blank, status])
    return lines, [*range(1 + len(shown)), *([len(lines[0]) - 1] if others else [])]


def _others(rows: Sequence[Row], rest: Sequence[Job]) -> list[tuple[Mapping[str, str], str]]:
    """Return what varies and what became of the jobs that no row holds; the pruned by combination, unless a row counts
    them."""
    counted = {combination(row.values) for row in rows}
    pruned: dict[tuple[tuple[str, str], ...], list[int]] = {}
    others: list[tuple[Mapping[str, str], str]] = []
    for job in rest:
        if job.pruned is not None:
            pruned.setdefault(combination(job.values), []).append(job.pruned)
        else:
            others.append((job.values, ": ".join(filter(None, (job.status, _reason(job))))))
    for values, epochs in pruned.items():
        if values not in counted:
            first, last = min(epochs), max(epochs)
            when = f"epoch {first}" if first == last else f"epochs {first} to {last}"
            others.append((dict(values), f"{f'{len(epochs)} ' * (len(epochs) > 1)}pruned after {when}"))
    return others


def _reason(job: Job) -> str:
    if job.reason or job.status != "FINISHED":
        return job.reason
    return f"pruned after epoch {job.pruned}" if job.pruned is not None else "no objective"


def is_open(row: Row, comparison: Comparison | None) -> bool:
    """Return whether a row may be as good as the first one."""
    return comparison is not None and comparison.is_open and row.dropped is None


def interval_of(comparison: Comparison | None) -> dict[str, float | None]:
    """Return a difference and the ends of its interval, by name; None where nothing was compared."""
    names = ("difference", "low", "high")
    return {name: None if comparison is None else getattr(comparison, name) for name in names}


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{decimals(abs(value))}"


def records(
    rows: Sequence[Row], rest: Sequence[Job], objective: str, direction: str, raced: Rounds | None = None
) -> list[dict[str, object]]:
    """Return, for each job, its row's place, what varies, objective, its row's numbers, scores, status and run.

    What a job does not have is None. The arguments are those of `cells`; `direction`: `maximize` or `minimize`.
    """
    jobs = [*(job for row in rows for job in row.jobs), *rest]
    keys, tests = _keys(jobs), _test_names(jobs, objective)

    def record(
        job: Job, place: int | None = None, row: Row | None = None, comparison: Comparison | None = None
    ) -> dict[str, object]:
        return {
            "rank": place,
            **{key: job.values.get(key) for key in keys},
            objective: job.objective if row is not None else None,
            "mean": row.mean if row is not None else None,
            "std": row.deviation if row is not None else None,
            "n": len(row.jobs) if row is not None else None,
            **interval_of(comparison),
            **{name: (job.scores or {}).get(name) for name in tests},
            "seconds": job.seconds,
            "status": job.status,
            "reason": _reason(job) if row is None else "",
            "run_id": job.run_id,
        }

    ranked = [
        record(job, place, row, comparison)
        for place, (row, comparison) in enumerate(zip(rows, [None, *compared(rows, raced)], strict=False), start=1)
        for job in sorted(row.jobs, key=attrgetter("objective"), reverse=direction == "maximize")
    ]
    return [*ranked, *map(record, rest)]


def _keys(jobs: Iterable[Job]) -> list[str]:
    return list(dict.fromkeys(key for job in jobs for key in job.values))


def _test_names(jobs: Iterable[Job], objective: str) -> list[str]:
    found = dict.fromkeys(name for job in jobs for name in job.scores or {} if name.startswith("test_"))
    return [name for name in found if name != objective]
