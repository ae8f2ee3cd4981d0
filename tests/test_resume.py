"""What has finished is loaded, and what was interrupted goes on."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import Result, run
from mnist_exp.config.composition import compose
from mnist_exp.experiment import Experiment
from mnist_exp.resume import Answer, find_earlier, make_record, resume
from mnist_exp.runner import identify, run_experiment
from mnist_exp.tracking import index, locks
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.record import Run, recording
from mnist_exp.tracking.records import Record
from mnist_exp.training.split import load_data

from .conftest import QUICK, in_process, start, store, wait_for_line

pytestmark = pytest.mark.slow

ALONE = ("tracking=none", *QUICK)
LONG = ("tracking=none", "dataset.limit=2000", "training.epochs=60", "training.batch_size=20", "resume=true")


def records() -> list[Record]:
    """The records of all runs here, oldest first."""
    found = [Folder(path.parent).read() for path in Path().glob("outputs/*/*/run.json")]
    return sorted(found, key=lambda record: record.start)


@pytest.fixture
def interrupted() -> Result:
    """A run that, as its record says, was interrupted."""
    result = run(*ALONE, verbose=0)
    (result.output / "metrics.jsonl").unlink()
    Folder(result.output).change(status="KILLED", stage="begun", scores={}, kept_epoch=None)
    return result


def assert_same(one: Result, other: Result) -> None:
    assert (one.history, one.objective, one.output) == (other.history, other.objective, other.output)
    for left, right in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("tracking", ["none", "mlflow"])
def test_finished_run_is_loaded(tmp_path: Path, tracking: str) -> None:
    first = run(*QUICK, f"tracking={tracking}", verbose=0)
    again = run(*QUICK, f"tracking={tracking}", "resume=true", verbose=0)
    assert_same(again, first)
    assert (again.scores, again.run_id) == (first.scores, first.run_id)
    done = in_process(*QUICK, f"tracking={tracking}", "resume=true", cwd=tmp_path)
    name = f"Run {first.run_id}" if first.run_id else f"The run in {first.output}"
    assert done.stdout == f"{name} has finished this before; resume=false runs it again\n"
    assert [path.parent for path in tmp_path.glob("outputs/*/*/run.json")] == [first.output]
    (first.output / "model.keras").unlink()
    retrained = run(*QUICK, f"tracking={tracking}", "resume=true", verbose=0)
    assert retrained.history == first.history
    assert retrained.output != first.output


def test_interrupted_run_resumes_at_its_checkpoint(
    interrupted: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [before] = records()
    again = run(*ALONE, "resume=true")
    assert_same(again, interrupted)
    assert f"Run {interrupted.output.relative_to(tmp_path)} was interrupted, and goes on\n" in capsys.readouterr().out
    [after] = records()
    assert (after.id, after.start, after.status) == (before.id, before.start, "FINISHED")
    assert not list(again.output.glob(".*"))
    assert [path.name for path in tmp_path.glob("outputs/*/*")] == [again.output.name]


@pytest.mark.parametrize("lost", [b"", b"\xff\n"], ids=["lost", "damaged"])
def test_lost_metrics_are_in_folder_and_store_once(tmp_path: Path, lost: bytes) -> None:
    experiment = compose([*QUICK, "training.epochs=5", "training.checkpoint_seconds=1e-9"])

    def on_epoch(epoch: int, _metrics: object) -> tuple[()]:
        if epoch == 4:
            raise KeyboardInterrupt
        return ()

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, on_epoch=on_epoch)
    (experiment.output / "metrics.jsonl").write_bytes(lost)
    result = run_experiment(replace(experiment, resumes=True))
    assert [line["step"] for line in Folder(result.output).read_metrics()] == [1, 2, 3, 4, 5, 0]
    assert result.run_id is not None
    points = store(tmp_path).get_metric_history(result.run_id, "loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5]


def test_a_run_whose_process_was_killed_goes_on(tmp_path: Path) -> None:
    process = start(*LONG, cwd=tmp_path)
    wait_for_line(process, "Epoch 3/")
    waiting = start(*LONG, cwd=tmp_path)
    wait_for_line(waiting, "Run outputs/")
    [before] = records()
    process.kill()
    process.communicate()
    output, errors = waiting.communicate(timeout=300)
    assert (waiting.returncode, errors) == (0, "")
    assert " was interrupted, and goes on\n" in output
    [after] = records()
    assert (after.id, after.status) == (before.id, "FINISHED")
    assert after.tags["mnist_exp.process"] == str(waiting.pid)


def asked() -> Experiment:
    return compose([*ALONE, "resume=true"])


def wanted() -> Record:
    identity = identify(asked().config)
    assert identity is not None
    return make_record(asked(), identity)


def made(name: str, *, status: str = "KILLED", **changes: Any) -> Folder:
    """A folder with the record of a run of that experiment, which was interrupted."""
    identity, folder, today = identify(asked().config), Folder(Path("outputs") / name), wanted()
    assert identity is not None
    tags = today.tags | {index.KEY: identity.key} | changes.pop("tags", {})
    folder.write(replace(today, **{"id": uuid.uuid4().hex, "status": status, "data": None, **changes, "tags": tags}))
    index.add(identity.key, folder.path)
    return folder


def answer() -> Answer:
    identity = identify(asked().config)
    assert identity is not None
    return resume(find_earlier(identity.key, wanted(), or_newest=True), wanted())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("tags", "differing"),
    [
        ({}, ""),
        ({"mnist_exp.threads": "77"}, "number of threads"),
        ({"mnist_exp.signature": "0", "mnist_exp.code": "0"}, "code"),
        (
            {"mnist_exp.signature": "0", "mnist_exp.own_code": "a.py 0", "mnist_exp.packages": "keras 2"},
            "code and packages",
        ),
        ({"mnist_exp.parent": "0" * 32, "mnist_exp.swept": "{}"}, None),
    ],
)
def test_a_run_that_would_not_come_out_the_same_is_new(tags: dict[str, str], differing: str | None) -> None:
    folder = made("a", tags=tags)
    found = answer()
    if differing == "":
        assert found == Answer("resumes", Folder(folder.path.absolute()), "run outputs/a was interrupted, and goes on")
    elif differing is None:  # a job goes on in its own sweep
        assert (found.state, found.line) == ("new", "run outputs/a is of another version, or failed")
    else:
        assert (found.state, found.line) == ("new", f"other {differing} than run outputs/a")


@pytest.mark.fast
def test_the_nearest_differing_run_is_named() -> None:
    assert answer().line == "no earlier run is like it"
    made("failed", status="FAILED")
    assert (answer().state, answer().line) == ("new", "run outputs/failed is of another version, or failed")
    (Path("outputs/failed/run.json")).unlink()
    folder = made(
        "a",
        tags={index.KEY: "0" * 64, "mnist_exp.signature": "0" * 64},
        parameters={},
        data={"name": "", "digest": "0", "source_type": "", "source": ""},
    )
    index.add("0" * 64, folder.path)
    assert answer().line == "other configuration and data than run outputs/a"


@pytest.mark.fast
def test_finished_runs_precede_active_and_resumable_ones() -> None:
    old, middle, new = made("old"), made("middle"), made("new")
    (middle.path / "checkpoint.npz").touch()
    assert (answer().state, answer().folder) == ("resumes", Folder(middle.path.absolute()))
    old.change(stage="scored")
    assert answer().folder == Folder(middle.path.absolute())
    new.change(status="RUNNING")
    assert answer().state == "resumes"  # nobody holds its lock
    with locks.held(new.path):
        found = answer()
        assert found.state == "runs"
        assert "run outputs/new still trains, in process " in found.line
        old.change(status="FINISHED", tags={"mnist_exp.pruned": "1"})
        assert answer().state == "runs"
        old.change(tags={"mnist_exp.pruned": ""})
        assert (answer().state, answer().folder) == ("finished", Folder(old.path.absolute()))


@pytest.mark.fast
def test_a_pruned_try_goes_on_with_pruning_alone() -> None:
    made("a", tags={"mnist_exp.pruned": "1"})
    key = identify(asked().config)
    assert key is not None
    assert [bool(find_earlier(key.key, wanted(), prunes=prunes)) for prunes in (False, True)] == [False, True]


@pytest.mark.fast
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_run_that_was_interrupted_at_its_start_resumes(error: type[BaseException]) -> None:
    folder, digest = Folder(Path("outputs") / "a"), load_data(asked().config.dataset).digest
    experiment = replace(asked(), output=folder.path, digest=digest)
    with pytest.raises(KeyboardInterrupt), recording(Run(experiment)):
        raise error from KeyboardInterrupt()
    assert answer().state == "resumes"


@pytest.mark.parametrize("stage", ["scored", "completed"])
def test_after_scoring_no_epoch_is_trained_again(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(*ALONE, verbose=0)
    folder = Folder(result.output)
    folder.change(status="RUNNING", stage=stage, end=None)
    (folder.path / "figures" / "curves.png").unlink()
    (folder.path / "checkpoint.npz").touch()
    again = run(*ALONE, "resume=true")
    assert_same(again, result)
    assert "Epoch" not in capsys.readouterr().out
    assert (folder.read().status, folder.read().stage) == ("FINISHED", "completed")
    assert (folder.path / "figures" / "curves.png").exists()
    assert not (folder.path / "checkpoint.npz").exists()


def test_two_equal_commands_at_once_train_once(tmp_path: Path) -> None:
    both = [start(*QUICK, "resume=true", cwd=tmp_path) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert [record.status for record in records()] == ["FINISHED"]
    assert sorted("has finished this before" in output for output, _ in ends) == [False, True]
