"""A store is whole or not there, whatever ends the process that makes it."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

import mnist_exp
from mnist_exp.config.composition import compose
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.tracking.store import connect, tables

from ..conftest import QUICK, in_process, make_tables, runs_in, start

pytestmark = pytest.mark.slow

NEW = ".mlflow.db.new"
WHOLE = 950_000  # bytes of a new store
# How often a store is interrupted, each time at another place: once to land, and as often as README says to release.
TRIES = pytest.mark.parametrize("tries", [1, pytest.param(8, marks=pytest.mark.release)])


def open_store(folder: Path) -> MlflowClient:
    """Reach the store in a folder as a run does; it is made where there is none."""
    tracking = compose([f"tracking.uri=sqlite:///{folder}/mlflow.db"]).config.tracking
    assert isinstance(tracking, MLflowTracking)
    return connect(tracking).client


def size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for_size(path: Path, wanted: int, process: subprocess.Popen[str]) -> None:
    """Wait until a file that a process writes has so many bytes, or the process has ended."""
    while size(path) < wanted and process.poll() is None:
        pass


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let processes end by SIGHUP, which those that `nohup` starts ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@TRIES
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.release),
        pytest.param(signal.SIGHUP, marks=pytest.mark.release),
    ],
)
def test_a_store_whose_making_is_interrupted_works_afterwards(
    tmp_path: Path, number: signal.Signals, tries: int
) -> None:
    halfway = 0
    for index in range(tries):
        folder = tmp_path / str(index)
        folder.mkdir()
        process = start(*QUICK, cwd=folder)
        wait_for_size(folder / NEW, 20_000 + index * (WHOLE - 20_000) // tries, process)
        process.send_signal(number)
        process.communicate(timeout=300)
        if (folder / "mlflow.db").exists():
            assert len(tables(folder / "mlflow.db")) > 50
        else:
            halfway += 1
        assert open_store(folder).search_experiments()
        assert not (folder / NEW).exists()
    assert halfway > tries // 2  # later signals would show nothing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB, of which MLflow's tables need 950."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@TRIES
def test_a_full_disk_leaves_no_store(
    small_disk: Path, tmp_path: Path, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_exp.tracking.store.make_tables", make_tables)
    for index in range((tries + 1) // 2):
        (small_disk / "ballast").write_bytes(b"x" * 60_000 * index)
        done = in_process(*QUICK, f"tracking.uri=sqlite:///{small_disk}/mlflow.db", cwd=tmp_path)
        assert done.returncode == 1
        assert f"tracking.uri=sqlite:///{small_disk}/mlflow.db: cannot be written" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert {path.name for path in small_disk.iterdir()} == {"ballast", ".mlflow.db.lock"}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert open_store(small_disk).search_experiments()


@TRIES
def test_a_file_that_may_not_grow_leaves_no_store(tmp_path: Path, tries: int) -> None:
    for index in range((tries + 1) // 2):
        most = 50_000 + 150_000 * index
        done = subprocess.run(
            [sys.executable, "-m", "mnist_exp", *QUICK],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])},
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "tracking.uri=sqlite:///mlflow.db: cannot be written" in done.stderr
        assert not (tmp_path / "mlflow.db").exists()
        assert not (tmp_path / NEW).exists()
    assert open_store(tmp_path).search_experiments()


def test_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (NEW, f"{NEW}-journal", "mlflow.db", "mlflow.db-journal"):
        (tmp_path / name).touch()  # a killed process leaves these, the first two not empty
    (tmp_path / NEW).write_bytes(b"half a store")
    assert open_store(tmp_path).search_experiments()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store as an older MLflow left it, made by MLflow's own migrations, with a run in it."""
    from alembic import command as alembic
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = utils._get_alembic_config(uri)
        config.attributes["connection"] = connection
        alembic.upgrade(config, OLDER)
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            f"VALUES (1, 'mnist_exp', 'file://{tmp_path}/mlruns/1', 'active')"
        )
        connection.execute(
            "INSERT INTO runs "
            "(run_uuid, name, user_id, experiment_id, status, start_time, lifecycle_stage, artifact_uri) "
            f"VALUES ('old', 'old', 'me', 1, 'FINISHED', 1, 'active', 'file://{tmp_path}/mlruns/1/old/artifacts')"
        )
        connection.commit()
    return tmp_path


OLDER = "0584bdc529eb"  # the tables of MLflow 2.15


def test_an_older_store_is_kept_and_its_upgrade_named(older: Path) -> None:
    before = (older / "mlflow.db").read_bytes()
    done = in_process(*QUICK, cwd=older)
    command = f"mlflow db upgrade sqlite:///{older}/mlflow.db"
    assert done.returncode == 1
    assert done.stderr == (
        "tracking.uri=sqlite:///mlflow.db: was made by another version of MLflow; copy "
        f"{older}/mlflow.db, then type {command}\n"
    )
    assert (older / "mlflow.db").read_bytes() == before
    make_tables(command.split()[-1])  # what that command does
    assert in_process(*QUICK, cwd=older).returncode == 0
    assert [run.info.run_name for run in runs_in(older)] == ["old", " ".join(QUICK)]


def test_a_linked_store_is_made_and_locked_at_its_target(tmp_path: Path) -> None:
    for name in ("shared", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "mlflow.db").symlink_to(tmp_path / "shared" / "mlflow.db")
    assert open_store(tmp_path / "mine").search_experiments()
    assert (tmp_path / "mine" / "mlflow.db").is_symlink()
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("CREATE TABLE albums (name TEXT)")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(InputError, match="holds a database that is not a complete MLflow store"):
        open_store(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == before
