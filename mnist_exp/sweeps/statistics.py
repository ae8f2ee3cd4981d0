"""Which rows of a ranking can be told from the first one, by the seeds that they share.

The first row is the best of many, so a test against it alone would call rows beaten far too often. The level of a test
is therefore 5 % over the number of all pairs of rows (Bonferroni). Few seeds say little about a variance, so a row's
variance is shrunk towards the mean of the others' (a moderated t-test: Smyth, 2004).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

LEVEL = 0.05
POWER = 0.8
_MOST_SEEDS = 200
_PRIOR = 5  # degrees of freedom that the others' variances count for, at most


@dataclass(frozen=True)
class Comparison:
    """A row beside the first one.

    `difference`: this row's mean objective less the first one's, over the seeds that both have. `low`, `high`: the ends
    of its interval, outside of which it lies in at most a share `level` of all sweeps. `seeds`: how many both have; 0
    if they share fewer than two, and were compared as independent. `deviation`: that of the difference for one seed.
    `pairs`: the number of pairs of rows that the level is corrected for.
    """

    difference: float
    low: float
    high: float
    seeds: int
    deviation: float
    level: float
    pairs: int

    @property
    def is_open(self) -> bool:
        """Whether the row cannot be told from the first one."""
        return self.low <= 0 <= self.high


def compare_with_first(
    rows: Sequence[Mapping[str, float]], level: float = LEVEL, pairs: int | None = None
) -> list[Comparison | None]:
    """Compare each row but the first with the first one; None where one of the two has fewer than two seeds.

    Args:
        rows: objective by seed, the best row first.
        level: the share of all sweeps in which any of the intervals may miss.
        pairs: how many pairs of rows share the level; by default those of all rows with two seeds or more.
    """
    if not rows or len(rows[0]) < 2:
        return [None] * (len(rows) - 1)
    compared = sum(len(row) > 1 for row in rows)
    pairs = compared * (compared - 1) // 2 if pairs is None else pairs
    level /= max(pairs, 1)
    shared = [[value - rows[0][seed] for seed, value in row.items() if seed in rows[0]] for row in rows[1:]]
    paired = {place: (one, variance(one)) for place, one in enumerate(shared) if len(one) > 1}
    found: list[Comparison | None] = []
    for place, row in enumerate(rows[1:]):
        if place in paired:
            others = [one for other, one in paired.items() if other != place]
            difference, error, degrees, deviation = _paired(*paired[place], others)
        elif len(row) > 1:
            difference, error, degrees, deviation = _independent(list(rows[0].values()), list(row.values()))
        else:
            found.append(None)
            continue
        reach = _beyond(level / 2, degrees) * error
        seeds = len(shared[place]) if place in paired else 0
        found.append(Comparison(difference, difference - reach, difference + reach, seeds, deviation, level, pairs))
    return found


def _paired(
    differences: Sequence[float], own_variance: float, others: Sequence[tuple[Sequence[float], float]]
) -> tuple[float, float, float, float]:
    """Return a mean difference, its error, degrees of freedom and deviation, by a moderated t-test.

    `others`: the differences of other rows, with their variances.
    """
    own = len(differences) - 1
    prior = min(_PRIOR, sum(len(one) - 1 for one, _ in others))
    of_others = fmean(one for _, one in others) if others else 0.0
    deviation = math.sqrt((prior * of_others + own * own_variance) / (prior + own))
    return fmean(differences), deviation / math.sqrt(len(differences)), own + prior, deviation


def _independent(first: Sequence[float], row: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the same for rows that share no seeds, by Welch's test."""
    parts = [variance(values) / len(values) for values in (first, row)]
    error = math.sqrt(sum(parts))
    spread = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, row), strict=True))
    deviation = math.sqrt(variance(first) + variance(row))
    return fmean(row) - fmean(first), error, error**4 / spread if spread else 1.0, deviation


def seeds_to_tell(comparison: Comparison) -> int | None:
    """Return how many seeds a row needs, so that 80 of 100 sweeps tell such a difference from none; None above 200."""
    for seeds in range(2, _MOST_SEEDS + 1):
        reach = _beyond(comparison.level / 2, seeds - 1) + _beyond(1 - POWER, seeds - 1)
        if abs(comparison.difference) >= reach * comparison.deviation / math.sqrt(seeds):
            return seeds
    return None


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


def _beyond(tail: float, degrees: float) -> float:
    """Return the value that Student's t distribution exceeds with the probability `tail`."""
    from scipy.special import stdtrit  # comes with MLflow; scipy.stats takes a second to import

    return -float(stdtrit(degrees, tail))
