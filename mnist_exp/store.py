"""Reaching an MLflow store: its address, its first use by several processes at once, and what outages look like."""

import fcntl
import http.client
import logging
import os
import re
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from mnist_exp.config import MLflowTracking
from mnist_exp.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"


def connect(tracking: MLflowTracking) -> tuple["MlflowClient", str]:
    """A client of the store, and the id of the MLflow experiment, which is created where it does not exist yet.

    Raises:
        InputError: if the store cannot be reached or written, or the experiment was deleted.
    """
    _check_store(tracking.uri)
    with _one_process_at_a_time(tracking.uri):
        client = _client(tracking.uri)
        found = client.get_experiment_by_name(tracking.experiment)
        if found is None:
            path = sqlite_path(tracking.uri)
            # Beside the database, wherever that is; a server decides for itself.
            artifacts = (path.resolve().parent / "mlruns").as_uri() if path else None
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
    _check_store(uri)
    with _one_process_at_a_time(uri):
        return _client(uri)


def _client(uri: str) -> "MlflowClient":
    # An outage is better told soon than waited for: MLflow's own default adds up to minutes a request.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # in which a password would stand
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # for progress bars in a notebook; none are shown
        from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):  # they announce each table of a new store
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        # Absolute, since MLflow keeps a store open by its address, also after a change of the current folder.
        return MlflowClient(f"sqlite:///{path}" if (path := sqlite_path(uri)) else uri)
    except ImportError as error:
        raise _store_error(uri, f"its database driver is not installed ({error})") from error


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """What MLflow raises because of the store, as one message."""
    try:
        yield
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":  # which is imported only once it is needed
            raise
        raise _store_error(uri, str(error).splitlines()[0]) from error


def without_credentials(uri: str) -> str:
    """An address without user name and password.

    >>> without_credentials("https://me:secret@host/mlflow")
    'https://host/mlflow'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def page(tracking: MLflowTracking, experiment_id: str, run_id: str) -> str:
    """How to open a run's page: on its server, or on the local one that `mlflow ui` starts.

    The link goes to the run itself; MLflow 3.17 opens an experiment on a page that does not list training runs.
    """
    path = f"#/experiments/{experiment_id}/runs/{run_id}"
    if tracking.uri.startswith(("http://", "https://")):
        return f"{without_credentials(tracking.uri).rstrip('/')}/{path}"
    default = sqlite_path(tracking.uri) == Path.cwd() / "mlflow.db"
    command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {without_credentials(tracking.uri)}"
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
    folder = (path.resolve().parent if path is not None else Path.cwd()) / "mlruns"
    if location and parts.scheme in ("", "file") and not parts.netloc:
        allowed = Path(unquote(parts.path)).resolve().is_relative_to(folder)
    else:
        allowed = path is None and parts.scheme in _OF_A_SERVER
    if not allowed:
        others = "" if path is not None else f", or one of {', '.join(_OF_A_SERVER)}"
        raise InputError(
            f"tracking.uri={without_credentials(uri)}: keeps artifacts in {location}; must be below {folder}{others}; "
            "another tracking.experiment may be"
        )


_OF_A_SERVER = ("mlflow-artifacts", "s3", "gs", "wasbs", "abfss", "hdfs", "dbfs")


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, absolute; None for any other."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Mark as KILLED what this host's gone processes (kill -9, power cut) left RUNNING."""
    running = f"attributes.status = 'RUNNING' AND tags.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], running):
        process = run.data.tags.get("process", "")
        if re.match(r"[0-9]{1,9} ", process) and process != process_tag(int(process.partition(" ")[0])):
            client.set_terminated(run.info.run_id, "KILLED")


def process_tag(pid: int) -> str:
    """A process by number and start, since numbers are used again; without a start if there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
    else:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{pid} started {started}" if started else str(pid)


def _check_store(uri: str) -> None:
    """Fail at once where MLflow would try for minutes: a server that is not there, a database that is not writable."""
    path = sqlite_path(uri)
    if path is not None:
        try:
            connection = sqlite3.connect(path, timeout=30)
            connection.execute("BEGIN IMMEDIATE").connection.rollback()
            connection.close()
        except sqlite3.Error as error:
            raise _store_error(uri, f"cannot be written ({error})") from error
    elif uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(without_credentials(uri), timeout=5).close()  # noqa: S310, http or https by here
        except urllib.error.HTTPError:
            return  # it answers
        except (OSError, http.client.HTTPException) as error:
            raise _store_error(uri, f"no MLflow server answers ({error})") from error


def _store_error(uri: str, reason: str) -> InputError:
    return InputError(
        f"tracking.uri={without_credentials(uri)}: {reason}; must be a database file that can be written, such as "
        f"{DEFAULT_URI}, or a running server; tracking=none trains without"
    )


@contextmanager
def _one_process_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock beside an SQLite store: of processes that create its tables at once, all but one would fail."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
