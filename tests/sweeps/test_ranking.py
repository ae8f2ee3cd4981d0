"""Jobs in, rows, text and CSV out."""

import csv
import io
import json
import math
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from mnist_exp.sweeps.charts import objective_by_parameter, validation_curves
from mnist_exp.sweeps.columns import Column
from mnist_exp.sweeps.formats import as_csv
from mnist_exp.sweeps.importance import as_sentence, importance
from mnist_exp.sweeps.outcome import advise_validation
from mnist_exp.sweeps.page import as_svg
from mnist_exp.sweeps.ranking import Row, compare_rows, find_unranked, on_other_images, rank
from mnist_exp.sweeps.statistics import Comparison
from mnist_exp.sweeps.table import Table, format_tables
from mnist_exp.sweeps.verdict import judge, word
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.records import Record

from ..conftest import recorded_job

pytestmark = pytest.mark.fast


def job(objective: float | None, status: str = "FINISHED", reason: str = "", **values: str) -> Record:
    scores = {} if objective is None else {"test_loss": 1.0, "test_accuracy": objective / 2}
    return recorded_job(values, status, objective, scores, seconds=2.0, reason=reason)


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
    assert second.deviation == pytest.approx(math.sqrt(0.005))  # the sample's: divided by n - 1
    assert Table("val_accuracy", "maximize", [second]).best == jobs[2]
    assert Table("val_loss", "minimize", [second]).best == jobs[0]


def test_another_seed_is_no_seed() -> None:
    rows = rank([job(0.8, **{"dataset.seed": "0"}), job(0.9, **{"dataset.seed": "1"})], "maximize")
    assert len(rows) == 2


def test_row_leaves_out_failed_jobs() -> None:
    jobs = [job(None, "FAILED", a="1"), job(math.nan, a="2"), job(0.1, a="3"), job(None, "KILLED", a="4")]
    assert [row.values["a"] for row in rank(jobs, "maximize")] == ["3"]
    assert [job.values["a"] for job in find_unranked(jobs)] == ["1", "2", "4"]


def rows_of(
    *means: float, seeds: int = 5, first_seed: int = 0, swing: float = 0.0001, direction: str = "maximize"
) -> list[Row]:
    """Rows whose objectives go up by 0.001 with the seed, and by `swing` more in each other seed from row to row."""
    jobs = [
        job(mean + seed / 1000 + seed % 2 * index * swing, a=str(index), seed=str(seed + first_seed * index))
        for index, mean in enumerate(means)
        for seed in range(seeds)
    ]
    return compare_rows(rank(jobs, direction), direction)


def scored(*rows: Sequence[float]) -> list[Row]:
    """Rows with these objectives, one a seed."""
    jobs = [job(value, a=str(a), seed=str(seed)) for a, values in enumerate(rows) for seed, value in enumerate(values)]
    return compare_rows(rank(jobs, "maximize"), "maximize")


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """How the rows but the first compare with it."""
    return [row.comparison for row in rows if row.comparison is not None]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (
            rows_of(0.9, 0.8, 0.7),
            {"images": "10,000 images"},
            "a=0 is best of 3 on these 10,000 images: none of the others is better (95 %, paired over 5 seeds); "
            "the next is 0.1000 behind.",
        ),
        (
            rows_of(0.2, 0.8, direction="minimize"),
            {},
            "a=0 is best of 2: the other is not better (95 %, paired over 5 seeds); it is 0.6000 behind.",
        ),
        (
            rows_of(0.9, 0.8, first_seed=5),
            {},
            "a=0 is best of 2: the other is not better (95 %, from different seeds); it is 0.1000 behind.",
        ),
        (
            rows_of(0.9, 0.8),
            {"family": "these 2 of the 16 rows of sweep 3f2a1c22"},
            "a=0 is best of these 2 of the 16 rows of sweep 3f2a1c22: the other is not better "
            "(95 %, paired over 5 seeds); it is 0.1000 behind.",
        ),
        (
            scored((0.9, 0.91, 0.92, 0.93), (0.905, 0.9, 0.925, 0.915), (0.7, 0.71, 0.72, 0.73)),
            {"images": "200 images"},
            "a=0 leads with 0.9150 on these 200 images; 1 of the 2 others may be better, by 0.0155 at most (a=1). "
            "About 65 more seeds of both would decide.",
        ),
        (
            scored((0.9, 0.91, 0.92), (0.9, 0.91, 0.92), (0.9, 0.91, 0.92)),
            {"family": "these 3 of the 16 rows of sweep 3f2a1c22"},
            "Of these 3 of the 16 rows of sweep 3f2a1c22, a=0 leads with 0.9100; any of the 2 others may be better, "
            "by 0.0000 at most (a=1). More than 200 seeds of these 3 would be needed to decide.",
        ),
        (
            rows_of(0.9, 0.8999, 0.8998, swing=0.0002),
            {"rounds": 4, "indifference": 0.004},
            "a=0 leads with 0.9020; if you take it, you lose at most 0.0003 (95 %, over 4 rounds).",
        ),
        (
            rows_of(0.9, 0.8, seeds=1),
            {"images": "10,000 images"},
            "a=0 leads with 0.9000 on these 10,000 images, but a single run may be better or worse by chance; "
            "-m with seed=0,1,2,3,4 runs each row with five seeds.",
        ),
        (rows_of(0.9), {}, ""),
    ],
)
def test_a_sentence_names_the_row_to_take_first(rows: list[Row], options: dict[str, Any], said: str) -> None:
    indifference = options.pop("indifference", 0.0)
    assert word(judge(rows, indifference), partial(job_name, keys=["a"]), **options) == said


def test_a_row_of_a_single_run_is_not_compared() -> None:
    jobs = [job for row in rows_of(0.9, 0.8) for job in row.jobs]
    rows = compare_rows(rank([*jobs, job(0.7, a="2", seed="0")], "maximize"), "maximize")
    assert [row.comparison is None for row in rows] == [True, False, True]
    text = word(judge(rows), partial(job_name, keys=["a"]))
    assert text.startswith("a=0 is best of the 2 rows that are compared: the other is not better (95 %, paired over 5")
    assert text.endswith(" Rows with a single run are not compared.")


def test_a_row_with_a_failed_job_is_not_compared() -> None:
    jobs = [job for row in rows_of(0.9, 0.8) for job in row.jobs]
    lost = [job(0.95, a="2", seed="0"), job(0.95, a="2", seed="1"), job(None, "FAILED", a="2", seed="2")]
    name = partial(job_name, keys=["a"])
    rows = compare_rows(rank([*jobs, *lost], "maximize"), "maximize")
    assert [row.comparison for row in rows] == [None] * 3
    assert word(judge(rows), name).startswith(
        "a=2 leads with 0.9500, but a row with a failed job is not compared, since"
    )
    tried_again = compare_rows(rank([*jobs, *lost, job(0.95, a="2", seed="2")], "maximize"), "maximize")
    assert word(judge(tried_again), name).startswith("a=2 is best of 3: ")
    last = [job(0.05, a="2", seed="0"), job(0.05, a="2", seed="1"), job(None, "FAILED", a="2", seed="2")]
    rows = compare_rows(rank([*jobs, *last], "maximize"), "maximize")
    assert word(judge(rows), name).endswith(" Rows with a failed job are not compared.")


def test_verdict_names_a_row_that_fails_now_and_then() -> None:
    rows = scored((0.9, 0.91, 0.92), (0.8, 0.81, 0.82), (0.7, 0.71, 0.73), (0.89, 0.69, 0.9))
    found = judge(rows)
    assert found is not None
    assert found.erratic is not None
    assert (found.erratic.row.values["a"], found.erratic.seed, found.erratic.objective) == ("3", "1", 0.69)
    said = word(found, partial(job_name, keys=["a"]))
    assert said.endswith("vary far more than the others' (deviation 0.1185, theirs 0.0100): seed 1 has 0.6900.")
    steady = judge(scored((0.9, 0.91, 0.92), (0.8, 0.81, 0.82), (0.88, 0.86, 0.89)))
    assert steady is not None
    assert steady.erratic is None


def test_hidden_rows_count_in_a_comparison() -> None:
    """With the others of its sweep, a row is harder to beat, and its variance is like theirs."""
    rows = rows_of(0.9, 0.899, 0.898, 0.7, 0.6, 0.5, swing=0.0006)
    alone, in_sweep = compare_rows(rows[:2], "maximize"), compare_rows(rows[:2], "maximize", others=rows[2:])
    assert alone[1].comparison is not None
    assert in_sweep[1] == rows[1] != alone[1]


def test_a_row_that_may_be_better_is_marked() -> None:
    shown = Table("val_accuracy", "maximize", rows_of(0.9, 0.8999, 0.7)).text()
    _, *lines, sentence = shown.splitlines()
    assert lines[0].split() == ["a", "val_accuracy", "std", "n", "difference", "at", "best", "test_accuracy", "seconds"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2=", "3"]
    assert " -0.1999   -0.1998 " in lines[3]
    assert sentence == "At best: by how much a row may be better than the first; below 0, it is beaten, else marked =."
    assert max(map(len, lines)) <= 80  # a terminal's width


def test_missing_jobs_are_counted_by_row() -> None:
    jobs = [
        *(job(0.9 + seed / 100, a="1", seed=str(seed)) for seed in range(2)), job(None, "KILLED", a="1", seed="2"),
        job(0.8, a="2", seed="0"), *(job(None, "KILLED", a="2", seed=str(seed)) for seed in (1, 2)),
        *(job(None, "KILLED", a="3", seed=str(seed)) for seed in range(3)),
        job(None, "FAILED", "loss became nan", a="4", seed="5"),
    ]  # fmt: skip
    rows = compare_rows(rank(jobs, "maximize"), "maximize")
    _, header, *lines = Table("val_accuracy", "maximize", rows, find_unranked(jobs), planned=6).text().splitlines()
    assert header.split()[:4] == ["a", "val_accuracy", "std", "n"]  # there is no seed
    assert ["2 of 6" in line for line in lines[:2]] == [True, False]
    assert "1 of 6" in lines[1]
    assert [line.split()[:2] for line in lines[2:]] == [["-", "4"], ["-", "3"]]
    assert lines[2].endswith("seed 5 FAILED: loss became nan")
    assert lines[3].endswith("KILLED, 0 of 6 seeds")


def test_the_csv_has_a_line_a_job_with_its_row() -> None:
    jobs = [job(0.8, a="1", seed="0"), job(0.9, a="1", seed="1"), job(None, "FAILED", "why", a="2", seed="0")]
    text = as_csv(Table("val_accuracy", "maximize", rank(jobs, "maximize"), find_unranked(jobs)).records)
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
    assert (
        advise_validation([recorded_job({}, "FINISHED", data=facts) for facts in data])
        == f"dataset.validation={advice}"
    )


def test_records_keep_numbers_and_numeric_text_apart() -> None:
    values = {
        "model.hidden": "16", "optimizer.learning_rate": "0.03", "optimizer.nesterov": "true", "dataset.limit": "null",
        "model.filters": "[16, 32]", "optimizer.kind": "1e5x", "dataset.seed": "9" * 400, "model.dropout": "1e999",
        "code": "12345678", "data": "00001234", "own_code": "12345e67", "packages.keras": "3.10", "seed": "0",
    }  # fmt: skip
    jobs = [recorded_job(values, "FINISHED", 0.9, {}, run_id="12345678"), recorded_job({}, "FAILED", run_id="1e2")]
    table = Table("val_accuracy", "maximize", rank(jobs, "maximize"), find_unranked(jobs))
    record, lacking = json.loads(format_tables([table], "json"))
    assert {key: record[key] for key in values} == values | {
        "model.hidden": 16, "optimizer.learning_rate": 0.03, "optimizer.nesterov": True, "dataset.limit": None,
        "dataset.seed": int("9" * 400), "seed": 0,
    }  # fmt: skip
    assert type(record["model.hidden"]) is int
    assert (record["run_id"], lacking["run_id"], lacking["model.hidden"]) == ("12345678", "1e2", None)
    [line, _] = csv.DictReader(io.StringIO(as_csv(table.records)))
    assert {key: line[key] for key in values} == values | {"dataset.limit": ""}
    assert table.text().splitlines()[2].split()[1:4] == ["16", "0.03", "true"]


@pytest.mark.parametrize(
    ("odd", "value"),
    [
        *((odd, "16") for odd in (1e308, -1e308, 5e-324, 1e-200, 1e154, math.inf, -math.inf, math.nan)),
        *((1e308, value) for value in ("1e308", "5e-324", "inf", "9" * 400)),
    ],
)
def test_extreme_numbers_are_ranked_drawn_or_left_out(odd: float, value: str) -> None:
    def measured(index: int, objective: float) -> Record:
        values = {"a": value if index % 2 else "1", "b": str(index // 2 % 2), "seed": str(index // 4)}
        scores = {"objective": objective, "test_accuracy": objective, "test_loss": odd, "fit_seconds": odd}
        return recorded_job(values, scores=scores, run_id=str(index))

    jobs = [measured(index, [0.5, odd, -odd, 0.25][index % 4]) for index in range(12)]
    for direction in ("maximize", "minimize"):
        rows = compare_rows(rank(jobs, direction), direction)
        ranked = [job for row in rows for job in row.jobs]
        assert all(abs(job.objective or 0) < 1e100 for job in ranked)
        decided, found = (
            word(judge(rows), partial(job_name, keys=["a", "b"])),
            importance(ranked, "val_loss", direction),
        )
        notes = [on_other_images(rows[0]), as_sentence(found) if found else ""]
        table = Table("val_loss", direction, rows, find_unranked(jobs), title="12 runs", verdict=decided, notes=notes)
        for form in ("table", "csv", "json", "markdown", "latex"):
            assert format_tables([table], form)
        assert table.markdown(8000)
        drawn = [objective_by_parameter([(dict(job.values), job.objective or 0.0) for job in ranked], "val_loss")]
        drawn.append(validation_curves([("1", "a", [[0.5, odd, 0.25], [odd, -odd]])], "val_loss"))
        with warnings.catch_warnings(action="error"):
            assert all(as_svg(figure, "one") for figure in drawn)


def test_new_column_is_in_each_form() -> None:
    table = Table("val_accuracy", "maximize", rank([job(0.9, a="1"), job(0.8, a="2")], "maximize"))
    table.columns.append(Column("images", "test images", lambda line: line.jobs[0].images("test") + 31))
    for form in ("csv", "json"):
        assert format_tables([table], form).count("images") == (1 if form == "csv" else 2)
    for form in ("table", "markdown", "latex"):
        assert "test images" in format_tables([table], form)
        assert format_tables([table], form).count("31") == 2
    assert [record["images"] for record in table.records] == [31, 31]


def test_a_terminal_shows_the_first_rows_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(1 - place / 100, a=f"{place}") for place in range(25)]
    jobs += [job(None, "FAILED", "loss became nan", a=f"{place}" * 40) for place in range(100, 123)]
    table = Table("val_accuracy", "maximize", rank(jobs, "maximize"), find_unranked(jobs))
    assert len(table.text().splitlines()) == 2 + 25 + 23
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, _, *lines, more = table.text("--format csv prints all").splitlines()
    assert [line.split()[1] for line in lines[:20]] == [f"{place}" for place in range(20)]
    assert [line.split()[0] for line in lines[20:]] == ["-"] * 20
    assert more == "... and 8 more rows and jobs; --format csv prints all"


def test_a_terminal_breaks_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    table = Table(
        "value", "maximize", [], title="3 jobs", verdict="it is best", notes=["one " * 9 + "https://" + "x" * 40]
    )
    whole = table.text()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = table.text().split("\n")
    assert [len(line) <= 30 or line.startswith("https://") for line in lines] == [True] * len(lines)
    assert " ".join(lines).split() == whole.split()
    assert len(lines) == len(whole.split("\n")) + 2
