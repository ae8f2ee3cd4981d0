"""Comparison with the best: on numbers worked out by hand, and on many sweeps that are drawn."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t

from mnist_exp.sweeps.statistics import Comparison, compare_with_first, seeds_for_power

from .replays import Scores, beaten, equal_means, real_bank, replay_sweeps

pytestmark = pytest.mark.fast

SWINGS = np.array([-2, -1, 0, 1, 2]) / math.sqrt(2.5)  # five seeds, with a variance of 1


def by_seed(values: Sequence[float] | Scores, first: int = 0) -> dict[str, float]:
    return {str(seed): float(value) for seed, value in enumerate(values, first)}


def comparisons(rows: Sequence[Sequence[float] | Scores], direction: str = "maximize") -> list[Comparison]:
    return [
        comparison
        for comparison in compare_with_first([by_seed(row) for row in rows], direction)
        if comparison is not None
    ]


def test_two_rows_are_compared_by_the_usual_paired_test() -> None:
    [only] = comparisons([np.zeros(5), SWINGS - 3])
    reach = t.isf(0.025, 4) / math.sqrt(5)
    assert [only.difference, only.deviation] == pytest.approx([-3, 1])
    assert [only.low, only.high, only.at_best] == pytest.approx([-3 - reach, -3 + reach, -3 + reach])
    assert (only.seeds, only.is_beaten) == (5, True)


def test_rows_without_common_seeds_have_the_smaller_degrees() -> None:
    [only] = compare_with_first([by_seed(SWINGS), by_seed([-9, -10, -11], first=5)], "maximize")
    assert only is not None
    at_best = -10 + t.isf(0.025, 2) * math.sqrt(1 / 5 + 1 / 3)
    assert [only.difference, only.at_best, only.deviation] == pytest.approx([-10, at_best, math.sqrt(2)])
    assert only.seeds == 0


def test_row_with_one_seed_is_not_compared() -> None:
    two = compare_with_first([by_seed(SWINGS), by_seed(2 * SWINGS - 3)], "maximize")
    assert compare_with_first([by_seed(SWINGS), by_seed(2 * SWINGS - 3), by_seed([1])], "maximize") == [*two, None]
    assert compare_with_first([by_seed([1]), by_seed(SWINGS)], "maximize") == [None]
    assert compare_with_first([], "maximize") == []


def test_variances_are_shrunk_as_far_as_they_are_alike() -> None:
    """By Smyth's formulas, with trigamma(1/2) = pi^2 / 2 and trigamma(2) = pi^2 / 6 - 1.

    Of three variances of 4 degrees, whose logarithms are -a, 0 and a, with a^2 the sum of the two, the prior has 1
    degree and a variance of 1 / e. Where all are 1, it has infinitely many, of which half the row's own count, and a
    variance of 2 exp(gamma - 1).
    """
    a = math.sqrt(2 * math.pi**2 / 3 - 1)
    variances = [math.exp(power) for power in (-a, 0, a)]
    apart = comparisons([np.zeros(5), *(math.sqrt(variance) * SWINGS for variance in variances)])
    for comparison, variance in zip(apart, variances, strict=True):
        shrunk = (1 / math.e + 4 * variance) / 5
        assert comparison.deviation == pytest.approx(math.sqrt(shrunk))
        assert comparison.at_best == pytest.approx(t.isf(0.05 / 4, 5) * math.sqrt(shrunk / 5))
        assert comparison.high == pytest.approx(t.isf(0.05 / 4 / 3, 5) * math.sqrt(shrunk / 5))
    alike = comparisons([np.zeros(5), SWINGS, -SWINGS, SWINGS])
    shrunk = (2 * 2 * math.exp(np.euler_gamma - 1) + 4) / 6
    assert [comparison.deviation for comparison in alike] == pytest.approx([math.sqrt(shrunk)] * 3)
    assert alike[0].at_best == pytest.approx(t.isf(0.05 / 4, 6) * math.sqrt(shrunk / 5))
    both = comparisons([np.zeros(5), SWINGS, 2 * SWINGS])
    assert [comparison.deviation for comparison in both] == pytest.approx([1, 2])  # two rows have no common variance


def test_a_noisy_row_does_not_blur_the_others() -> None:
    draw = np.random.default_rng(0)
    told = 0
    for _ in range(200):
        rows = (draw.normal(size=(5, 6)) * [1, 1, 1, 1, 1, 10] - [0, 6, 6, 6, 6, 60]).T
        told += 1 in beaten([by_seed(row) for row in rows])
    assert told >= 0.9 * 200


@pytest.mark.parametrize(
    ("deviations", "seeds"), [((10, 1, 1, 1), 3), ((4, 1, 1, 1, 1, 1), 3), ((10, 10, 10, 1, 1, 1), 2), ((1, 1, 1), 4)]
)
def test_the_best_row_is_seldom_called_beaten(deviations: Sequence[float], seeds: int) -> None:
    """Rows that are equally good: whichever stands for the best, in at most 5 % of sweeps; nor do intervals miss."""
    draw, sweeps = np.random.default_rng(0), 1000
    wrong, missed = np.zeros(len(deviations)), 0
    for _ in range(sweeps):
        rows = (draw.normal(size=(seeds, len(deviations))) * deviations).T
        wrong[beaten([by_seed(row) for row in rows])] += 1
        ordered = rows[np.argsort(-rows.mean(axis=1))]
        missed += not all(comparison.low <= 0 <= comparison.high for comparison in comparisons(list(ordered)))
    most = 0.05 * sweeps + 2 * math.sqrt(0.05 * 0.95 * sweeps)
    assert wrong.max() <= most
    assert missed <= most


def test_replayed_sweeps_tell_large_differences() -> None:
    real = replay_sweeps(real_bank(), rows=12, seeds=5, sweeps=60)
    assert real.told >= 0.9
    assert real.best_beaten == 0
    equal = replay_sweeps(equal_means(real_bank()), rows=24, seeds=3, sweeps=400)
    assert equal.best_beaten <= 0.05


def test_suggested_number_of_seeds_is_enough() -> None:
    """With so many seeds, a difference of this size is told in about 80 of 100 sweeps."""
    draw = np.random.default_rng(0)
    found = Comparison(-0.5, 0.1, -1.0, 0.1, seeds=3, deviation=1.0, level=0.025)
    seeds = seeds_for_power(found)
    assert seeds is not None
    told = sum(
        comparison.is_beaten
        for _ in range(500)
        for comparison in comparisons([np.zeros(seeds), draw.normal(-0.5, size=seeds)])
    )
    assert 0.75 < told / 500 < 0.85
    assert seeds_for_power(Comparison(-0.001, 1.0, -1.0, 1.0, 3, 1.0, 0.025)) is None


def test_rows_without_spread_differ_or_do_not() -> None:
    first, same, worse = [0.7] * 3, [0.1 + 0.6] * 3, [0.6] * 3  # 0.1 + 0.6 is not quite 0.7
    assert [comparison.is_beaten for comparison in comparisons([first, same, worse, same])] == [False, True, False]
    assert [comparison.is_beaten for comparison in comparisons([worse, same], "minimize")] == [True]


def test_the_smallest_is_compared_as_the_largest_is() -> None:
    rows = [by_seed(row) for row in np.random.default_rng(0).normal(size=(6, 5))]
    largest = compare_with_first(rows, "maximize")
    smallest = compare_with_first([{seed: -value for seed, value in row.items()} for row in rows], "minimize")
    for large, other in zip(largest, smallest, strict=True):
        assert large is not None
        assert other is not None
        assert (large.at_best, large.low, large.high) == (other.at_best, -other.high, -other.low)
