"""A disk that fails costs what could not be written, and no more: one message, the scores, a run that is closed."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mnist_exp import ends

from ..conftest import QUICK, in_process, runs_in, store
from .left import outputs
from .outages import SYNC
from .proxy import Fault, proxied
from .test_outages import lacking
from .watched import epochs

pytestmark = pytest.mark.slow

LONG = (*QUICK, "training.epochs=10")
NEXT = ("dataset.limit=500", "training.epochs=1")


def newest_folder(folder: Path) -> Path:
    """Return the output folder of the newest run or job."""
    return max(outputs(folder, "metrics.jsonl"), key=lambda path: path.stat().st_mtime).parent


def replace_artifacts(folder: Path) -> None:
    """Delete mlruns/, with what is in it, and put a file there."""
    shutil.rmtree(folder / "mlruns", ignore_errors=True)
    (folder / "mlruns").touch()


def during_training(folder: Path, act: Callable[[], object], *arguments: str) -> tuple[int, str, str]:
    """Run a command, and call a function when the first epoch is measured; return exit code, output and messages."""
    ended = threading.Event()

    def wait() -> None:
        while epochs(folder) < 1 and not ended.is_set():
            time.sleep(0.001)
        act()

    waiting = threading.Thread(target=wait)
    waiting.start()
    done = in_process(*arguments, cwd=folder)
    ended.set()
    waiting.join()
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("jobs", [0, 2])
def test_an_output_folder_that_is_deleted_is_one_message(tmp_path: Path, jobs: int) -> None:
    typed = ("-m", *LONG, "seed=0,1") if jobs else LONG
    code, stdout, stderr = during_training(tmp_path, lambda: shutil.rmtree(newest_folder(tmp_path)), *typed)
    assert code in (0, 1)
    assert "Traceback" not in stderr
    assert len(stderr.splitlines()) == 1
    assert not jobs or "seed=1: val_accuracy " in stdout
    assert in_process(*NEXT, cwd=tmp_path).returncode == 0
    assert [run for run in runs_in(tmp_path) if run.info.status == "RUNNING"] == []


def test_files_that_a_store_does_not_take_are_sent_later(tmp_path: Path) -> None:
    code, stdout, stderr = during_training(tmp_path, lambda: replace_artifacts(tmp_path), *LONG)
    assert code == 0, stderr
    assert "TEST accuracy: " in stdout
    assert "Traceback" not in stderr
    assert SYNC in stdout + stderr
    (tmp_path / "mlruns").unlink()
    assert in_process(cwd=tmp_path, module=SYNC).returncode == 0
    assert lacking(tmp_path, store(tmp_path)) == {}


def test_a_server_that_takes_no_files_gets_them_later(
    tmp_path: Path, used_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "no files"
    with proxied(used_server) as proxy:
        proxy.fail(Fault(500, of="^PUT .*mlflow-artifacts"))
        with monkeypatch.context() as patched:
            patched.setitem(vars(ends.FINISHED), "seconds", 2.0)
            done = in_process(*QUICK, f"tracking.experiment='{name}'", cwd=tmp_path, MLFLOW_TRACKING_URI=proxy.uri)
        proxy.heal()
        assert done.returncode == 0, done.stderr
        assert "TEST accuracy: " in done.stdout
        assert "Traceback" not in done.stderr
        assert in_process(cwd=tmp_path, module=SYNC, MLFLOW_TRACKING_URI=proxy.uri).returncode == 0
        assert lacking(tmp_path, MlflowClient(proxy.uri), name) == {}


@pytest.mark.parametrize("name", ["it's 100% #1; é", 'say "hi" 京都'])
def test_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    done = in_process("-m", *NEXT, "seed=0,1", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.parent for path in tmp_path.rglob("mlflow.db")] == [folder]
    assert lacking(folder, store(folder), jobs=2) == {}


@pytest.mark.fast
@pytest.mark.parametrize("name", ["a%20b", "what?", 'it\'s "here"'])
def test_invalid_database_name_is_one_message(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    done = in_process(*NEXT, cwd=folder)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"{folder}/mlflow.db has a ?, a % before two digits or both kinds of quotes, which MLflow misreads" in line
    assert not list(folder.glob("*.db"))
