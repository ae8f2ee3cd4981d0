"""Which keys matter for an objective."""

import random
import re
from itertools import product

import pytest

from mnist_exp.sweeps.importance import Importance, as_sentence, importance
from mnist_exp.tracking.records import Record
from tests.conftest import recorded_job
from tests.sweeps.replays import real_bank

pytestmark = pytest.mark.fast


def job(objective: float | None, **values: object) -> Record:
    return recorded_job({key: str(value) for key, value in values.items()}, "FINISHED", objective)


def shares_of(jobs: list[Record]) -> dict[str, float]:
    found = importance(jobs, "val_accuracy", "maximize")
    return dict(found.shares) if found else {}


# Effects of -1, 0, 1 and of -0.5, 0.5, whose variances are 2/3 and 1/4; and of -0.1, 0.1 for the seed, which is 1/100.
GRID = [
    job(0.9 + 0.01 * (a + b / 2 + seed / 10), a=a, b=b, seed=seed, fixed=1)
    for a, b, seed in product((-1, 0, 1), (-1, 1), (-1, 1))
]
TOTAL = 2 / 3 + 1 / 4 + 1 / 100


def test_grid_key_explains_the_variance_of_its_means() -> None:
    found = importance(GRID, "val_accuracy", "maximize")
    assert found is not None
    assert found.shares == pytest.approx({"a": 2 / 3 / TOTAL, "b": 1 / 4 / TOTAL})
    assert list(found.shares) == ["a", "b"]  # largest first, without the seed and what does not vary
    assert as_sentence(found) == (
        "Of the variance of val_accuracy, a explains 72 %, b 27 %; the rest is interactions and chance."
    )
    assert importance(GRID[5:] + GRID[:5], "val_accuracy", "maximize") == found


def test_idle_key_of_a_grid_has_no_importance() -> None:
    rng = random.Random(0)
    shares = []
    for _ in range(40):
        grid = product(range(3), range(4))
        found = shares_of([job(rate + rng.gauss(0, 0.5), rate=rate, idle=idle) for rate, idle in grid])
        shares += [found["idle"]] if found else []
    assert len(shares) > 25
    assert sum(shares) / len(shares) < 0.05


def test_interaction_is_in_the_remainder() -> None:
    grid = product((-1, 1), (-1, 1), range(5))
    found = shares_of([job(a * b + a / 2, a=a, b=b, seed=seed) for a, b, seed in grid])
    assert found == pytest.approx({"a": 0.2, "b": 0})


def test_effect_of_the_seed_hides_no_key() -> None:
    rng = random.Random(1)
    grid = list(product(range(2), range(3), range(4)))
    jobs = [job(seed + 0.1 * a + rng.gauss(0, 0.01), a=a, b=b, seed=seed) for a, b, seed in grid]
    assert list(shares_of(jobs)) == ["a", "b"]


@pytest.mark.parametrize(("is_heavy", "a", "b", "seeds"), [(False, 2, 3, 1), (True, 3, 3, 2)])
def test_grid_without_effects_has_importance_in_5_percent(is_heavy: bool, a: int, b: int, seeds: int) -> None:
    rng = random.Random(0)

    def chance() -> float:
        return rng.gauss(0, 1) / (rng.expovariate(1) ** 0.5 if is_heavy else 1)  # Student's t with 2 degrees

    grid, speaks = list(product(range(a), range(b), range(seeds))), 0
    for _ in range(60):
        shared = [chance() for _ in range(seeds)]
        speaks += bool(shares_of([job(shared[seed] + chance(), a=i, b=j, seed=seed) for i, j, seed in grid]))
    assert speaks <= 7


def test_learning_rate_matters_most_in_real_runs() -> None:
    rows = product((8, 16, 24, 32), ("relu", "sigmoid"), (0.001, 0.003, 0.01))
    jobs = [
        job(float(score), hidden=hidden, activation=activation, learning_rate=rate, seed=seed)
        for (hidden, activation, rate), scores in zip(rows, real_bank(), strict=True)
        for seed, score in enumerate(scores[:3])
    ]
    assert next(iter(shares_of(jobs))) == "learning_rate"


@pytest.mark.parametrize(
    "shares",
    [(0.495, 0.505), (0.335, 0.335, 0.33), (1 / 3, 1 / 3, 1 / 3), (0.125,) * 8, (0.605, 0.395), (0.29, 0.01), (0, 0)],
)
def test_percents_sum_to_100(shares: tuple[float, ...]) -> None:
    found = Importance({f"key{place}": share for place, share in enumerate(shares)}, "all", "chance")
    named = [int(number) for number in re.findall(r"(\d+) %", as_sentence(found))]
    assert sum(found.percents) == 100
    assert sum(named) == 100 - found.percents[-1]
    assert all(abs(percent - 100 * share) < 1 for percent, share in zip(found.percents, shares, strict=False))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_search_tells_keys_that_matter_from_an_idle_one(direction: str) -> None:
    draw, sign = random.Random(0), 1 if direction == "maximize" else -1
    jobs = []
    for _ in range(60):
        exponent, word, idle = draw.uniform(-4, -1), draw.choice(["relu", "tanh"]), draw.random()
        jobs.append(job(sign * (2 * exponent + (word == "relu")), rate=10**exponent, word=word, idle=idle))
    found = importance(jobs, "loss", direction)
    assert found is not None
    assert found.shares["rate"] > 0.6
    assert found.shares["idle"] < 0.1
    assert re.fullmatch(
        r"Of what sets the best quarter of the jobs apart, rate explains \d+ %, word \d+ %, idle \d %\.",
        as_sentence(found),
    )
    draw.shuffle(jobs)
    assert importance([*jobs, job(None, rate=1, word="relu", idle=1)], "loss", direction) == found


def test_search_has_no_importance_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(i / 7 % 1, a=i, b=i % 3) for i in range(21)]
    assert shares_of(jobs)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert shares_of(jobs) == {}


@pytest.mark.parametrize("values", [["1e49", "1e-50"], ["0", "-1e49"], ["1e308", "9" * 400, "nan"], ["1", "1.0"], [""]])
def test_search_takes_any_value(values: list[str]) -> None:
    assert shares_of([job(i % 11 * 1e49, a=values[i % len(values)], b=i, c=i % 3) for i in range(30)])


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [job(0.1 * a + seed, a=a, seed=seed) for a, seed in product(range(4), range(4))],  # one key beside the seed
        [job(0.5, a=a, b=b) for a, b in product(range(3), range(3))],  # no variance
        [job(seed, a=a, b=b, seed=seed) for a, b, seed in product(range(3), repeat=3)],  # none within a seed
        [job(0.1 * i, a=i, b=i**2) for i in range(19)],  # no grid, and too few for Optuna
        [job(a, a=a, b=b) for a, b in product(range(2), range(2))],  # too few to test
    ],
)
def test_no_importance_without_evidence(jobs: list[Record]) -> None:
    assert shares_of(jobs) == {}
