"""A store that cannot be used is left, with the reason that its database or its file gives."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from mnist_exp import run
from mnist_exp.errors import InputError
from mnist_exp.tracking import store
from mnist_exp.tracking.store import connect_existing, make_tables

from ..conftest import QUICK, in_process


def test_store_that_another_process_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SECONDS_FOR_A_LOCK", 0)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    make_tables(uri)
    with (
        FileLock(tmp_path / ".mlflow.db.lock"),
        pytest.raises(InputError, match=r"cannot be written \(Timeout: The file lock .*\.lock' could not be acquired"),
    ):
        connect_existing(uri)


def test_refusal_of_the_database_is_shown_in_its_words(tmp_path: Path) -> None:
    assert run(*QUICK, "training.epochs=1").run_id is not None
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON params BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        database.commit()
    done = in_process(*QUICK, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("tracking.uri=sqlite:///mlflow.db: database or disk is full; ")
