"""From jobs to rows, best first, and which of them may be better than the first. Nothing here reads a store."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mnist_exp.sweeps.formats import counted, decimals
from mnist_exp.sweeps.statistics import LEVEL, Comparison, compare_with_first, seeds_to_tell
from mnist_exp.tracking.records import Record

SINGLE = "a single run may be better or worse by chance; seed=0,1,2,3,4 runs each row with five seeds"
_PRUNED = (
    "a row with a pruned job is not compared, since the mean of the others flatters it; the same command without "
    "prune, with resume=true, trains what was pruned to its end"
)
_LOST = (
    "a row with a failed job is not compared, since the mean of the others flatters it; the same command with "
    "resume=true tries it again"
)


@dataclass(frozen=True)
class Row:
    """Finished jobs that differ only in their seed.

    `mean`, `deviation`: of the objective; the sample's deviation, None for one job. `dropped`: the round in which a
    race dropped the row; `failed`: because a job failed. `pruned`, `lost`: how many more jobs were stopped as hopeless,
    or failed, so that the mean flatters the row; `missing`: how many more were killed or still run. `comparison`: with
    the first row, or with the leader of the round that dropped the row, whose values are `against`.
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
    against: Mapping[str, str] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all jobs ended as they should, so that the row can be compared."""
        return not (self.failed or self.pruned or self.lost)

    @property
    def is_open(self) -> bool:
        """Whether the row may be better than the first one."""
        return self.comparison is not None and not self.comparison.is_beaten and self.dropped is None


def rank(jobs: Iterable[Record], direction: str) -> list[Row]:
    """Return the finished jobs, those that differ only in `seed` as one row, best mean of the objective first.

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
    seeds = {job.values.get("seed") for job in jobs}  # of which an earlier try may have failed
    others = [job for job in members if job.pruned is None and job.values.get("seed") not in seeds]
    missing = sum(map(is_missing, others))
    lost = len(others) - missing
    deviation = stdev(objectives) if several else None
    return Row(values, jobs, fmean(objectives), deviation, pruned=pruned, lost=lost, missing=missing)


def combination(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the values that the jobs of one row share, which are all but the seed."""
    return tuple(sorted(item for item in values.items() if item[0] != "seed"))


def unranked(jobs: Iterable[Record]) -> list[Record]:
    """Return the jobs that no row holds: pruned, failed, killed or running, or without a finite objective."""
    return [job for job in jobs if not _is_ranked(job)]


def is_missing(job: Record) -> bool:
    """Return whether a job was stopped before its end, or still runs."""
    return job.status in {"KILLED", "RUNNING"}


def _is_ranked(job: Record) -> bool:
    return job.is_whole and job.objective is not None and math.isfinite(job.objective)


def compared(rows: Sequence[Row], direction: str, others: Sequence[Row] = ()) -> list[Row]:
    """Return the rows, each compared with the first if both are whole.

    `others`: rows of the same sweep that are not shown, which count for its level and for what its variances share.
    """
    found = compare_with_first([by_seed(row) if row.is_whole else {} for row in (*rows, *others)], direction)
    return [replace(row, comparison=one) for row, one in zip(rows, [None, *found], strict=False)]


def by_seed(row: Row) -> dict[str, float]:
    """Return the objectives of a row by seed; a job without a seed shares none with another."""
    return {job.values.get("seed", f"{job.run_id} {i}"): job.objective or 0.0 for i, job in enumerate(row.jobs)}


def verdict(
    rows: Sequence[Row],
    label: Callable[[Mapping[str, str]], str],
    *,
    images: str = "",
    family: str = "",
    rounds: int = 0,
    indifference: float = 0.0,
    single: str = SINGLE,
) -> str:
    """Say which of the rows, best first and compared, to take; nothing about fewer than two rows.

    Args:
        rows: as `compared` returns them.
        label: returns the name of a row, given its values.
        images: on which the objective is measured, as `measured_on` returns them.
        family: what the rows are, if they are a part, such as `these 3 of the 16 rows of sweep 3f2a1c22`.
        rounds: of a race.
        indifference: a difference that does not matter.
        single: why single runs do not decide, and what would.
    """
    if len(rows) < 2 or rows[0].failed:
        return ""

    def name(row: Row) -> str:
        return label({key: value for key, value in row.values.items() if key != "seed"})

    first = name(rows[0]) or "The first row"
    where = f" on these {images}" if images else ""
    others = [(row, row.comparison) for row in rows[1:] if row.comparison is not None]
    uncompared = [row for row in rows[1:] if row.comparison is None]
    leads = f"{f'Of {family}, ' * bool(family)}{first} leads with {decimals(rows[0].mean)}{where}"
    if not others and rounds:
        return f"{first} is left, since jobs failed of all others, or of those that dropped them."
    if not others:
        why = _PRUNED if any(row.pruned for row in rows) else _LOST if any(row.lost for row in rows) else single
        return f"{leads}, but {why}."
    notes = _not_compared(uncompared)
    how = f"(95 %, {_seeds([one for _, one in others], rounds)})"
    may_be_better = [(row, one) for row, one in others if row.is_open]
    if not may_be_better:
        of = f"the {1 + len(others)} rows that are compared" if uncompared else family or len(rows)
        rest, next_one = ("none of the others is", "the next") if len(others) > 1 else ("the other is not", "it")
        is_next = others[0][0].against in (None, dict(combination(rows[0].values)))
        behind = f"; {next_one} is {decimals(abs(others[0][1].difference))} behind" * is_next
        return f"{first} is best of {of}{where}: {rest} better {how}{behind}.{notes}"
    nearest, found = max(may_be_better, key=lambda one: one[1].at_best)
    most = decimals(found.at_best)
    if found.at_best <= indifference:
        return f"{leads}; if you take it, you lose at most {most} {how}.{notes}"
    some = "any" if len(may_be_better) == len(others) else len(may_be_better)
    which = f"{some} of the {len(others)} others" if len(others) > 1 else "the other"
    by = f"by {most} at most{f' ({name(nearest)})' * (len(others) > 1)}"
    by = by if found.at_best < abs(rows[0].mean) else "since so few seeds tell next to nothing"
    seeds = _more_seeds([one for _, one in may_be_better], len(rows[0].jobs))
    return f"{leads}; {which} may be better, {by}. {seeds}{notes}"


def _not_compared(rows: Sequence[Row]) -> str:
    """Say which rows are not compared, and why."""
    reasons = {
        "a single run": any(row.is_whole and row.dropped is None for row in rows),
        "a pruned job": any(row.pruned for row in rows),
        "a failed job": any(row.lost or row.failed for row in rows),
    }
    what = " or ".join(reason for reason, is_one in reasons.items() if is_one)
    notes = f" Rows with {what} are not compared." * bool(what)
    is_unsettled = any(row.is_whole and row.dropped is not None for row in rows)
    return notes + " A row that was dropped by one that failed later is not compared." * is_unsettled


def _seeds(comparisons: Sequence[Comparison], rounds: int) -> str:
    """Say by how many seeds, or in how many rounds, rows were compared with the first one."""
    if rounds:
        return f"over {counted(rounds, 'round')}"
    paired = sorted({one.seeds for one in comparisons if one.seeds})
    if not paired:
        return "from different seeds"
    some = ", some from different ones" * any(not one.seeds for one in comparisons)
    return f"paired over {paired[0]}{f' to {paired[-1]}' * (len(paired) > 1)} seeds{some}"


def _more_seeds(may_be_better: Sequence[Comparison], seeds: int) -> str:
    """Say how many more than these seeds would tell whether rows that may be better, or the first, are best."""
    needed = [seeds_to_tell(one) for one in may_be_better]
    these = f"these {1 + len(needed)}" if len(needed) > 1 else "both"
    if None in needed:
        return f"More than 200 seeds of {these} would be needed to decide."
    more = max(1, max(filter(None, needed)) - seeds)
    return f"About {counted(more, 'more seed')} of {these} would decide."


def measured_on(best: Row, part: str) -> str:
    """Return the images of a part of a row's data, such as `10,000 test images`; "" if their number is not known."""
    count = best.jobs[0].images(part)
    return f"{count:,} {'test ' * (part == 'test')}images" if count else ""


def on_other_images(best: Row) -> str:
    """Say in which interval a row's accuracy on images like those of the test set is; nothing if it has none."""
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
    """Return the 95 % interval of a share measured on `count` images (E. B. Wilson, 1927).

    >>> [round(end, 4) for end in wilson(0.95, 10_000)]
    [0.9456, 0.9541]
    """
    from scipy.special import ndtri

    z = float(ndtri(1 - LEVEL / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - reach, middle + reach
