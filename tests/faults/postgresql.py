"""A PostgreSQL server of the test's own, stopped, killed and started again, with Debian's programs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from pwd import getpwnam
from typing import Any

from mlflow import MlflowClient

from . import outages
from .table import Lacks, Row
from .watched import COMMANDS, Watched, children, epochs, watch

FAULTS = ("killed for 3 s", "killed for good", "stopped for 3 s", "stopped for good")
MOMENTS = ("in training", "at the end")


def missing() -> str:
    """Return why PostgreSQL cannot be used here, or ""."""
    if find_spec("psycopg2") is None:
        return "needs psycopg2-binary"
    if programs() is None:
        return "needs Debian's postgresql"
    if os.geteuid() == 0:
        try:
            getpwnam("postgres")
        except KeyError:
            return "needs the user postgres, since PostgreSQL refuses root"
    return ""


def programs() -> Path | None:
    """Return the folder of the programs of the newest PostgreSQL."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (program := shutil.which("initdb")) is not None:
        return Path(program).parent
    return max(found, key=lambda path: int(path.parent.name), default=None)


class Database:
    """A server on the loopback, its data below a folder, which must be one that its user can reach."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found is not None
        self._programs, self._data, self._log = found, folder / "data", folder / "log"
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        if self._user:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "-U", "tests", "-A", "trust", "-D", str(self._data))
        self.begin()
        # SQLAlchemy 2.1 would take psycopg, the third, where no driver is named.
        self.uri = f"postgresql+psycopg2://tests@127.0.0.1:{self._port}/postgres"

    def begin(self) -> None:
        """Start the server, after a crash too."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._log), "-o", options)

    def kill(self) -> None:
        """End it as a crash does, with all connections."""
        with suppress(subprocess.CalledProcessError, FileNotFoundError):  # it has gone
            self.go_on()
            self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))

    def stop(self) -> None:
        """Stop the server's processes, which then neither answer nor close a connection."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let stopped processes go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        for pid in (postmaster, *children(postmaster)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe, which the server would keep open
            stderr=subprocess.DEVNULL,
            **self._user,
        )


@contextmanager
def database() -> Iterator[Database]:
    """Return a PostgreSQL server, which ends with the block."""
    with tempfile.TemporaryDirectory() as name:
        server = Database(Path(name))
        try:
            yield server
        finally:
            server.kill()


def tries(count: int) -> Iterator[Row]:
    """Take PostgreSQL away in training, and at the end of a run and of a sweep."""
    if reason := missing():
        yield Row(f"outages: PostgreSQL (skipped: {reason})", tries=0)
        return
    with database() as server:
        make_tables(server)
        for number, (fault, moment, typed) in enumerate(islice(product(FAULTS, MOMENTS, ("run", "sweep")), count)):
            yield try_one(server, f"try-{number}", fault, moment, typed)


def make_tables(server: Database) -> None:
    """Let MLflow make its tables, which a person does with its command."""
    subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", server.uri], check=True, capture_output=True, cwd="/"
    )


def try_one(server: Database, experiment: str, fault: str, moment: str, typed: str) -> Row:
    """Run a command, of which the database is taken away, then `sync`, and count what is missing."""
    away, back = (server.kill, server.begin) if fault.startswith("killed") else (server.stop, server.go_on)
    lacks, environment, timers = Lacks(), {"MLFLOW_TRACKING_URI": server.uri}, list[threading.Timer]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def act(_: Watched) -> None:
            away()
            timers.append(threading.Timer(3, back))
            if not fault.endswith("for good"):
                timers[0].start()

        ended = watch(
            *COMMANDS[typed],
            f"tracking.experiment={experiment}",
            cwd=folder,
            moment=lambda _: epochs(folder) > 4 if moment == "in training" else any(folder.rglob("model.keras")),
            act=act,
            environment=environment,
        )
        if timers and timers[0].ident is not None:
            timers[0].join()
        elif timers:
            back()
        outages.judge(ended, lacks)
        client = MlflowClient(server.uri)
        outages.after(folder, client, experiment, lacks, typed, environment)
        return lacks.row(f"outages: PostgreSQL {fault}", f"{moment}, {typed}: exit {ended.code}{outages.shown(ended)}")
