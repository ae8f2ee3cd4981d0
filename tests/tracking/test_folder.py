"""The record in a folder: written whole, read while it grows."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.schema import NoTracking
from mnist_exp.config.values import MedianPruning
from mnist_exp.errors import InputError
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.locks import free_folder, make_folder, working
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent, SweepRecord, begin_sweep

pytestmark = pytest.mark.fast

MEDIAN = MedianPruning(kind="median", n_warmup_steps=0, interval_steps=1, n_startup_trials=1, n_min_trials=1)


def test_metrics_are_read_up_to_the_last_whole_line(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.read_metrics() == []
    folder.measure(1, {"loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 2, "ti')  # a line in the making
    assert [(line["step"], line["metrics"]) for line in folder.read_metrics()] == [(1, {"loss": 0.5})]
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('me": 3, "metrics": {"loss": NaN}}\n')
    assert [(line["step"], line["time"]) for line in folder.read_metrics()][1] == (2, 3)
    assert folder.history()["loss"][0] == 0.5


def test_the_end_has_another_line_if_its_scores_changed(tmp_path: Path) -> None:
    for scores in ({"loss": 0.1, "fit_seconds": 3.0}, {"loss": 0.1, "fit_seconds": 4.0}, {"loss": 0.2}, {"loss": 0.2}):
        Folder(tmp_path).measure(0, scores)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 0, "time": 12, "met')  # the process was killed
    assert [line["metrics"]["loss"] for line in Folder(tmp_path).read_metrics()] == [0.1, 0.2]


def test_a_run_replaces_the_named_files_of_an_earlier_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    callbacks = {"CSVLogger.filename": "epochs.csv", "ModelCheckpoint.filepath": "best-{epoch:02d}.keras"}
    callbacks |= {"EarlyStopping.monitor": "notes.txt", "X.filename": "data/"}  # names from a stranger's record
    parameters = {f"training.callbacks.{key}": value for key, value in callbacks.items()}
    folder.write(Record("theirs", {"mnist_exp.own_code": "mine.py 0123456789ab"}, parameters))
    written = (
        "config.yaml",
        "epochs.csv",
        "best-01.keras",
        "figures/mistakes.png",
        "code/mine.py",
        "model/data/model.keras",
    )
    unfinished = f".new-{'0' * 32}.npz"
    own = (
        "notes.txt",
        "best-one.keras",
        "data/.new-model/MLmodel",
        "figures/drawn.png",
        "code/other.py",
        "model/weights",
        "data/config.yaml",
    )
    for name in (*written, unfinished, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder.begin(Record("mine", {}))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"run.json", *own}


FOREIGN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file of one's own": ("has files that no run wrote, such as code", lambda path: (path / "code").mkdir()),
    "a damaged record": ("has a record that cannot be used (", lambda path: (path / "run.json").write_text("[]")),
    "a link": ("has a link or a pipe, run.log", lambda path: (path / "run.log").symlink_to("../victim")),
    "a pipe": ("has a link or a pipe, log.csv", lambda path: os.mkfifo(_with_record(path) / "log.csv")),
    "a link beside a record": ("has a link or a pipe, figures", lambda path: _with_record(path, "figures")),
}


def _with_record(path: Path, *links: str) -> Path:
    Folder(path).write(Record("mine", {}))
    for name in links:
        (path / name).symlink_to("../victim")
    return path


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_folder_is_refused_untouched(tmp_path: Path, case: str) -> None:
    said, make = FOREIGN[case]
    (tmp_path / "victim").write_text("mine")
    (folder := tmp_path / "there").mkdir()
    make(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=re.escape(f"there: {said}")) as caught, working(folder):
        pass
    assert str(caught.value).endswith("; choose another folder with hydra.run.dir=DIR, or hydra.sweep.dir=DIR with -m")
    assert sorted(folder.rglob("*")) == before
    assert (tmp_path / "victim").read_text() == "mine"
    assert free_folder(folder).name == "there-2"
    (tmp_path / "link").symlink_to("there-2")
    with pytest.raises(InputError, match="link: is a link"):
        make_folder(tmp_path / "link")


@pytest.mark.parametrize(
    "names", [(), ("run.log", "multirun.yaml"), (".hydra/x.yaml", ".submitit/1/x"), ("run.json", "a")]
)
def test_new_folder_or_folder_of_a_run_is_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if "run.json" in names:
        _with_record(tmp_path)
    make_folder(tmp_path)
    assert free_folder(tmp_path) == (tmp_path if "run.json" not in names else tmp_path.with_name(f"{tmp_path.name}-2"))


DAMAGED: dict[str, object] = {
    "end": 10**400,
    "status": ["FINISHED"],
    "id": "' OR 1 = 1",
    "tags": {"mnist_exp.parent": 1},
    "scores": {"loss": "0.1"},
    "data": {"name": "mnist", "other": "field"},
    "other": "field",
}


@pytest.mark.parametrize("key", DAMAGED)
def test_a_record_with_a_wrong_value_is_damaged(tmp_path: Path, key: str) -> None:
    record = asdict(Record("mine", {}))
    (tmp_path / "run.json").write_text(json.dumps(record | {key: DAMAGED[key]}))
    with pytest.raises(InputError, match=r"run.json: is damaged, or of another program$"):
        Folder(tmp_path).read()
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert Folder(tmp_path).read() == Record(**record)


@pytest.mark.parametrize(
    ("lines", "read"),
    [(b'{"step": 1, "time": 2, "metrics": {"loss": NaN}}\n', 1), (b"\xff\n", None), (b"[" * 100_000 + b"\n", None)]
    + [(b'{"step": %b, "time": 2, "metrics": {}}\n' % step, None) for step in (b"-1", b"[]", b"1" * 5000)],
)
def test_damaged_lines_of_metrics_are_one_error(tmp_path: Path, lines: bytes, read: int | None) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    if read is None:
        folder, record = Folder(tmp_path), Record("mine", {})
        with pytest.raises(InputError, match=r"metrics.jsonl: is damaged$"):
            folder.read_metrics()
        folder.write(record)
        folder.reopen(record)  # a checkpoint has the lines
        assert folder.read_metrics() == []
    else:
        assert len(Folder(tmp_path).read_metrics()) == read


@pytest.mark.parametrize("text", ["[1]", '{"store": "a", "run_id": ["b"]}', '{"store": "a"}', "[" * 200_000, "\x00"])
def test_damaged_mlflow_json_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "mlflow.json").write_text(text)
    assert Folder(tmp_path).mirrors() == {}


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


def test_jobs_notice_the_end_of_their_sweep(tmp_path: Path) -> None:
    composed = compose_values(["tracking=none", "seed=0,1"])
    sweep, _ = plan(composed, ["tracking=none", "seed=0,1"], None, JobLoader.of_conf())
    new = Record("a sweep", {"mnist_exp.sweep": "0" * 64})
    with working(tmp_path), begin_sweep(replace(sweep, folder=tmp_path), new) as made:
        parent = Parent(made.id, "", NoTracking(kind="none"), (), tmp_path, made.attempt)
        record, of_a_job = (SweepRecord(parent) for _ in range(2))
        assert not of_a_job.is_over()
        record.close_jobs("KILLED")
        assert of_a_job.is_over()
        record.folder.change(status="RUNNING")
        assert not of_a_job.is_over()
        record.folder.change(attempt="another")
        assert of_a_job.is_over()
        record.folder.change(attempt=made.attempt)
    record.folder.change(status="RUNNING")
    assert of_a_job.is_over()  # its process holds no lock any more
