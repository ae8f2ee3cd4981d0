"""Test by shared seeds whether a row may be better than the first.

This is a comparison with the best. The first row is the best of many, by luck too. A row is beaten if the first is
better, one-sided, at 0.05 / rows: then the row that is truly best is called beaten in at most 5 % of sweeps (J. C. Hsu,
Simultaneous confidence intervals for all distances from the "best", Annals of Statistics 9, 1981; he divides by rows -
1, which real scores, that are skewed, exceed). Of two rows, that is the usual paired t-test.

A few seeds say little about a variance. So that of a row's differences is shrunk to what all rows have in common, as
far as they are alike: the weight of the common variance is estimated from all of them (G. K. Smyth, Linear models and
empirical Bayes methods, Statistical Applications in Genetics and Molecular Biology 3, 2004; `fitFDist` of limma). It is
at most half the row's own, since all differences share the first row's noise, and look more alike than they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

LEVEL = 0.05
POWER = 0.8
_MAX_SEEDS = 200
_FEWEST_TO_SHRINK = 3  # differences
_MOST_IN_COMMON = 0.5  # share of a row's own degrees of freedom


@dataclass(frozen=True)
class Comparison:
    """A row beside the first one.

    `difference`: this row's mean objective less the first one's, over the seeds that both have. `at_best`: by how much
    the row may be better; below 0 it is beaten. `low`, `high`: the ends of the difference's interval, corrected for all
    pairs of rows, since the first was chosen. `seeds`: how many both have; 0 if they share fewer than two, and were
    compared as independent. `deviation`: that of the difference for one seed. `level`: that of the one-sided test.
    """

    difference: float
    at_best: float
    low: float
    high: float
    seeds: int
    deviation: float
    level: float

    @property
    def is_beaten(self) -> bool:
        """Whether the first row is better."""
        return self.at_best < 0


def compare_with_first(
    rows: Sequence[Mapping[str, float]], direction: str, level: float = LEVEL, among: int | None = None
) -> list[Comparison | None]:
    """Compare each row with the first, or give None if one has fewer than two seeds.

    Args:
        rows: objective by seed; the one to compare with first, the others in any order.
        direction: `maximize` or `minimize`.
        level: the share of all sweeps in which the truly best row may be called beaten, or an interval may miss.
        among: how many rows share the level; by default those with two seeds or more.
    """
    if not rows or len(rows[0]) < 2:
        return [None] * (len(rows) - 1)
    among = max(2, sum(len(row) > 1 for row in rows) if among is None else among)
    sign = 1 if direction == "maximize" else -1
    shared = [[value - rows[0][seed] for seed, value in row.items() if seed in rows[0]] for row in rows[1:]]
    prior = _variance_prior([(_variance(group), len(group) - 1) for group in shared if len(group) > 1])
    found: list[Comparison | None] = []
    tail = level / among
    for row, differences in zip(rows[1:], shared, strict=True):
        if len(row) < 2:
            found.append(None)
            continue
        seeds = len(differences) if len(differences) > 1 else 0
        difference, error, degrees, deviation = (
            _compare_paired(differences, *prior) if seeds else _independent(rows[0], row)
        )
        at_best = sign * difference + _t_quantile(tail, degrees) * error
        reach = _t_quantile(tail / (among - 1), degrees) * error
        found.append(Comparison(difference, at_best, difference - reach, difference + reach, seeds, deviation, tail))
    return found


def _variance_prior(variances: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the degrees of freedom and variance in common, by moments of logarithms.

    `variances`: each with its own degrees of freedom. Of fewer than three, nothing is in common: 0 degrees.
    """
    if len(variances) < _FEWEST_TO_SHRINK:
        return 0.0, 1.0
    from scipy.special import digamma, polygamma

    least = 1e-5 * sorted(variance for variance, _ in variances)[len(variances) // 2] + 1e-300
    logs = [math.log(max(variance, least) * own / 2) - float(digamma(own / 2)) for variance, own in variances]
    of_chance = fmean(float(polygamma(1, own / 2)) for _, own in variances)
    middle, spread = fmean(logs), _variance(logs) - of_chance
    if spread <= 0:
        return math.inf, math.exp(middle)
    degrees = 2 * _inverse_trigamma(spread)
    return degrees, math.exp(middle + float(digamma(degrees / 2)) - math.log(degrees / 2))


def _inverse_trigamma(value: float) -> float:
    """Return the number whose trigamma is `value`.

    Newton's method on 1 / trigamma, which is convex (Smyth).
    """
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step / x) < 1e-8:
            break
    return x


def _compare_paired(differences: Sequence[float], degrees: float, common: float) -> tuple[float, float, float, float]:
    """Return a mean difference's value, error, degrees and deviation, by moderated t."""
    own = len(differences) - 1
    weight = min(degrees, _MOST_IN_COMMON * own)
    variance = (weight * common + own * _variance(differences)) / (weight + own)
    # 1e-18: equal scores have no variance, and differ by rounding.
    return fmean(differences), math.sqrt(variance / len(differences) + 1e-18), own + weight, math.sqrt(variance)


def _independent(*both: Mapping[str, float]) -> tuple[float, float, float, float]:
    """Return the figures of `_compare_paired` for two rows without common seeds.

    The smaller degrees of freedom are safe for any spread.
    """
    first, row = ([*values.values()] for values in both)
    error = math.sqrt(sum(_variance(values) / len(values) for values in (first, row)) + 1e-18)
    deviation = math.sqrt(_variance(first) + _variance(row))
    return fmean(row) - fmean(first), error, min(len(first), len(row)) - 1, deviation


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def seeds_for_power(comparison: Comparison) -> int | None:
    """Return the seeds that a row needs for a power of 80 %, or None above 200."""
    for seeds in range(2, _MAX_SEEDS + 1):
        reach = _t_quantile(comparison.level, seeds - 1) + _t_quantile(1 - POWER, seeds - 1)
        if abs(comparison.difference) > reach * comparison.deviation / math.sqrt(seeds):
            return seeds
    return None


def _t_quantile(tail: float, degrees: float) -> float:
    """Return the value that Student's t exceeds with the probability `tail`."""
    from scipy.special import stdtrit  # comes with MLflow; scipy.stats takes a second to import

    return -float(stdtrit(degrees, tail))
