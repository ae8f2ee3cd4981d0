"""What is counted as lost, there twice, RUNNING, PENDING or wrong, shown on a run to which that was done."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ..conftest import runs_in, store
from .left import differences, left, outputs
from .table import Row, add, markdown, row

pytestmark = pytest.mark.slow


def in_store(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
            assert connection.execute(statement).rowcount > 0
            connection.commit()

    return change


def in_file(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        [path] = outputs(folder, name)
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    return change


def copied(folder: Path) -> None:
    [path] = outputs(folder, "run.json")
    shutil.copytree(path.parent, path.parent.with_name("again"))
    record = json.loads(path.read_text()) | {"id": "f" * 32}
    path.with_name("run.json").write_text(json.dumps(record))


def created_again(folder: Path) -> None:
    [run] = runs_in(folder)
    store(folder).create_run(run.info.experiment_id, tags={"mnist_exp.folder": run.data.tags["mnist_exp.folder"]})


def logged_again(folder: Path) -> None:
    [run] = runs_in(folder)
    store(folder).create_logged_model(run.info.experiment_id, "model", run.info.run_id)


def last_line(times: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        [path] = outputs(folder, "metrics.jsonl")
        *lines, last = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, *[last] * times]))

    return change


ONE = "key = 'loss' AND step = 2"
COLUMNS = "key, value, timestamp, run_uuid, step, is_nan"


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda _: None, {}),
        (in_store(f"DELETE FROM metrics WHERE {ONE}"), {"lost": 1}),
        (
            in_store(
                f"INSERT INTO metrics ({COLUMNS}) "
                f"SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE {ONE}"
            ),
            {"twice": 1},
        ),
        (in_store(f"UPDATE metrics SET value = value + 1 WHERE {ONE}"), {"wrong": 1}),
        (in_store(f"UPDATE metrics SET step = 7 WHERE {ONE}"), {"lost": 1, "wrong": 1}),
        (in_store("UPDATE runs SET status = 'RUNNING'"), {"running": 1, "lost": 1, "wrong": 1}),
        (in_store("UPDATE logged_models SET status = 1"), {"pending": 1}),
        (in_store("DELETE FROM tags WHERE key = 'mnist_exp.folder'"), {"lost": 1, "twice": 1}),
        (in_store("DELETE FROM params WHERE key = 'seed'"), {"lost": 1}),
        (in_store("DELETE FROM inputs"), {"lost": 2}),  # the data, and the model, which is an output
        (lambda folder: outputs(folder, "run.log")[0].with_name("error.txt").touch(), {"lost": 1}),
        (in_file("run.json", '"FINISHED"', '"RUNNING"'), {"running": 1, "lost": 1, "wrong": 1}),
        (in_file("run.json", '"FINISHED"', '"KILLED"'), {"lost": 1, "wrong": 1}),
        (created_again, {"running": 1, "twice": 1}),
        (logged_again, {"pending": 1, "twice": 1}),
        (copied, {"twice": 1, "lost": 1}),
        (last_line(2), {"twice": 4}),
        (last_line(0), {"lost": 2, "wrong": 4}),
        (in_file("metrics.jsonl", '"step": 1', '"step": 2'), {"lost": 4, "twice": 4, "wrong": 4}),
    ],
)
def test_faults_count_what_happened_to_a_run(
    quick_folder: Path, tmp_path: Path, change: Callable[[Path], None], counts: dict[str, int]
) -> None:
    shutil.copytree(quick_folder, tmp_path / "copy")
    change(tmp_path / "copy")
    found = left(tmp_path / "copy", 0, store(tmp_path / "copy"))
    assert {count: len(lines) for count, lines in found.items() if lines} == counts, found


def test_missing_and_doubled_jobs_and_sweeps_are_counted(sweep_folder: Path) -> None:
    def counts(jobs: int) -> dict[str, int]:
        return {count: len(lines) for count, lines in left(sweep_folder, jobs, store(sweep_folder)).items() if lines}

    assert counts(6) == {}
    assert counts(7) == {"lost": 2}  # in the folders, and in the store
    assert counts(5) == {"twice": 2}


def test_rerun_reports_a_difference_in_the_last_digit(quick_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(quick_folder, tmp_path / "copy")
    assert differences(tmp_path / "copy", quick_folder) == []
    in_file("metrics.jsonl", '"val_accuracy": 0.', '"val_accuracy": 1.')(tmp_path / "copy")
    assert {line.split(" is ")[0] for line in differences(tmp_path / "copy", quick_folder)} == {
        "the run: val_accuracy of step 1",
        "the run: val_accuracy of step 2",
    }
    [model] = outputs(tmp_path / "copy", "model.keras")
    model.unlink()
    assert "the run: the weights differ" in differences(tmp_path / "copy", quick_folder)


@pytest.mark.fast
def test_equal_rows_of_faults_are_added() -> None:
    rows = [
        row("run", {"lost": ["a"], "wrong": []}),
        row("run", {"twice": ["b", "c"]}),
        Row("sweep (skipped)", tries=0),
    ]
    assert [row.bad() for row in rows] == [1, 2, 0]
    assert rows[1].notes == ("twice: b", "twice: c")
    assert markdown(add(rows)).splitlines() == [
        "| what | tries | lost | twice | running | pending | wrong |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| run | 2 | 1 | 2 | 0 | 0 | 0 |",
        "| sweep (skipped) | 0 | 0 | 0 | 0 | 0 | 0 |",
    ]
