"""The record in a folder: written whole, read while it grows."""

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hydra.types import RunMode

from mnist_exp.config.composition import compose, compose_values
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.schema import NoTracking
from mnist_exp.config.values import MedianPruning
from mnist_exp.errors import InputError
from mnist_exp.experiment import Child
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Folder, Record, log_file, make_folder
from mnist_exp.tracking.job_folders import free_folder
from mnist_exp.tracking.sweep_record import Parent, SweepRecord, begun_sweep

pytestmark = pytest.mark.fast

MEDIAN = MedianPruning(kind="median", n_warmup_steps=0, interval_steps=1, n_startup_trials=1, n_min_trials=1)


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


def test_an_epoch_that_is_measured_again_keeps_its_line(tmp_path: Path) -> None:
    Folder(tmp_path).measure(1, {"loss": 0.1, "val_loss": math.nan})
    Folder(tmp_path).measure(2, {"loss": 0.2, "val_loss": 0.3})
    lines = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "time": 12, "met')  # the process was killed
    again = Folder(tmp_path)
    again.measure(2, {"loss": 0.2, "val_loss": 0.3})
    again.measure(1, {"loss": 0.1, "val_loss": math.nan})
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    again.measure(3, {"loss": 0.3})
    assert [one.step for one in again.measured()[0]] == [1, 2, 3]


def test_the_end_has_another_line_if_its_scores_changed(tmp_path: Path) -> None:
    for scores in ({"loss": 0.1, "fit_seconds": 3.0}, {"loss": 0.1, "fit_seconds": 4.0}, {"loss": 0.2}, {"loss": 0.2}):
        Folder(tmp_path).measure(0, scores)
    assert [one.metrics["loss"] for one in Folder(tmp_path).measured()[0]] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"loss": 0.1, "val_loss": 0.25}, "val_loss of epoch 1: was 0.2 before the interruption and is 0.25 now"),
        ({"loss": 0.1, "val_loss": math.nan}, "val_loss of epoch 1: was 0.2 before the interruption and is nan now"),
        ({"loss": 0.1}, "val_loss of epoch 1: was 0.2 before the interruption and is None now"),
    ],
)
def test_an_epoch_that_gives_another_value_is_an_error(tmp_path: Path, metrics: dict[str, float], said: str) -> None:
    Folder(tmp_path).measure(1, {"loss": 0.1, "val_loss": 0.2})
    with pytest.raises(InputError, match=said):
        Folder(tmp_path).measure(1, metrics)


def test_a_run_takes_over_a_folder_of_a_run_by_the_names_of_its_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    callbacks = {"CSVLogger.filename": "epochs.csv", "ModelCheckpoint.filepath": "best-{epoch:02d}.keras"}
    callbacks |= {"EarlyStopping.monitor": "notes.txt", "X.filename": "data/"}  # of a stranger
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
def test_a_folder_that_is_not_a_runs_is_refused_untouched(tmp_path: Path, case: str) -> None:
    said, make = FOREIGN[case]
    (tmp_path / "victim").write_text("mine")
    (folder := tmp_path / "there").mkdir()
    make(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=re.escape(f"there: {said}")) as caught, log_file(folder):
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
def test_a_folder_that_is_new_or_a_runs_is_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if "run.json" in names:
        _with_record(tmp_path)
    make_folder(tmp_path)
    assert free_folder(tmp_path) == (tmp_path if "run.json" not in names else tmp_path.with_name(f"{tmp_path.name}-2"))


DAMAGED: dict[str, object] = {
    "end": 10**400,
    "start": -1,
    "kept_epoch": 1.5,
    "status": ["FINISHED"],
    "id": "' OR 1 = 1",
    "tags": {"mnist_exp.parent": 1},
    "parameters": [],
    "scores": {"loss": "0.1"},
    "data": {"name": "mnist", "other": "field"},
    "best": None,
    "other": "field",
}


@pytest.mark.parametrize("key", DAMAGED)
def test_a_record_with_a_wrong_value_is_damaged(tmp_path: Path, key: str) -> None:
    record = asdict(Record("mine", {}))
    (tmp_path / "run.json").write_text(json.dumps(record | {key: DAMAGED[key]}))
    with pytest.raises(InputError, match=r"run.json: is damaged, or of another program$"):
        Folder(tmp_path).read()
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert asdict(Folder(tmp_path).read()) == record


@pytest.mark.parametrize(
    ("lines", "read"),
    [(b'{"step": 1, "time": 2, "metrics": {"loss": NaN}}\n', 1), (b"\xff\n", None), (b"[" * 100_000 + b"\n", None)]
    + [(b'{"step": %b, "time": 2, "metrics": {}}\n' % step, None) for step in (b"-1", b"[]", b"1" * 5000)],
)
def test_damaged_lines_of_metrics_are_one_error(tmp_path: Path, lines: bytes, read: int | None) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    if read is None:
        with pytest.raises(InputError, match=r"metrics.jsonl: is damaged$"):
            Folder(tmp_path).measured()
    else:
        assert len(Folder(tmp_path).measured()[0]) == read


@pytest.mark.parametrize("text", ["[1]", '{"store": "a", "run_id": ["b"]}', '{"store": "a"}', "[" * 200_000, "\x00"])
def test_damaged_notes_of_a_store_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "mlflow.json").write_text(text)
    assert Folder(tmp_path).mirrored() is None


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


def test_the_jobs_of_a_sweep_see_that_it_is_over(tmp_path: Path) -> None:
    composed = compose_values(["tracking=none", "seed=0,1"], RunMode.MULTIRUN)
    sweep, _ = plan(composed, ["tracking=none", "seed=0,1"], None, JobLoader.of_conf())
    with begun_sweep(replace(sweep, folder=tmp_path), Record("a sweep", {"mnist_exp.sweep": "0" * 64})) as made:
        parent = Parent(made.id, "", NoTracking(kind="none"), (), tmp_path, lock=made.lock)
        record, of_a_job = (SweepRecord(parent, {}, {}, None) for _ in range(2))
        assert not of_a_job.is_over()
        record.close_jobs("KILLED")
        assert of_a_job.is_over()
        record.folder.change(status="RUNNING")
        assert not of_a_job.is_over()
    assert of_a_job.is_over()  # its process holds no lock any more


@pytest.mark.parametrize(
    ("tags", "prune", "said"),
    [
        ({"mnist_exp.signature": "same"}, None, None),
        ({}, None, None),  # interrupted before its data were known
        ({"mnist_exp.signature": "other"}, None, "not continued: job 0 is of another version"),
        ({"mnist_exp.signature": "same", "mnist_exp.threads": "77"}, None, "not continued: threads 77 in job 0, "),
        ({"mnist_exp.pruned": "1"}, None, ""),
        ({"mnist_exp.pruned": "1"}, MEDIAN, None),
    ],
)
def test_a_job_that_was_interrupted_goes_on_if_it_is_the_same(
    tmp_path: Path, tags: dict[str, str], prune: MedianPruning | None, said: str | None
) -> None:
    experiment, heard = compose(["tracking=none"]), list[str]()
    config = replace(experiment.config, prune=prune)
    experiment = replace(experiment, config=config, output=tmp_path / "0", child=Child("", {"seed": "0"}, "sweep"))
    made = run_record(experiment, 1, None, {})
    Folder(tmp_path / "0").write(replace(made, tags=made.tags | tags, status="KILLED"))
    record = SweepRecord(Parent("sweep", "", NoTracking(kind="none"), (), tmp_path), {}, {}, None)
    placed = record.place(experiment, "same", heard.append)
    assert (placed.resumes, placed.output.name) == ((True, "0") if said is None else (False, "0-2"))
    assert len(heard) == bool(said)
    assert "".join(heard).startswith(said or "")


def test_a_process_of_the_same_number_in_another_container_is_not_that_of_the_sweep() -> None:
    parent = Parent("", "", NoTracking(kind="none"), (), Path())
    assert parent.is_this_process
    assert str(os.getpid()) in parent.process
    assert not replace(parent, process=str(os.getpid())).is_this_process
