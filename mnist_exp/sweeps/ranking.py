"""Rank jobs as rows, best first, and mark rows that may be better than the first."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.statistics import LEVEL, Comparison, compare_with_first
from mnist_exp.tracking.records import Record


@dataclass(frozen=True)
class Row:
    """Finished jobs that differ only in their seed.

    `mean`, `deviation`: of the objective; the sample's deviation, None for one job. `dropped`: the round in which a
    race dropped the row; `failed`: because a job failed. `pruned`, `lost`: how many more jobs were stopped as hopeless,
    or failed, so that the mean flatters the row; `missing`: how many more were killed or still run. `comparison`: with
    the first row.
    """

    values: Mapping[str, str]
    jobs: tuple[Record, ...]
    mean: float
    deviation: float | None
    dropped: int | None = None
    failed: bool = False
    pruned: int = 0
    lost: int = 0
    missing: int = 0
    comparison: Comparison | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all jobs ended as they should, so that the row can be compared."""
        return not (self.failed or self.pruned or self.lost)

    @property
    def is_open(self) -> bool:
        """Whether the row may be better than the first one."""
        return self.comparison is not None and not self.comparison.is_beaten


def rank(jobs: Iterable[Record], direction: str) -> list[Row]:
    """Return the finished jobs as rows, best mean objective first.

    Jobs that differ only in `seed` are one row.
    Jobs without a finite objective are left out. `direction`: `maximize` or `minimize`.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Record]] = defaultdict(list)
    for job in jobs:
        groups[combination(job.values)].append(job)
    rows = [_row(members) for members in groups.values() if any(map(_is_ranked, members))]
    return sorted(rows, key=lambda row: row.mean, reverse=direction == "maximize")


def _row(members: Sequence[Record]) -> Row:
    jobs = tuple(filter(_is_ranked, members))
    objectives = [job.objective for job in jobs if job.objective is not None]
    several = len(jobs) > 1
    values = {key: value for key, value in jobs[0].values.items() if key != "seed" or not several}
    pruned = sum(job.pruned is not None for job in members)
    seeds = {job.values.get("seed") for job in jobs}  # an earlier attempt of one may have failed
    others = [job for job in members if job.pruned is None and job.values.get("seed") not in seeds]
    missing = sum(map(is_missing, others))
    lost = len(others) - missing
    deviation = stdev(objectives) if several else None
    return Row(values, jobs, fmean(objectives), deviation, pruned=pruned, lost=lost, missing=missing)


def combination(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the values that the jobs of one row share, which are all but the seed."""
    return tuple(sorted(item for item in values.items() if item[0] != "seed"))


def find_unranked(jobs: Iterable[Record]) -> list[Record]:
    """Return the jobs outside all rows: unfinished, or without a finite objective."""
    return [job for job in jobs if not _is_ranked(job)]


def is_missing(job: Record) -> bool:
    """Return whether a job was stopped before its end, or still runs."""
    return job.status in {"KILLED", "RUNNING"}


def _is_ranked(job: Record) -> bool:
    return job.is_whole and job.objective is not None and math.isfinite(job.objective)


def compare_rows(rows: Sequence[Row], direction: str, others: Sequence[Row] = ()) -> list[Row]:
    """Return the rows, each compared with the first if both are whole.

    Args:
        rows: best first.
        direction: "maximize" or "minimize".
        others: rows of the same sweep that are not shown; they count for its level and its common variance.
    """
    found = compare_with_first([objectives_by_seed(row) if row.is_whole else {} for row in (*rows, *others)], direction)
    return [replace(row, comparison=comparison) for row, comparison in zip(rows, [None, *found], strict=False)]


def objectives_by_seed(row: Row) -> dict[str, float]:
    """Return the objectives of a row by seed.

    Jobs without a seed share none.
    """
    return {job.values.get("seed", f"{job.run_id} {i}"): job.objective or 0.0 for i, job in enumerate(row.jobs)}


def describe_images(best: Row, part: str) -> str:
    """Describe the images of a part of a row's data, such as `10,000 test images`.

    Return "" if their number is unknown.
    """
    count = best.jobs[0].images(part)
    if not count:
        return ""
    return f"{count:,} test images" if part == "test" else f"{count:,} images"


def on_other_images(best: Row) -> str:
    """Give an interval for a row's accuracy on images like the test set's, or ""."""
    count = best.jobs[0].images("test")
    measured = [job.test_scores["test_accuracy"] for job in best.jobs if "test_accuracy" in job.test_scores]
    if not measured or count < 1 or not all(0 <= share <= 1 for share in measured):
        return ""
    mean = fmean(measured)
    low, high = wilson(mean, count)
    return (
        f"test_accuracy {decimals(mean)} of the first row is measured on {count:,} images; on others like them it "
        f"would be {decimals(low)} to {decimals(high)} (95 %, Wilson)."
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `count` images (E. B. Wilson, 1927).

    >>> [round(end, 4) for end in wilson(0.95, 10_000)]
    [0.9456, 0.9541]
    """
    from scipy.special import ndtri

    z = float(ndtri(1 - LEVEL / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - reach, middle + reach
