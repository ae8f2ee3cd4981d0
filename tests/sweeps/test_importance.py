"""Which keys explain the variance of an objective."""

import random
from itertools import product

import pytest

from mnist_exp.sweeps.importance import Importance, as_sentence, importance
from mnist_exp.tracking.job import Job

pytestmark = pytest.mark.fast


def job(objective: float | None, **values: object) -> Job:
    return Job({key: str(value) for key, value in values.items()}, "FINISHED", objective)


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


def test_what_two_keys_do_together_is_in_the_remainder() -> None:
    found = importance([job(a * b, a=a, b=b) for a, b in product((-1, 1), (-1, 1))])
    assert found == Importance({"a": 0.0, "b": 0.0}, "interactions and chance")


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
        [job(0.1 * i, a=i, b=i**2) for i in range(7)],  # no grid, and too few for a forest
        [job(i % 2, a=i, b=-i) for i in range(12)],  # which no forest predicts
    ],
)
def test_where_nothing_can_be_said_nothing_is(jobs: list[Job]) -> None:
    assert importance(jobs) is None
