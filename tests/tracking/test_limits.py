"""A store that does not answer is left, and Ctrl-C ends the wait for one."""

import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.tracking import limits
from mnist_exp.tracking.store import connect, connect_existing, make_tables, store_errors

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """An empty store."""
    make_tables(f"sqlite:///{tmp_path}/mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def alter(uri: str, *statements: str) -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def make_experiment(uri: str) -> None:
    """Write into a store, whose trigger never ends."""
    query = f"({ENDLESS} count(*) FROM c)"
    set_name = f"UPDATE experiments SET name = {query} WHERE experiment_id = new.experiment_id"
    alter(uri, f"CREATE TRIGGER endless AFTER INSERT ON experiments BEGIN {set_name}; END")
    tracking = compose([f"tracking.uri={uri}"]).config.tracking
    assert isinstance(tracking, MLflowTracking)
    with store_errors(uri):
        connect(tracking)


@pytest.mark.parametrize("table", ["runs", "latest_metrics", "experiments"])
def test_a_view_in_place_of_a_table_is_refused_before_it_is_read(uri: str, table: str) -> None:
    alter(
        uri,
        f"ALTER TABLE {table} RENAME TO before",
        f"CREATE VIEW {table} AS {ENDLESS} before.* FROM before, c",
    )
    with pytest.raises(InputError, match="holds a database that is not a complete MLflow store"):
        connect_existing(uri)


def test_a_statement_that_does_not_end_is_left(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 1)
    with pytest.raises(InputError, match=f"tracking.uri={uri}: did not answer for 1 seconds"):
        make_experiment(uri)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], int]]:
    """Sends a signal in a few seconds, as Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield partial(signal.alarm, 3)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_ctrl_c_ends_a_statement(uri: str, ctrl_c: Callable[[], int]) -> None:
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        make_experiment(uri)


@pytest.fixture
def tarpit() -> Iterator[str]:
    """The address of a server that never sends more than the beginning of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def answer() -> None:
            with listening.accept()[0] as asked:
                while not over.wait(0.05):
                    asked.send(b"H")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.fast
def test_a_server_that_sends_a_byte_now_and_then_is_left(tarpit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS_OF_A_SERVER", 0.5)
    with pytest.raises(InputError, match=r"no MLflow server answers \(no whole answer"):
        connect_existing(tarpit)


def test_a_lock_that_another_process_holds_is_left(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SECONDS_FOR_A_LOCK", 0)
    path = Path(uri.removeprefix("sqlite:///"))
    with (
        limits.locked(path.with_name(".mlflow.db.lock")),
        pytest.raises(InputError, match=r"another program holds .*\.lock"),
    ):
        connect_existing(uri)
