"""Jobs in, rows, text and CSV out."""

import csv
import io
import json
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from mnist_exp.sweeps.charts import objective_by_parameter, validation_curves
from mnist_exp.sweeps.formats import as_csv
from mnist_exp.sweeps.importance import as_sentence, importance
from mnist_exp.sweeps.outcome import as_text
from mnist_exp.sweeps.page import as_svg
from mnist_exp.sweeps.ranking import Row, compared, on_other_images, rank, unranked, verdict
from mnist_exp.sweeps.statistics import Comparison, compare_with_first, seeds_to_tell
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.job import Job, advised_validation, make_job

pytestmark = pytest.mark.fast


def job(objective: float | None, status: str = "FINISHED", reason: str = "", **values: str) -> Job:
    scores = {} if objective is None else {"test_loss": 1.0, "test_accuracy": objective / 2}
    return Job(values, status, objective, scores, seconds=2.0, reason=reason)


def test_the_best_comes_first_whichever_way_is_up() -> None:
    jobs = [job(0.5, a="1"), job(0.9, a="2"), job(0.7, a="3")]
    assert [row.values["a"] for row in rank(jobs, "maximize")] == ["2", "3", "1"]
    assert [row.values["a"] for row in rank(jobs, "minimize")] == ["1", "3", "2"]


def test_jobs_that_differ_only_in_seed_are_one_row() -> None:
    jobs = [job(0.8, hidden="16", seed="0"), job(0.95, hidden="32", seed="0"), job(0.9, hidden="16", seed="1")]
    first, second = rank(jobs, "maximize")
    assert (first.values["hidden"], first.mean, first.deviation, len(first.jobs)) == ("32", 0.95, None, 1)
    assert second.values == {"hidden": "16"}
    assert second.mean == pytest.approx(0.85)
    assert second.deviation == pytest.approx(math.sqrt(0.005))  # of the sample: divided by n - 1
    assert Table("val_accuracy", "maximize", [second]).best == jobs[2]
    assert Table("val_loss", "minimize", [second]).best == jobs[0]


def test_another_seed_is_no_seed() -> None:
    rows = rank([job(0.8, **{"dataset.seed": "0"}), job(0.9, **{"dataset.seed": "1"})], "maximize")
    assert len(rows) == 2


def test_a_row_lacks_what_failed() -> None:
    jobs = [job(None, "FAILED", a="1"), job(math.nan, a="2"), job(0.1, a="3"), job(None, "KILLED", a="4")]
    assert [row.values["a"] for row in rank(jobs, "maximize")] == ["3"]
    assert [one.values["a"] for one in unranked(jobs)] == ["1", "2", "4"]


def rows_of(*means: float, seeds: int = 5, first_seed: int = 0, direction: str = "maximize") -> list[Row]:
    """Rows whose objectives go up by 0.001 with the seed, and by 0.0001 more in each other seed from row to row."""
    jobs = [
        job(mean + seed / 1000 + seed % 2 * index / 10000, a=str(index), seed=str(seed + first_seed * index))
        for index, mean in enumerate(means)
        for seed in range(seeds)
    ]
    return compared(rank(jobs, direction))


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """How the rows but the first compare with it."""
    return [row.comparison for row in rows if row.comparison is not None]


def test_rows_are_compared_by_the_seeds_that_both_have() -> None:
    [only] = comparisons(rows_of(0.9, 0.8))
    # Differences of -0.1 and -0.0999: their mean is -0.09996, their deviation 0.0000548, with 4 degrees of freedom.
    assert only.difference == pytest.approx(-0.09996)
    assert (only.seeds, only.pairs) == (5, 1)
    assert only.high - only.low == pytest.approx(2 * 2.7764 * 0.00005477 / math.sqrt(5), rel=1e-3)
    assert not only.is_open
    [apart] = comparisons(rows_of(0.9, 0.899, first_seed=5))
    assert apart.seeds == 0
    # Welch's test: both have a variance of about 2.5e-6, so t = 0.00096 / 0.001 with 8 degrees of freedom.
    assert apart.high - apart.low == pytest.approx(2 * 2.306 * 0.001, rel=0.02)
    assert apart.is_open


def test_the_more_rows_the_wider_the_intervals() -> None:
    def width(*means: float) -> float:
        first, *_ = comparisons(rows_of(*means))
        return first.high - first.low

    # Of two rows there is nobody whose variance could be borrowed; of more there is.
    assert width(0.9, 0.8, 0.7, 0.6, 0.5) > width(0.9, 0.8, 0.7, 0.6) > width(0.9, 0.8, 0.7)


def test_rows_that_are_all_the_same_are_seldom_told_apart() -> None:
    """Of 5 % of sweeps at most something is wrongly called beaten, although the first row is the best of many."""
    draw = np.random.default_rng(0)
    for count, seeds in ((2, 5), (6, 3), (12, 2)):
        wrong = 0
        for _ in range(400):
            jobs = [job(float(draw.normal()), a=str(a), seed=str(s)) for a in range(count) for s in range(seeds)]
            wrong += not all(one.is_open for one in comparisons(compared(rank(jobs, "maximize"))))
        assert wrong <= 0.05 * 400 + 2 * math.sqrt(0.05 * 0.95 * 400), (count, seeds)


def test_rows_without_spread_differ_or_do_not() -> None:
    def is_open(one: float, other: float) -> bool:
        jobs = [job(value, a=a, seed=seed) for a, value in (("1", one), ("2", other)) for seed in "01"]
        [found] = comparisons(compared(rank(jobs, "maximize")))
        return found.is_open

    assert is_open(0.5, 0.5)
    assert not is_open(0.5, 0.6)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (rows_of(0.9, 0.8), "a=0 is best: 0.1000 [0.0999, 0.1000] above the next, paired over 5 seeds, 95 % interval."),
        (rows_of(0.9, 0.8, 0.7), "above the next, paired over 5 seeds, corrected for 3 pairs."),
        (rows_of(0.2, 0.8, direction="minimize"), "below the next, paired over 5 seeds, 95 % interval."),
        (rows_of(0.9, 0.8, first_seed=5), "above the next, compared by Welch's test, 95 % interval."),
        (rows_of(0.9, 0.89999, 0.7), "The first 2 rows cannot be told apart (corrected for 3 pairs); about "),
        (rows_of(0.9, 0.89999, 0.7), " seeds each would tell a difference of 0.0000"),
        (rows_of(0.9, 0.8, seeds=1), "A single run may be better or worse by chance; add seed=0,1,2,3,4"),
        (rows_of(0.9), ""),
    ],
)
def test_a_sentence_says_what_can_be_told(rows: list[Row], said: str) -> None:
    direction = "minimize" if rows[0].mean < 0.3 else "maximize"
    assert said in verdict(rows, ["a"], direction)
    assert bool(verdict(rows, ["a"], direction)) == bool(said)


def test_a_row_of_a_single_run_is_not_compared() -> None:
    jobs = [one for row in rows_of(0.9, 0.8) for one in row.jobs]
    rows = compared(rank([*jobs, job(0.7, a="2", seed="0")], "maximize"))
    assert [row.comparison is None for row in rows] == [True, False, True]
    assert verdict(rows, ["a"], "maximize").endswith("Rows of a single run are not compared.")


def test_the_number_of_seeds_that_is_named_is_enough() -> None:
    """With so many seeds, a difference of this size is told in about 80 of 100 sweeps."""
    draw = np.random.default_rng(0)
    found = Comparison(difference=-0.5, low=-1.0, high=0.1, seeds=3, deviation=1.0, level=0.05, pairs=1)
    seeds = seeds_to_tell(found)
    assert seeds is not None
    told = 0
    for _ in range(300):
        first = {str(seed): 0.0 for seed in range(seeds)}
        row = {seed: float(draw.normal(-0.5)) for seed in first}
        [one] = compare_with_first([first, row])
        told += one is not None and not one.is_open
    assert 0.7 < told / 300 < 0.9
    assert seeds_to_tell(Comparison(-0.001, -1.0, 1.0, 3, 1.0, 0.05, 1)) is None


def test_a_row_that_cannot_be_told_from_the_first_is_marked() -> None:
    _, *lines = Table("val_accuracy", "maximize", rows_of(0.9, 0.89999, 0.7)).text().splitlines()
    assert lines[0].split() == [
        "a", "val_accuracy", "std", "n", "difference", "95", "%", "interval", "test_loss", "test_accuracy", "seconds",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == ["1", "2=", "3"]
    assert " -0.2000  -0.2000 to -0.1999 " in lines[3]


def test_the_table_shows_what_varies_and_failures_last() -> None:
    jobs = [
        job(None, "FAILED", "loss became nan", **{"model.hidden": "8", "model.activation": "relu"}),
        job(0.5, **{"model.hidden": "16", "model.activation": "relu"}),
        job(0.75, **{"model.hidden": "32", "model.activation": "relu"}),
    ]
    _, *lines = Table("val_accuracy", "maximize", rank(jobs, "maximize"), unranked(jobs)).text().splitlines()
    assert lines[0].split() == [
        "hidden", "activation", "val_accuracy", "test_loss", "test_accuracy", "seconds", "status"
    ]  # fmt: skip
    assert lines[1].split() == ["1", "32", "relu", "0.7500", "1.0000", "0.3750", "2.0", "FINISHED"]
    assert lines[2].split()[:3] == ["2", "16", "relu"]
    assert lines[3].split(maxsplit=3) == ["-", "8", "relu", "FAILED: loss became nan"]
    assert lines[3].index("FAILED") == lines[1].index("FINISHED") == lines[0].index("status")


def test_the_csv_has_a_line_a_job_with_its_row() -> None:
    jobs = [job(0.8, a="1", seed="0"), job(0.9, a="1", seed="1"), job(None, "FAILED", "why", a="2", seed="0")]
    text = as_csv(Table("val_accuracy", "maximize", rank(jobs, "maximize"), unranked(jobs)).records)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["rank"] for line in lines] == ["1", "1", ""]
    assert [line["seed"] for line in lines] == ["1", "0", "0"]
    assert [line["val_accuracy"] for line in lines] == ["0.9", "0.8", ""]
    assert [line["n"] for line in lines] == ["2", "2", ""]
    assert float(lines[0]["mean"]) == pytest.approx(0.85)
    assert (lines[2]["status"], lines[2]["reason"]) == ("FAILED", "why")


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        ([60_000], "10000"), ([1_000_000], "10000"), ([50_000], "8000"), ([1000, 1000], "200"), ([2], "1"),
        ([1000, 60_000], "0.2"), ([None], "0.2"), ([1000, None], "200"), (["many"], "0.2"), ([0], "0.2"), ([], "0.2"),
    ],
)  # fmt: skip
def test_the_advice_to_hold_images_out_can_be_followed(counts: list[object], advice: str) -> None:
    data = [None if count is None else {"profile": json.dumps({"training": count})} for count in counts]
    assert advised_validation([Job({}, "FINISHED", data=one) for one in data]) == f"dataset.validation={advice}"


def test_numbers_are_numbers_in_records_and_what_looks_like_one_stays_text() -> None:
    values = {
        "model.hidden": "16", "optimizer.learning_rate": "0.03", "optimizer.nesterov": "true", "dataset.limit": "null",
        "model.filters": "[16, 32]", "optimizer.kind": "1e5x", "dataset.seed": "9" * 400, "model.dropout": "1e999",
        "code": "12345678", "data": "00001234", "own_code": "12345e67", "packages.keras": "3.10", "seed": "0",
    }  # fmt: skip
    jobs = [Job(values, "FINISHED", 0.9, {}, run_id="12345678"), Job({}, "FAILED", run_id="1e2")]
    table = Table("val_accuracy", "maximize", rank(jobs, "maximize"), unranked(jobs))
    record, lacking = json.loads(as_text([table], "json"))
    assert {key: record[key] for key in values} == values | {
        "model.hidden": 16, "optimizer.learning_rate": 0.03, "optimizer.nesterov": True, "dataset.limit": None,
        "dataset.seed": int("9" * 400), "seed": 0,
    }  # fmt: skip
    assert type(record["model.hidden"]) is int
    assert (record["run_id"], lacking["run_id"], lacking["model.hidden"]) == ("12345678", "1e2", None)
    [line, _] = csv.DictReader(io.StringIO(as_csv(table.records)))
    assert {key: line[key] for key in values} == values | {"dataset.limit": ""}
    assert table.text().splitlines()[2].split()[1:4] == ["16", "0.03", "true"]


@pytest.mark.parametrize("odd", [1e308, -1e308, 5e-324, 1e-200, 1e154, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("value", ["16", "1e308", "5e-324", "inf", "9" * 400])
def test_numbers_out_of_all_proportion_are_ranked_drawn_or_left_out(odd: float, value: str) -> None:
    def measured(index: int, objective: float) -> Job:
        values = {"a": value if index % 2 else "1", "b": str(index // 2 % 2), "seed": str(index // 4)}
        scores = {"objective": objective, "test_accuracy": objective, "test_loss": odd, "fit_seconds": odd}
        return make_job({"mnist_exp.swept": json.dumps(values)}, scores, "FINISHED", run_id=str(index))

    jobs = [measured(index, [0.5, odd, -odd, 0.25][index % 4]) for index in range(12)]
    for direction in ("maximize", "minimize"):
        rows = compared(rank(jobs, direction))
        ranked = [job for row in rows for job in row.jobs]
        assert all(abs(job.objective or 0) < 1e100 for job in ranked)
        decided, found = verdict(rows, ["a", "b"], direction), importance(ranked)
        notes = [on_other_images(rows[0], 10_000), as_sentence(found, "val_loss") if found else ""]
        table = Table("val_loss", direction, rows, unranked(jobs), title="12 runs", verdict=decided, notes=notes)
        for form in ("table", "csv", "json", "markdown", "latex"):
            assert as_text([table], form)
        assert table.markdown(8000)
        drawn = [objective_by_parameter([(dict(job.values), job.objective or 0.0) for job in ranked], "val_loss")]
        drawn.append(validation_curves([("1", "a", [[0.5, odd, 0.25], [odd, -odd]])], "val_loss"))
        with warnings.catch_warnings(action="error"):
            assert all(as_svg(figure, "one") for figure in drawn)
