"""Reaching an MLflow store: its address, a database that is whole or not there, and what outages look like."""

import fcntl
import http.client
import logging
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mnist_exp.config import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.redaction import SecretsFilter, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"


def connect(tracking: MLflowTracking) -> tuple["MlflowClient", str]:
    """A client of the store, and the id of the MLflow experiment, which is created where it does not exist yet.

    Raises:
        InputError: if the store cannot be reached or written, or the experiment was deleted.
    """
    with _reached(tracking.uri):
        client = _client(tracking.uri)
        found = client.get_experiment_by_name(tracking.experiment)
        if found is None:
            path = sqlite_path(tracking.uri)
            # Beside the database, wherever that is; a server decides for itself.
            artifacts = (path.parent / "mlruns").as_uri() if path else None
            return client, str(client.create_experiment(tracking.experiment, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment={tracking.experiment}: was deleted in this store; choose another name, or restore it "
            f"with mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return client, str(found.experiment_id)


def connect_existing(uri: str) -> "MlflowClient":
    """A client of a store that holds runs; none is made.

    Raises:
        InputError: if there is no such store, or it cannot be reached.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise InputError(f"tracking.uri={uri}: no such store; run python -m mnist_exp in this folder first")
    with _reached(uri):
        return _client(uri)


def _client(uri: str) -> "MlflowClient":
    _import_mlflow()
    from mlflow import MlflowClient

    try:
        # Absolute, since MLflow keeps a store open by its address, also after a change of the current folder.
        return MlflowClient(f"sqlite:///{path}" if (path := sqlite_path(uri)) else uri)
    except ImportError as error:
        raise _store_error(uri, f"its database driver is not installed ({error})") from error


def _import_mlflow() -> None:
    # An outage is better told soon than waited for: MLflow's own default adds up to minutes a request.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # in which a password would stand
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # for progress bars in a notebook; none are shown
        import mlflow  # noqa: F401

    for name in ("alembic", "mlflow.store.db.utils"):  # they announce each table of a new store
        logging.getLogger(name).setLevel(logging.WARNING)
    for filtered in (logging.getLogger("urllib3.connectionpool"), *logging.getLogger("mlflow").handlers):
        if not any(isinstance(one, SecretsFilter) for one in filtered.filters):
            filtered.addFilter(SecretsFilter())  # they print the address of a server that does not answer


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """What MLflow raises because of the store, as one message."""
    try:
        yield
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":  # which is imported only once it is needed
            raise
        # Without its cause, which a notebook shows and keeps: it has the address with its password.
        raise _store_error(uri, str(error).splitlines()[0]) from None


def page(tracking: MLflowTracking, experiment_id: str, run_id: str) -> str:
    """How to open a run's page: on its server, or on the local one that `mlflow ui` starts.

    The link goes to the run itself; MLflow 3.17 opens an experiment on a page that does not list training runs.
    """
    path = f"#/experiments/{experiment_id}/runs/{run_id}"
    if tracking.uri.startswith(("http://", "https://")):
        return f"{without_secrets(tracking.uri).rstrip('/')}/{path}"
    default = sqlite_path(tracking.uri) == Path.cwd() / "mlflow.db"
    command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {without_secrets(tracking.uri)}"
    return f"{command}, then http://127.0.0.1:5000/{path}"


def check_location(uri: str, location: str | None) -> None:
    """Check where a store says that its artifacts are: what it says is read, written and sent the user's password.

    They are in `mlruns` beside an SQLite database, or in the current folder for any other; on the server; or in a
    cloud's storage.

    Raises:
        InputError: for any other place.
    """
    parts = urlsplit(location or "")
    path = sqlite_path(uri)
    folder = (path.parent if path is not None else Path.cwd()) / "mlruns"
    if location and parts.scheme in ("", "file") and not parts.netloc:
        allowed = Path(unquote(parts.path)).resolve().is_relative_to(folder)
    else:
        allowed = path is None and parts.scheme in _OF_A_SERVER
    if not allowed:
        others = "" if path is not None else f", or one of {', '.join(_OF_A_SERVER)}"
        raise InputError(
            f"tracking.uri={without_secrets(uri)}: keeps artifacts in {location}; must be below {folder}{others}; "
            "another tracking.experiment may be"
        )


_OF_A_SERVER = ("mlflow-artifacts", "s3", "gs", "wasbs", "abfss", "hdfs", "dbfs")


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, absolute and without links; None for any other."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Mark as KILLED what this host's gone processes (kill -9, power cut) left RUNNING."""
    running = f"attributes.status = 'RUNNING' AND tags.mnist_exp.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], running):
        if _has_gone(run.data.tags.get("mnist_exp.process", "")):
            client.set_terminated(run.info.run_id, "KILLED")


def _has_gone(process: str) -> bool:
    """Whether a process of this host, as `process_tag` names it, has ended."""
    return bool(re.match(r"[0-9]{1,9} ", process)) and process != process_tag(int(process.partition(" ")[0]))


def process_tag(pid: int) -> str:
    """A process by number and start, since numbers are used again; without a start if there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
    else:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{pid} started {started}" if started else str(pid)


@contextmanager
def _reached(uri: str) -> Iterator[None]:
    """Fail at once where MLflow would try for minutes; of an SQLite store, prepare the database and hold a lock on it.

    Without the lock, of processes that create the tables at once all but one would fail.

    Raises:
        InputError: if no server answers, or the database cannot be written, made or upgraded.
    """
    path = sqlite_path(uri)
    if path is None:
        _check_server(uri)
        yield
        return
    try:
        lock = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise _store_error(uri, f"cannot be written ({error.strerror})") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _prepare_database(path, uri)
        yield


def _check_server(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(without_secrets(uri), timeout=5).close()  # noqa: S310, http or https by here
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, http.client.HTTPException) as error:
        raise _store_error(uri, f"no MLflow server answers ({error})") from error


def _prepare_database(path: Path, uri: str) -> None:
    """Let MLflow make the database, or upgrade an older one, under another name, and move it into place whole.

    MLflow makes its tables one by one, and a database in which some are missing can never be used again. This way, what
    ends it (Ctrl-C, SIGTERM, kill -9, a full disk) leaves no database, or the one from before. What a killed process
    left under the other name is removed. The one from before an upgrade is kept beside it.

    Raises:
        InputError: if the file holds something else, cannot be written, is of another MLflow and in use, or MLflow
            cannot make or upgrade it.
    """
    new = path.with_name(f".{path.name}.new")
    _remove_database(new)
    exists = _is_there(path)
    try:
        _check_writable(path if exists else new)
        revision = _revision(path) if exists else None
        if exists and revision is None:
            raise _store_error(uri, "holds a database that is no whole MLflow store")
        _import_mlflow()
        from mlflow.db import upgrade
        from mlflow.store.db import utils

        # MLflow 3.14 to 3.17; in public there is only the command that upgrades.
        if exists and revision == utils._get_latest_schema_revision():  # type: ignore[no-untyped-call]
            return
        if exists:
            _refuse_in_use(path, uri)
            with closing(sqlite3.connect(path)) as before, closing(sqlite3.connect(new)) as copy:
                before.backup(copy)
            shutil.copymode(path, new)
        assert upgrade.callback is not None
        upgrade.callback(f"sqlite:///{new}")
        if exists:
            kept = path.with_name(f"{path.name}.{datetime.now():%Y-%m-%d-%H-%M-%S}")
            kept.hardlink_to(path)
            new.replace(path)
            print(f"{path.name} was made by another version of MLflow and is now upgraded; as it was: {kept.name}")
        elif _is_there(path):
            raise _store_error(uri, "was made by another program, such as mlflow ui, just now; type the command again")
        else:
            _remove_database(path)  # an empty file, and a journal that would be applied to the new one
            new.replace(path)
    except InputError:
        raise
    except Exception as error:  # SQLite, SQLAlchemy and Alembic raise their own
        what = "upgraded from another version of MLflow" if exists else "written"
        raise _store_error(uri, f"cannot be {what} ({(str(error).splitlines() or [''])[0]})") from error
    finally:
        _remove_database(new)


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _remove_database(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _check_writable(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def tables(path: Path) -> set[str]:
    """Return the names of the tables in an SQLite file that exists.

    Raises:
        sqlite3.Error: if it is no SQLite file.
    """
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _revision(path: Path) -> str | None:
    """Return which version of MLflow's tables a database has; None if it has none."""
    if not {"alembic_version", "experiments", "runs", "tags"} <= tables(path):
        return None
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _refuse_in_use(path: Path, uri: str) -> None:
    """Refuse to upgrade a database that a run may be writing to.

    Raises:
        InputError: if a run is RUNNING, unless its process was on this host and has gone.
    """
    query = """
        SELECT runs.run_uuid, host.value, process.value FROM runs
        LEFT JOIN tags AS host ON host.run_uuid = runs.run_uuid AND host.key = 'mnist_exp.host'
        LEFT JOIN tags AS process ON process.run_uuid = runs.run_uuid AND process.key = 'mnist_exp.process'
        WHERE runs.status = 'RUNNING'
    """
    with closing(sqlite3.connect(path)) as connection:
        running = connection.execute(query).fetchall()
    alive = [run for run, host, process in running if host != socket.gethostname() or not _has_gone(process or "")]
    if alive:
        raise _store_error(
            uri,
            f"was made by another version of MLflow, and is upgraded only while no run is RUNNING in it, as {alive[0]} "
            f"is; wait for it, or copy {path.name} and type mlflow db upgrade sqlite:///{path}",
        )


def _store_error(uri: str, reason: str) -> InputError:
    return InputError(
        f"tracking.uri={without_secrets(uri)}: {reason}; must be a database file that can be written, such as "
        f"{DEFAULT_URI}, or a running server; tracking=none trains without"
    )
