"""Which best values are the largest or smallest that a sweep tried."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.overrides import Override
from mnist_exp.sweeps.outcome import make_sweep_table
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent, SweepRecord

from ..conftest import recorded_job

pytestmark = pytest.mark.fast

Score = Callable[..., float | None]


def said_of(*typed: str, score: Score, seeds: int = 3, direction: str = "maximize") -> str:
    """Return the sentence about a grid whose scores are a function of its values, in their order, and of the seed."""
    typed = (*typed, f"direction={direction}")
    sweep, kind = plan(compose_values(typed), typed, None, JobLoader.of_conf())
    assert kind.has_lists
    lists = {
        override.key: override.value.split(",") for override in map(Override.parse, typed) if "," in override.value
    }
    jobs: list[Record] = []
    for row, seed in product(product(*lists.values()), range(seeds)):
        found = score(*map(float, row), seed)
        values = dict(zip(lists, row, strict=True)) | ({"seed": str(seed)} if seeds > 1 else {})
        jobs.append(recorded_job(values, "FAILED" if found is None else "FINISHED", found, run_id=str(len(jobs))))
    record = SweepRecord(Parent("", "", sweep.config.tracking, tuple(sweep.swept), Path()))
    return next((note for note in make_sweep_table(sweep, record, jobs, kind).notes if "that was tried" in note), "")


def rising(value: float, seed: int) -> float:
    return value + seed / 1e9


def falling(value: float, seed: int) -> float:
    return -rising(value, seed)


RATES = "optimizer.learning_rate=0.003,0.01,0.03"


LARGEST = "The best learning_rate, 0.03, is the largest that was tried; try larger ones."


@pytest.mark.parametrize(
    ("typed", "score", "sentence"),
    [
        (RATES, rising, LARGEST),
        (RATES, falling, "The best learning_rate, 0.003, is the smallest that was tried; try smaller ones."),
        (
            "optimizer.learning_rate=0.01,0.001,0.1,0.0001",
            rising,
            "The best learning_rate, 0.1, is the largest that was tried; try larger ones.",
        ),
        ("model.dropout=0.0,0.1,0.2", falling, ""),  # none is smaller than 0
        ("model.hidden=16,64", rising, ""),  # one of two is always the largest
        ("dataset.seed=0,1,2", rising, ""),
        ("dataset.limit=1000,2000,4000", rising, ""),
    ],
)
def test_a_best_value_at_an_end_is_named(typed: str, score: Score, sentence: str) -> None:
    assert said_of(typed, score=score) == sentence


def test_best_value_may_be_smallest() -> None:
    said = said_of(RATES, "objective=val_loss", score=falling, direction="minimize")
    assert said == LARGEST


def test_each_key_has_a_sentence() -> None:
    said = said_of(RATES, "model.hidden=16,32,64", score=lambda rate, hidden, seed: rate - hidden + seed / 1e9)
    assert said == f"{LARGEST} The best hidden, 16, is the smallest that was tried; try smaller ones."


def test_no_suggestion_without_a_clear_best_value() -> None:
    noise = [0.0, 0.04, -0.03]
    assert said_of(RATES, score=lambda rate, seed: rate / 10 + noise[(seed + int(1000 * rate)) % 3]) == ""
    both = (RATES, "model.hidden=16,32")
    assert said_of(*both, score=lambda rate, *others: rate + noise[others[1]] + others[1] * rate / 1e6) == LARGEST
    assert (
        said_of(*both, score=lambda rate, hidden, seed: rate / 10 + noise[int(seed + 1000 * rate + hidden) % 3]) == ""
    )
    assert said_of(RATES, score=lambda rate, seed: None if rate == 0.01 and seed else rate + seed / 1e9) == ""
    assert said_of(RATES, score=lambda rate, seed: -abs(rate - 0.01) + seed / 1e9) == ""


def test_a_value_that_failed_was_tried() -> None:
    assert said_of(f"{RATES},0.1", score=lambda rate, seed: None if rate == 0.1 else rate + seed / 1e9) == ""
    assert said_of(RATES, score=lambda rate, seed: None if rate > 0.003 else rate + seed / 1e9) == ""


def test_single_runs_do_not_tell() -> None:
    assert said_of(RATES, score=rising, seeds=1) == ""


def test_a_race_of_the_rows_of_another_sweep_has_no_lists() -> None:
    typed = ("sweep=race", "model.hidden=4,8,16")
    _, race = plan(compose_values(typed), typed, None, JobLoader.of_conf())
    assert race.has_lists
    assert not replace(race, seen=frozenset({0})).has_lists  # type: ignore[call-arg]
