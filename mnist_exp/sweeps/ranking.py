"""From jobs to rows, best first, and which of them can be told from the first. Nothing here reads a store."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.statistics import Comparison, compare_with_first, seeds_to_tell, wilson
from mnist_exp.tracking.job import Job, job_name

_SINGLE = "A single run may be better or worse by chance; add seed=0,1,2,3,4 to run each row with five seeds."
_PRUNED = (
    "Rows with a pruned job are not compared, since the mean of the others flatters them; the same command without "
    "prune, with resume=true, trains what was pruned to its end."
)


@dataclass(frozen=True)
class Row:
    """Finished jobs that differ only in their seed.

    `mean`, `deviation`: of the objective; the sample's deviation, None for one job. `dropped`: the round in which a
    race dropped the row; `failed`: because a job failed. `pruned`: how many more jobs were stopped as hopeless, so that
    the mean flatters the row. `comparison`: with the first row.
    """

    values: Mapping[str, str]
    jobs: tuple[Job, ...]
    mean: float
    deviation: float | None
    dropped: int | None = None
    failed: bool = False
    pruned: int = 0
    comparison: Comparison | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all jobs ended as they should, so that the row can be compared."""
        return not self.failed and not self.pruned

    @property
    def is_open(self) -> bool:
        """Whether the row may be as good as the first one."""
        return self.comparison is not None and self.comparison.is_open and self.dropped is None


@dataclass(frozen=True)
class Rounds:
    """The `rounds` of a race, of which `last` ran; each corrects the `level` of its intervals for `pairs` of rows."""

    level: float
    rounds: int
    pairs: int
    last: int


def rank(jobs: Iterable[Job], direction: str) -> list[Row]:
    """Return the finished jobs, those that differ only in `seed` as one row, best mean of the objective first.

    Jobs without a finite objective are left out. `direction`: `maximize` or `minimize`.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = defaultdict(list)
    for job in jobs:
        groups[combination(job.values)].append(job)
    rows = [_row(members) for members in groups.values() if any(map(_is_ranked, members))]
    return sorted(rows, key=lambda row: row.mean, reverse=direction == "maximize")


def _row(members: Sequence[Job]) -> Row:
    jobs = tuple(filter(_is_ranked, members))
    objectives = [job.objective for job in jobs if job.objective is not None]
    several = len(jobs) > 1
    values = {key: value for key, value in jobs[0].values.items() if key != "seed" or not several}
    pruned = sum(job.pruned is not None for job in members)
    return Row(values, jobs, fmean(objectives), stdev(objectives) if several else None, pruned=pruned)


def combination(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the values that the jobs of one row share, which are all but the seed."""
    return tuple(sorted(item for item in values.items() if item[0] != "seed"))


def unranked(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that no row holds: pruned, failed, killed or running, or without a finite objective."""
    return [job for job in jobs if not _is_ranked(job)]


def _is_ranked(job: Job) -> bool:
    return job.is_whole and job.objective is not None and math.isfinite(job.objective)


def compared(rows: Sequence[Row], raced: Rounds | None = None) -> list[Row]:
    """Return the rows, each compared with the first if both are whole.

    In a race, the rows that ran in its last round are compared as that round did.
    """
    scores = [_by_seed(row) if row.is_whole else {} for row in rows]
    if raced is None:
        found = compare_with_first(scores)
    else:
        ran = sum(row.is_whole and row.dropped in (None, raced.last) for row in rows)
        found = compare_with_first(scores[:ran], raced.level, raced.pairs)
        found += compare_with_first(scores, raced.level, raced.pairs)[len(found) :]
    return [replace(row, comparison=one) for row, one in zip(rows, [None, *found], strict=False)]


def _by_seed(row: Row) -> dict[str, float]:
    """Return the objectives of a row by seed; a job without a seed shares none with another."""
    return {job.values.get("seed", f"{job.run_id} {i}"): job.objective or 0.0 for i, job in enumerate(row.jobs)}


def interval_of(comparison: Comparison | None) -> dict[str, float | None]:
    """Return a difference and the ends of its interval, by name; None where nothing was compared."""
    return {name: getattr(comparison, name, None) for name in ("difference", "low", "high")}


def verdict(rows: Sequence[Row], keys: Iterable[str], direction: str, raced: Rounds | None = None) -> str:
    """Say which rows, best first and compared, can be told from the first one; nothing about fewer than two rows.

    `keys`: what varies. `raced`: how the intervals of a race are corrected.
    """
    if len(rows) < 2 or rows[0].failed:
        return ""
    name = job_name(rows[0].values, keys) or "The first row"
    found = [row.comparison for row in rows[1:] if row.comparison is not None]
    uncompared = [row for row in rows[1:] if row.comparison is None]
    if not found and raced is not None:
        return f"{name} is left, since jobs of all others failed."
    if not found:
        return _PRUNED if rows[0].pruned or all(row.pruned for row in uncompared) else _SINGLE
    notes = " Rows of a single run are not compared." * any(row.is_whole for row in uncompared)
    notes += " Rows with a pruned job are not compared." * any(row.pruned for row in uncompared)
    several = [f"{found[0].pairs} pairs"] * (found[0].pairs > 1)
    several += [f"{raced.rounds} rounds"] if raced is not None else []
    corrected = f"corrected for {' and '.join(several)}" if several else "95 % interval"
    are_open = [row.is_open for row in rows[1:]]
    if not any(are_open):
        # In a race, a row may have been beaten by one that was beaten later, and still be open to this one.
        nearest = min(found, key=lambda one: (one.is_open, abs(one.difference)))
        low, high = sorted((abs(nearest.low), abs(nearest.high)))
        how = f"paired over {nearest.seeds} seeds" if nearest.seeds else "compared by Welch's test"
        side = "above" if direction == "maximize" else "below"
        size = f"{decimals(abs(nearest.difference))} [{decimals(low)}, {decimals(high)}]"
        return f"{name} is best: {size} {side} the next, {how}, {corrected}.{notes}"
    smallest = next(row.comparison for row in rows if row.comparison is not None and row.is_open)
    seeds = seeds_to_tell(smallest)
    needed = "more than 200" if seeds is None else f"about {seeds}"
    which = "The rows marked = cannot be told from the first"
    if all(are_open[: sum(are_open)]):
        which = f"The first {1 + sum(are_open)} rows cannot be told apart"
    size = f"a difference of {decimals(abs(smallest.difference))}"
    return f"{which} ({corrected}); {needed} seeds each would tell {size}.{notes}"


def on_other_images(best: Row, count: int) -> str:
    """Say in which interval a row's accuracy on images like the `count` of the test set is; nothing if it has none."""
    measured = [job.scores["test_accuracy"] for job in best.jobs if job.scores and "test_accuracy" in job.scores]
    if not measured or count < 1 or not all(0 <= share <= 1 for share in measured):
        return ""
    mean = fmean(measured)
    low, high = wilson(mean, count)
    return (
        f"test_accuracy {decimals(mean)} of the first row is measured on {count} images; on others like them it would "
        f"be {decimals(low)} to {decimals(high)} (95 %, Wilson)."
    )
