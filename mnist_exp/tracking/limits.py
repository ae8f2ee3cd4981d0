"""Leave a store that does not answer, and let Ctrl-C end the wait for one."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mnist_exp import signals

SECONDS = 30.0  # for a statement of a database
SECONDS_OF_A_SERVER = 10.0  # for its first answer
_SECONDS_FOR_A_LOCK = 120.0
_INSTRUCTIONS = 100_000  # of SQLite's machine, some milliseconds
_LONGEST = 100_000_000  # bytes of a value, which a store may compute

_limited: set[str] = set()  # databases, by path
_late: set[str] = set()  # those that took too long


class Connection(sqlite3.Connection):
    """A connection that interrupts a statement after `SECONDS`.

    While a statement runs, Python's signal handlers wait for it, but for those that run here. SQLite turns their
    exceptions into its own error, "interrupted".
    """

    def __init__(self, database: str, *arguments: Any, **options: Any) -> None:
        super().__init__(database, *arguments, **options)
        self._database = str(database)
        self._begin()
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        self.set_progress_handler(self._is_late, _INSTRUCTIONS)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor for a statement that begins now."""
        self._begin()
        return super().cursor(*arguments, **options)

    def execute(self, *arguments: Any) -> Any:
        """Run a statement that begins now."""
        self._begin()
        return super().execute(*arguments)

    def _begin(self) -> None:
        self._end = time.monotonic() + SECONDS
        _late.discard(self._database)

    def _is_late(self) -> bool:
        late = time.monotonic() > self._end
        if late:
            _late.add(self._database)
        return late


def limit_engines(database: str) -> None:
    """Let SQLAlchemy reach an SQLite file, by its absolute path, by such connections only."""
    from sqlalchemy import Engine, event

    if not event.contains(Engine, "do_connect", _connect):
        event.listen(Engine, "do_connect", _connect)
    _limited.add(database)


def _connect(dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    if dialect.name == "sqlite" and arguments and arguments[0] in _limited:
        options.setdefault("factory", Connection)
    elif dialect.name == "postgresql":  # by default, it waits for minutes
        options.setdefault("connect_timeout", 10)


def is_of_a_store(error: Exception) -> bool:
    """Return whether an error is one of MLflow's, or was raised inside its stores by something unexpected in them."""
    if type(error).__module__ == "mlflow.exceptions":  # importing it takes long
        return True
    frames = (str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__))
    return any(name.startswith(("mlflow.store.", "mlflow.tracking.")) for name in frames)


def explained(error: Exception) -> str:
    """Return the first line of a store's error, with its class unless it is one of MLflow's or SQLite's.

    Raises:
        BaseException: that of the signal which interrupted the statement, if one did.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    of_sqlite = isinstance(error, sqlite3.Error)
    if "(sqlite3.OperationalError) interrupted" not in line and not (of_sqlite and line == "interrupted"):
        known = of_sqlite or type(error).__module__ == "mlflow.exceptions"
        return line if known else f"{type(error).__name__}: {line}"
    if _late:
        _late.clear()
        return f"did not answer for {SECONDS:.0f} seconds"
    signals.raise_if_received()
    raise KeyboardInterrupt  # in a program that has its own handlers


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, which is made if it is missing.

    Raises:
        OSError: if it cannot be made, or another process holds it for two minutes.
    """
    from filelock import lock_descriptor

    with path.open("a+") as lock:  # which, unlike "w", does not wait for the other end of a pipe
        end = time.monotonic() + _SECONDS_FOR_A_LOCK
        while not lock_descriptor(lock.fileno(), blocking=False):
            if time.monotonic() > end:
                raise TimeoutError(f"another program holds {path}")
            time.sleep(0.05)
        yield


def first_answer(ask: Callable[[], object]) -> None:
    """Call a function that asks a server, in a thread; raise its exception, or TimeoutError after ten seconds.

    A server that sends a byte now and then would never meet the timeout of a socket.
    """
    raised: list[Exception] = []

    def asked() -> None:
        try:
            ask()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=asked, daemon=True)
    thread.start()
    thread.join(SECONDS_OF_A_SERVER)
    if thread.is_alive():
        raise TimeoutError(f"no whole answer in {SECONDS_OF_A_SERVER:.0f} seconds")
    if raised:
        raise raised[0]
