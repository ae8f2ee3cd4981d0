"""Which keys explain the variance of an objective."""

import random
import re
from itertools import product

import pytest

from mnist_exp.sweeps.importance import Importance, as_sentence, importance
from mnist_exp.tracking.records import Record
from tests.conftest import recorded_job
from tests.sweeps.importance_replays import DRAWS, bank_jobs, share_that_speaks
from tests.sweeps.replays import real_bank

pytestmark = pytest.mark.fast


def job(objective: float | None, **values: object) -> Record:
    return recorded_job({key: str(value) for key, value in values.items()}, "FINISHED", objective)


# Effects of -1, 0, 1 and of -0.5, 0.5, whose variances are 2/3 and 1/4; and of -0.1, 0.1 for the seed, which is 1/100.
GRID = [
    job(0.9 + 0.01 * (a + b / 2 + seed / 10), a=a, b=b, seed=seed, fixed=1)
    for a, b, seed in product((-1, 0, 1), (-1, 1), (-1, 1))
]
TOTAL = 2 / 3 + 1 / 4 + 1 / 100


def test_of_a_grid_each_key_has_the_variance_of_its_means() -> None:
    found = importance(GRID)
    assert found is not None
    assert found.shares == pytest.approx({"a": 2 / 3 / TOTAL, "b": 1 / 4 / TOTAL})
    assert list(found.shares) == ["a", "b"]  # largest first, without the seed and what does not vary
    assert as_sentence(found, "val_accuracy") == (
        "Of the variance of val_accuracy, a explains 72 %, b 27 %; the rest is interactions and chance."
    )


def test_a_key_that_does_nothing_explains_about_nothing() -> None:
    rng = random.Random(0)
    shares = []
    for _ in range(40):
        grid = product(range(3), range(4))
        found = importance([job(rate + rng.gauss(0, 0.5), rate=rate, idle=idle) for rate, idle in grid])
        shares += [found.shares] if found else []
    assert len(shares) > 25
    assert sum(one["idle"] for one in shares) / len(shares) < 0.05


def test_what_two_keys_do_together_is_in_the_remainder() -> None:
    grid = product((-1, 1), (-1, 1), range(5))
    found = importance([job(a * b + a / 2, a=a, b=b, seed=seed) for a, b, seed in grid])
    assert found is not None
    assert found.shares == pytest.approx({"a": 0.2, "b": 0})


def test_what_the_seed_does_to_all_combinations_hides_nothing() -> None:
    rng = random.Random(1)
    grid = list(product(range(2), range(3), range(4)))
    jobs = [job(seed + 0.1 * a + rng.gauss(0, 0.01), a=a, b=b, seed=seed) for a, b, seed in grid]
    found = importance(jobs)
    assert found is not None
    assert list(found.shares) == ["a", "b"]
    assert importance(jobs[1:]) is None  # a grid with gaps, in which the seed is chance to the forest as well


def test_where_nothing_matters_it_speaks_up_in_at_most_5_percent() -> None:
    names = ["grid 2x2, 3 seeds", "grid 3x3, 1 seeds", "search of 20, 2 keys", "bank, 3 seeds"]
    shares = [share_that_speaks(DRAWS[name], 50, heavy) for name in names for heavy in (False, True)]
    assert sum(shares) / len(shares) <= 0.05


def test_the_real_runs_have_a_say() -> None:
    found = importance(bank_jobs(real_bank()[:, :3]))
    assert found is not None
    assert next(iter(found.shares)) == "learning_rate"


@pytest.mark.parametrize(
    "shares",
    [(0.495, 0.505), (0.335, 0.335, 0.33), (1 / 3, 1 / 3, 1 / 3), (0.125,) * 8, (0.605, 0.395), (0.29, 0.01), (0, 0)],
)
def test_the_parts_sum_to_100_percent(shares: tuple[float, ...]) -> None:
    found = Importance({f"key{place}": share for place, share in enumerate(shares)}, "chance")
    named = [int(number) for number in re.findall(r"(\d+) %", as_sentence(found, "loss"))]
    assert sum(found.percents) == 100
    assert sum(named) == 100 - found.percents[-1]
    assert all(abs(percent - 100 * share) < 1 for percent, share in zip(found.percents, shares, strict=False))


def test_in_a_search_what_does_nothing_explains_nothing() -> None:
    draw = random.Random(0)
    jobs = []
    for _ in range(40):
        exponent, word, idle = draw.uniform(-4, -1), draw.choice(["relu", "tanh"]), draw.random()
        jobs.append(job(exponent + (word == "relu"), rate=10**exponent, word=word, idle=idle))
    found = importance(jobs)
    assert found is not None
    assert list(found.shares)[:2] == ["rate", "word"]
    assert found.shares["rate"] > 0.5
    assert found.shares["idle"] < 0.03
    assert sum(found.shares.values()) < 1
    draw.shuffle(jobs)
    assert importance(jobs) == found
    assert importance([*jobs, job(None, rate=1, word="relu", idle=1)]) == found


def test_numbers_out_of_all_proportion_are_numbers() -> None:
    draw = random.Random(0)
    jobs = [job(size + draw.random(), rate=f"{1 + i / 100}e{40 + size}", idle=i) for i in range(40) for size in [i % 5]]
    found = importance(jobs)
    assert found is not None
    assert found.shares["rate"] > 0.8


def test_the_order_of_the_jobs_does_not_matter() -> None:
    found = importance(GRID)
    assert importance(GRID[::-1]) == found
    assert importance(GRID[5:] + GRID[:5]) == found


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [job(0.1 * a + seed, a=a, seed=seed) for a, seed in product(range(4), range(4))],  # one key beside the seed
        [job(0.5, a=a, b=b) for a, b in product(range(3), range(3))],  # no variance
        [job(0.1 * i, a=i, b=i**2) for i in range(19)],  # no grid, and too few for a forest
        [job(a, a=a, b=b) for a, b in product(range(2), range(2))],  # as any four jobs are in one of three cases
        [job(i % 2, a=i, b=-i) for i in range(24)],  # which no forest predicts
    ],
)
def test_where_nothing_can_be_said_nothing_is(jobs: list[Record]) -> None:
    assert importance(jobs) is None
