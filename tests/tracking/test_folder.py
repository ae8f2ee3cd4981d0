"""The record in a folder: written whole, read while it grows."""

import os
from pathlib import Path

import pytest

from mnist_exp.config.schema import NoTracking
from mnist_exp.tracking.folder import Folder, Record
from mnist_exp.tracking.record import Parent, SweepRecord

pytestmark = pytest.mark.fast


def test_what_is_measured_is_read_from_where_one_left_off(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.measured() == ([], 0)
    folder.measure(1, {"loss": 0.5})
    first, place = folder.measured()
    assert [(one.step, one.metrics) for one in first] == [(1, {"loss": 0.5})]
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 2, "ti')  # a line in the making
    assert folder.measured(place) == ([], place)
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('me": 3, "metrics": {"loss": NaN}}\n')
    [second], end = folder.measured(place)
    assert (second.step, second.time) == (2, 3)
    assert end == (tmp_path / "metrics.jsonl").stat().st_size
    assert folder.history()["loss"][0] == 0.5


def test_what_another_run_left_in_the_folder_is_not_taken_for_its_own(tmp_path: Path) -> None:
    folder, left = Folder(tmp_path), ("config.yaml", "predictions.csv", "report.html", "figures/mistakes.png")
    (tmp_path / "figures").mkdir()
    for name in left:
        (tmp_path / name).touch()
    assert folder.files() == [tmp_path / name for name in left]
    folder.begin(Record("mine", {}))
    assert folder.files() == []


def test_tags_are_added_and_other_fields_replaced(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new")
    folder.write(Record("mine", {"a": "1"}))
    before = folder.read()
    folder.change(tags={"b": "2"}, scores={"test_loss": 0.1})
    folder.end("FINISHED")
    after = folder.read()
    assert (after.id, after.start, after.name) == (before.id, before.start, "mine")
    assert (after.tags, after.scores, after.status) == ({"a": "1", "b": "2"}, {"test_loss": 0.1}, "FINISHED")
    assert after.end is not None
    assert after.end >= after.start
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


def test_the_jobs_of_a_sweep_without_a_store_see_that_it_is_over(tmp_path: Path) -> None:
    parent = Parent("", NoTracking(kind="none"), (), tmp_path, tmp_path, os.getpid())
    record, of_a_job = SweepRecord(parent, {}), SweepRecord(parent, {})
    record.folder.begin(Record("a sweep", {}))
    assert not of_a_job.is_over()
    record.close_jobs("KILLED")
    assert of_a_job.is_over()
