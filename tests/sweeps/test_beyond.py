"""Which values lie at the end of their list, and what would go on."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.overrides import Override
from mnist_exp.sweeps.outcome import rank_jobs
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent, SweepRecord

from ..conftest import recorded_job

pytestmark = pytest.mark.fast

Score = Callable[..., float | None]


def said_of(*typed: str, score: Score, seeds: int = 3, direction: str = "maximize", images: int = 50_000) -> str:
    """Return the sentence about a grid whose scores are a function of its values, in their order, and of the seed."""
    typed = (*typed, f"direction={direction}")
    sweep, kind = plan(compose_values(typed), typed, None, JobLoader.of_conf())
    assert kind.has_lists
    lists = {one.key: one.value.split(",") for one in map(Override.of, typed) if "," in one.value}
    jobs: list[Record] = []
    for row, seed in product(product(*lists.values()), range(seeds)):
        found = score(*map(float, row), seed)
        values = dict(zip(lists, row, strict=True)) | ({"seed": str(seed)} if seeds > 1 else {})
        data = {"profile": f'{{"training": {images}}}'}
        jobs.append(
            recorded_job(values, "FAILED" if found is None else "FINISHED", found, data=data, run_id=str(len(jobs)))
        )
    record = SweepRecord(Parent("", "", sweep.config.tracking, tuple(sweep.swept), Path()))
    return next((note for note in rank_jobs(sweep, record, jobs, kind).notes if "would go on" in note), "")


def rising(value: float, seed: int) -> float:
    return value + seed / 1e9


def falling(value: float, seed: int) -> float:
    return -rising(value, seed)


RATES = "optimizer.learning_rate=0.003,0.01,0.03"


@pytest.mark.parametrize(
    ("typed", "score", "end"),
    [
        (RATES, rising, "learning_rate, 0.03, is the largest that was tried; 0.1 and 0.3"),
        (RATES, falling, "learning_rate, 0.003, is the smallest that was tried; 0.001 and 0.0003"),
        (
            "optimizer.learning_rate=0.01,0.001,0.1,0.0001",
            rising,
            "learning_rate, 0.1, is the largest that was tried; 1 and 10",
        ),
        (
            "optimizer.learning_rate=0.01,0.02,0.05,0.1",
            rising,
            "learning_rate, 0.1, is the largest that was tried; 0.2 and 0.5",
        ),
        ("model.hidden=16,32,64", rising, "hidden, 64, is the largest that was tried; 128 and 256"),
        ("model.hidden=2,4,8", falling, "hidden, 2, is the smallest that was tried; 1"),
        ("model.hidden=10,50,100", rising, "hidden, 100, is the largest that was tried; 200 and 500"),
        ("model.hidden=16,64,128", rising, "hidden, 128, is the largest that was tried; 256 and 512"),
        ("model.hidden=100,300,1000", rising, "hidden, 1000, is the largest that was tried; 3000 and 10000"),
        ("training.epochs=5,10,15", rising, "epochs, 15, is the largest that was tried; 20 and 25"),
        ("training.epochs=1,2,3", falling, ""),
        ("training.epochs=4,5,20", falling, ""),
        ("training.batch_size=128,256,512", rising, "batch_size, 512, is the largest that was tried; 1024"),
        ("model.dropout=0.0,0.1,0.2", falling, ""),
        ("model.dropout=0.1,0.2,0.3", falling, "dropout, 0.1, is the smallest that was tried; 0"),
        ("model.dropout=0.0,0.25,0.5", rising, "dropout, 0.5, is the largest that was tried; 0.75"),
        ("model.dropout=0.5,0.7,0.9", rising, ""),
        ("optimizer.beta_2=0.9,0.99,0.999", rising, ""),
        (
            "optimizer.weight_decay=0,0.0001,0.001",
            rising,
            "weight_decay, 0.001, is the largest that was tried; 0.01 and 0.1",
        ),
        ("model.hidden=16,64", rising, ""),  # of two, one is always the largest
        ("dataset.seed=0,1,2", rising, ""),
        ("dataset.limit=1000,2000,4000", rising, ""),
    ],
)
def test_a_list_goes_on_as_it_was_typed(typed: str, score: Score, end: str) -> None:
    assert said_of(typed, score=score, images=2000) == (f"The best {end} would go on." if end else "")


def test_what_is_best_may_be_smallest() -> None:
    said = said_of(RATES, "objective=val_loss", score=falling, direction="minimize")
    assert said == "The best learning_rate, 0.03, is the largest that was tried; 0.1 and 0.3 would go on."


def test_each_key_has_a_sentence() -> None:
    said = said_of(RATES, "model.hidden=16,32,64", score=lambda rate, hidden, seed: rate - hidden + seed / 1e9)
    assert said == (
        "The best learning_rate, 0.03, is the largest that was tried; 0.1 and 0.3 would go on. "
        "The best hidden, 16, is the smallest that was tried; 8 and 4 would go on."
    )


def test_nothing_is_said_of_what_cannot_be_told() -> None:
    noise = [0.0, 0.04, -0.03]
    assert said_of(RATES, score=lambda rate, seed: rate / 10 + noise[(seed + int(1000 * rate)) % 3]) == ""
    both = (RATES, "model.hidden=16,32")
    told = "The best learning_rate, 0.03, is the largest that was tried; 0.1 and 0.3 would go on."
    assert said_of(*both, score=lambda rate, *others: rate + noise[others[1]] + others[1] * rate / 1e6) == told
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
