"""What has finished is loaded, and what was interrupted goes on."""

import json
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import Result, run
from mnist_exp.config.composition import compose
from mnist_exp.experiment import Experiment, code_files
from mnist_exp.learning import datasets
from mnist_exp.resuming import resumed
from mnist_exp.runner import identify
from mnist_exp.tracking import index, locks
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Folder, Record
from mnist_exp.tracking.job import Job
from mnist_exp.tracking.record import Run, TakenError, ended

from .conftest import QUICK, in_process, start, wait_for_line

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
    Folder(result.output).change(status="KILLED", scores={}, kept_epoch=None)
    return result


def assert_same(one: Result, other: Result) -> None:
    assert (one.history, one.objective, one.output) == (other.history, other.objective, other.output)
    for left, right in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("tracking", ["none", "mlflow"])
def test_what_has_finished_is_loaded(tmp_path: Path, tracking: str) -> None:
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


def test_an_interrupted_run_goes_on_where_it_was(
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


OTHER_CODE = json.dumps({**code_files(), "learning/models.py": "0"})


def asked() -> Experiment:
    return compose([*ALONE, "resume=true"])


def made(name: str, **tags: str) -> Folder:
    """A folder with the record of a run of that experiment that was interrupted."""
    key, signature = identify(asked().config)
    today, folder = run_record(asked(), 1, None, {}), Folder(Path("outputs") / name)
    tags = today.tags | {"mnist_exp.signature": signature, index.KEY: key} | tags
    folder.write(replace(today, status="KILLED", tags=tags))
    index.add(key, folder.path)
    return folder


def goes_on(folder: Folder) -> bool:
    found = resumed(asked())
    assert isinstance(found, Experiment)
    assert found.resumes == (found.output == folder.path.absolute())
    return found.resumes


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, ""),
        ({"mnist_exp.threads": "77"}, "threads 77 in run outputs/a, "),
        (
            {"mnist_exp.signature": "other", "mnist_exp.code_files": OTHER_CODE},
            "learning/models.py differs from the code of run outputs/a\n",
        ),
        ({"mnist_exp.signature": "other"}, "run outputs/a is of another version\n"),
    ],
)
def test_what_would_not_come_out_the_same_starts_anew_and_says_why(
    capsys: pytest.CaptureFixture[str], changes: dict[str, str], line: str
) -> None:
    assert goes_on(made("a", **changes)) == (not line)
    said = f"Not continued: {line}" if line else "Run outputs/a was interrupted, and goes on\n"
    assert said in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize("change", [{"status": "FAILED"}, {"tags": {"mnist_exp.swept": "{}"}}], ids=["failed", "a job"])
def test_a_run_that_failed_or_is_a_job_of_a_sweep_does_not_go_on(change: dict[str, Any]) -> None:
    folder = made("a")
    folder.change(**change)
    assert not goes_on(folder)


@pytest.mark.fast
def test_the_newest_with_a_checkpoint_goes_on_unless_one_has_finished() -> None:
    old, middle, _new = map(made, ("old", "middle", "new"))
    for folder in (old, middle):
        (folder.path / "checkpoint.npz").touch()
    assert goes_on(middle)
    old.change(status="FINISHED", tags={"mnist_exp.pruned": "1"})
    assert goes_on(middle)
    old.change(status="FINISHED", tags={"mnist_exp.pruned": ""})
    found = resumed(asked())
    assert isinstance(found, Job)
    assert found.output == str(old.path.absolute())


@pytest.mark.fast
def test_of_two_processes_one_goes_on() -> None:
    folder = made("a")
    experiment = replace(asked(), output=folder.path, resumes=True)
    record = run_record(experiment, 1, None, {})
    with ended(Run(experiment, record, keeps_all=True)):
        with locks.claimed(folder.path) as is_mine, locks.claimed(folder.path) as is_theirs:
            assert (is_mine, is_theirs) == (True, False)
        with pytest.raises(TakenError), ended(Run(experiment, record, keeps_all=True)):
            pass
        assert folder.read().status == "RUNNING"
        assert locks.is_alive(folder, folder.read())
    assert folder.read().status == "FINISHED"
    with pytest.raises(TakenError), ended(Run(experiment, record, keeps_all=True)):
        pass
    assert folder.read().status == "FINISHED"


@pytest.mark.fast
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_was_interrupted_as_it_began_goes_on(error: type[BaseException]) -> None:
    folder, digest = Folder(Path("outputs") / "a"), datasets.load(asked().config.dataset).digest
    experiment = replace(asked(), output=folder.path, digest=digest)
    with pytest.raises(KeyboardInterrupt), ended(Run(experiment, run_record(experiment, 1, None, {}), keeps_all=True)):
        raise error from KeyboardInterrupt()
    assert goes_on(folder)


@pytest.mark.parametrize("tries", [1, pytest.param(10, marks=pytest.mark.release)])
def test_two_signals_at_any_time_leave_nothing_running(tmp_path: Path, tries: int) -> None:
    rng = random.Random(tries)
    for number in range(tries):
        typed = (*LONG, "training.epochs=100000", f"hydra.run.dir={number}", f"seed={number}")
        process = start(*typed, cwd=tmp_path)
        while not (tmp_path / str(number) / "run.json").exists() and process.poll() is None:
            pass
        time.sleep(rng.uniform(0, 8))
        first, second = (rng.choice((signal.SIGINT, signal.SIGTERM)) for _ in range(2))
        process.send_signal(first)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(second)
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (128 + first, "")
        assert Folder(tmp_path / str(number)).read().status == "KILLED"
