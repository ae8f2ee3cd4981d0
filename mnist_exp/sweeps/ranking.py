"""From jobs to rows, best first. Pure functions: nothing here reads a store."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mnist_exp.sweeps.statistics import Comparison, compare_with_first
from mnist_exp.tracking.job import Job


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
        """Whether all jobs came to their end, so that the row can be compared."""
        return not self.failed and not self.pruned

    @property
    def is_open(self) -> bool:
        """Whether the row may be as good as the first one."""
        return self.comparison is not None and self.comparison.is_open and self.dropped is None


@dataclass(frozen=True)
class Rounds:
    """How intervals are corrected in a race: each of its `rounds`, of which `last` ran, has a `level` for `pairs`."""

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
    """Return all that varies but the seed, which the jobs of one row share."""
    return tuple(sorted(item for item in values.items() if item[0] != "seed"))


def unranked(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that no row holds: pruned, failed, killed or running, or without a finite objective."""
    return [job for job in jobs if not _is_ranked(job)]


def _is_ranked(job: Job) -> bool:
    return job.is_whole and job.objective is not None and math.isfinite(job.objective)


def compared(rows: Sequence[Row], raced: Rounds | None = None) -> list[Row]:
    """Return the rows, compared with the first by the seeds that both have, if they are whole.

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
    """Return the objectives of a row; a job without a seed shares none with another."""
    return {job.values.get("seed", f"{job.run_id} {i}"): job.objective or 0.0 for i, job in enumerate(row.jobs)}


def interval_of(comparison: Comparison | None) -> dict[str, float | None]:
    """Return a difference and the ends of its interval, by name; None where nothing was compared."""
    return {name: getattr(comparison, name, None) for name in ("difference", "low", "high")}
