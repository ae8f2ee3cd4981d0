"""Jobs in, rows, text and CSV out."""

import csv
import io
import math

import pytest

from mnist_exp.sweeps.ranking import best_job, p_value, rank, table, to_csv, unranked, verdict
from mnist_exp.tracking.job import Job

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
    assert best_job([second], "maximize") == jobs[2]
    assert best_job([second], "minimize") == jobs[0]


def test_another_seed_is_no_seed() -> None:
    rows = rank([job(0.8, **{"dataset.seed": "0"}), job(0.9, **{"dataset.seed": "1"})], "maximize")
    assert len(rows) == 2


def test_a_row_lacks_what_failed() -> None:
    jobs = [job(None, "FAILED", a="1"), job(math.nan, a="2"), job(0.1, a="3"), job(None, "KILLED", a="4")]
    assert [row.values["a"] for row in rank(jobs, "maximize")] == ["3"]
    assert [one.values["a"] for one in unranked(jobs)] == ["1", "2", "4"]


def test_chance_is_judged_by_the_spread_over_seeds() -> None:
    clear = [job(0.90 + i / 1000, a="1", seed=str(i)) for i in range(5)]
    close = [job(0.901 + i / 1000, a="2", seed=str(i)) for i in range(5)]
    far = [job(0.80 + i / 1000, a="3", seed=str(i)) for i in range(5)]
    one, two = rank([*clear, *close], "maximize")
    p = p_value(one, two)
    # Both have the variance 2.5e-6, so t = 0.001 / sqrt(2 * 2.5e-6 / 5) = 1 with 8 degrees of freedom.
    assert p == pytest.approx(0.3466, abs=1e-4)
    assert "a=2 is not significantly better than the second row" in verdict([one, two], ["a"])
    rows = rank([*clear, *far], "maximize")
    assert verdict(rows, ["a"]).startswith(
        "a=1 is significantly better than the second row (Welch's t-test over the seeds, p"
    )
    assert verdict(rows[:1], ["a"]) == ""
    assert "by chance; add seed=0,1,2,3,4" in verdict(rank([clear[0], far[0]], "maximize"), ["a", "seed"])


def test_rows_without_spread_differ_or_do_not() -> None:
    def rows(one: float, other: float) -> tuple[float | None, ...]:
        jobs = [job(value, a=a, seed=seed) for a, value in (("1", one), ("2", other)) for seed in "01"]
        return (p_value(*rank(jobs, "maximize")),)

    assert rows(0.5, 0.5) == (1.0,)
    assert rows(0.5, 0.6) == (0.0,)


def test_the_table_shows_what_varies_and_failures_last() -> None:
    jobs = [
        job(None, "FAILED", "loss became nan", **{"model.hidden": "8", "model.activation": "relu"}),
        job(0.5, **{"model.hidden": "16", "model.activation": "relu"}),
        job(0.75, **{"model.hidden": "32", "model.activation": "relu"}),
    ]
    lines = table(rank(jobs, "maximize"), unranked(jobs), "val_accuracy").splitlines()
    assert lines[0].split() == [
        "hidden", "activation", "val_accuracy", "test_loss", "test_accuracy", "seconds", "status"
    ]  # fmt: skip
    assert lines[1].split() == ["1", "32", "relu", "0.7500", "1.0000", "0.3750", "2.0", "FINISHED"]
    assert lines[2].split()[:3] == ["2", "16", "relu"]
    assert lines[3].split(maxsplit=3) == ["-", "8", "relu", "FAILED: loss became nan"]
    assert lines[3].index("FAILED") == lines[1].index("FINISHED") == lines[0].index("status")


def test_the_csv_has_a_line_a_job_with_its_row() -> None:
    jobs = [job(0.8, a="1", seed="0"), job(0.9, a="1", seed="1"), job(None, "FAILED", "why", a="2", seed="0")]
    lines = list(csv.DictReader(io.StringIO(to_csv(jobs, "val_accuracy", "maximize"))))
    assert [line["rank"] for line in lines] == ["1", "1", ""]
    assert [line["seed"] for line in lines] == ["1", "0", "0"]
    assert [line["val_accuracy"] for line in lines] == ["0.9", "0.8", ""]
    assert [line["n"] for line in lines] == ["2", "2", ""]
    assert float(lines[0]["mean"]) == pytest.approx(0.85)
    assert (lines[2]["status"], lines[2]["reason"]) == ("FAILED", "why")
