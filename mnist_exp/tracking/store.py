"""Reach an MLflow store, or make one whose database is complete or absent.

Private parts of MLflow 3.15 to 3.17 are used here only.
"""

import http.client
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.text import redact_uri
from mnist_exp.tracking.folder import Folder, Mirrored, relative_path
from mnist_exp.tracking.mlflow_import import import_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_SECONDS_FOR_A_LOCK = 120.0
_OF_A_SERVER = ("mlflow-artifacts", "s3", "gs", "wasbs", "abfss", "hdfs", "dbfs")  # schemes of artifacts
_RAISE_FOR_A_STORE = ("mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "google", "botocore", "azure")


@dataclass(frozen=True)
class Store:
    """An MLflow experiment in a store, as its settings name it."""

    client: "MlflowClient"
    experiment_id: str
    settings: MLflowTracking


def connect(tracking: MLflowTracking) -> Store:
    """Reach a store, and create the MLflow experiment if it is missing.

    Raises:
        InputError: if the store cannot be reached or written, the experiment was deleted, or it keeps artifacts where
            it may not.
    """
    with _connect(tracking.uri):
        client = _client(tracking.uri)
        found = client.get_experiment_by_name(tracking.experiment)
        if found is None:
            path = sqlite_path(tracking.uri)
            # Beside the database; a server decides for itself.
            artifacts = (path.parent / "mlruns").as_uri() if path else None
            created = client.create_experiment(tracking.experiment, artifact_location=artifacts)
            return Store(client, str(created), tracking)
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment={tracking.experiment}: was deleted in this store; choose another name, or restore it "
            f"with mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    _check_location(tracking.uri, found.artifact_location)
    return Store(client, str(found.experiment_id), tracking)


def connect_existing(uri: str) -> "MlflowClient":
    """Return a client of a store that exists.

    Raises:
        InputError: if there is no such store, or it cannot be reached.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        others = "go to the folder of your runs, or type tracking.uri=ADDRESS; python -m mnist_exp makes a store here"
        raise InputError(f"tracking.uri={uri}: no such store; {others}")
    with _connect(uri):
        return _client(uri)


def _client(uri: str) -> "MlflowClient":
    import_mlflow()
    from mlflow import MlflowClient

    path = sqlite_path(uri)
    try:
        # MLflow keeps a store open by its address, also after a change of the current folder, so it is absolute.
        return MlflowClient(f"sqlite:///{path}" if path is not None else uri)
    except ImportError as error:
        raise store_error(uri, f"its database driver is not installed ({error})") from error


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow, and of its clients for stores, into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _RAISE_FOR_A_STORE:  # importing them takes long
            raise
        # A notebook shows and keeps causes, and this one has the address with its password.
        raise store_error(uri, explain(error)) from None


def explain(error: BaseException) -> str:
    """Return the first line of a store's error, or of its cause in a database."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "orig", None) is None:  # SQLAlchemy's have the database's own error
        cause = cause.__cause__ or cause.__context__
    error = error if cause is None else cause.orig  # type: ignore[attr-defined]
    line = (str(error).splitlines() or [type(error).__name__])[0]
    is_plain = isinstance(error, InputError | sqlite3.Error) or type(error).__module__ == "mlflow.exceptions"
    return line if is_plain else f"{type(error).__name__}: {line}"


def add_link(text: str, tracking: MLflowTracking, path: str) -> list[str]:
    """Add a line with a link to a page of the server, or of a local `mlflow ui`.

    Args:
        text: the line before the link.
        tracking: the settings of the store.
        path: of the page, after the address.
    """
    address = redact_uri(tracking.uri)
    if address.startswith(("http://", "https://")):
        return [f"{text}:", f"{address.rstrip('/')}/{path}"]
    command = "mlflow ui" if is_default(tracking.uri) else f"mlflow ui --backend-store-uri {address}"
    return [f"{text}; {command}, then", f"http://127.0.0.1:5000/{path}"]


def repository(uri: str, location: str | None) -> "ArtifactRepository":
    """Return the artifacts at a location that a store names.

    Raises:
        InputError: if it is not on the server, in a cloud's storage, or in `mlruns` beside an SQLite database or, for
            any other store, in the current folder.
    """
    allowed = _check_location(uri, location)
    # In public, artifacts are reached by a run's id, and the store, asked again, could name another location.
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        return get_artifact_repository(allowed, tracking_uri=uri)
    except ImportError as error:
        raise InputError(f"tracking.uri={redact_uri(uri)}: its artifacts need {error.name}; install it") from None


def _check_location(uri: str, location: str | None) -> str:
    path = sqlite_path(uri)
    folder = (path.parent if path is not None else Path.cwd()) / "mlruns"
    if location and _is_allowed(location, uri, folder):
        return location
    others = "" if path is not None else f", or one of {', '.join(_OF_A_SERVER)}"
    moved = "after a project was moved or copied here, type python -m mnist_exp.sync --moved; else "
    raise InputError(
        f"tracking.uri={redact_uri(uri)}: keeps artifacts in {location}; they must be below {folder}{others}; "
        f"{moved if is_default(uri) else ''}type another tracking.experiment"
    )


def _is_allowed(location: str, uri: str, folder: Path) -> bool:
    if set(location) & set("?#;\0"):  # MLflow might read these differently
        return False
    try:
        parts = urlsplit(location)
    except ValueError:  # no address at all
        return False
    if parts.scheme in ("", "file") and not parts.netloc:
        return Path(unquote(parts.path) if parts.scheme else location).resolve().is_relative_to(folder)
    if sqlite_path(uri) is not None or parts.scheme not in _OF_A_SERVER:
        return False
    is_its_own = not parts.netloc or parts.netloc == urlsplit(uri).netloc.rpartition("@")[2]
    return is_its_own or parts.scheme != "mlflow-artifacts"


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute, resolved file of an SQLite store, or None for another."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def is_default(uri: str) -> bool:
    """Return whether an address is that of this folder's default store."""
    return sqlite_path(uri) == Path.cwd() / "mlflow.db"


def shorten_address(uri: str) -> str:
    """Return a store's address without a login, relative in this project's folder."""
    path = sqlite_path(uri)
    return redact_uri(uri) if path is None else f"sqlite:///{relative_path(path)}"


def read_mirrored(folder: Folder, uri: str) -> Mirrored:
    """Return a store's mirror of a folder, tracked from this folder or another."""
    found = {shorten_address(store): mirrored for store, mirrored in folder.mirrors().items()}
    return found.get(shorten_address(uri), Mirrored())


@contextmanager
def _connect(uri: str) -> Iterator[None]:
    """Fail at once for an unreachable store, and hold the lock of a new SQLite store.

    Without the lock, all but one of several processes that make the same store would fail.

    Raises:
        InputError: if no server answers, or a file cannot be written or is not a store of this MLflow.
    """
    path = sqlite_path(uri)
    if path is None:
        _check_server(uri)
        yield
        return
    if not path.parent.is_dir():
        raise store_error(uri, f"cannot be written ({path.parent} is not a folder)")
    if re.search("[?]|%[0-9a-fA-F]{2}", str(path)) or {"'", '"'} <= set(str(path)):
        raise store_error(uri, f"{path} has a ?, a % before two digits or both kinds of quotes, which MLflow misreads")
    import_mlflow()  # takes seconds, in which others may have the lock
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False, fallback_to_soft=False)
    try:
        with lock.acquire(timeout=_SECONDS_FOR_A_LOCK):
            _check_tables(path, uri) if path.exists() and path.stat().st_size else _make(path)
            yield
    except InputError:
        raise
    except Exception as error:  # SQLite, SQLAlchemy, Alembic and filelock raise their own
        raise store_error(uri, f"cannot be written ({explain(error)})") from error


def _make(path: Path) -> None:
    """Make an SQLite store under another name, and move it into place.

    MLflow makes its tables one by one, and never uses a database that lacks some, as Ctrl-C or a full disk could leave.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        _remove_database(new)  # a killed process left it
        make_tables(f"sqlite:///{new}")
        _remove_database(path)  # an empty file, and a journal that would be applied to the new one
        new.replace(path)
    finally:
        _remove_database(new)


def _check_tables(path: Path, uri: str) -> None:
    """Check that a database has all tables of the installed MLflow.

    MLflow would add its own to another database.
    """
    from mlflow.store.db import base_sql_model, utils

    known = tables(path)
    if {"alembic_version", "experiments", "runs", "tags"} <= known:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if found is not None and found[0] != utils._get_latest_schema_revision():
            raise InputError(
                f"tracking.uri={redact_uri(uri)}: was made by another version of MLflow; copy {path}, then type "
                f"mlflow db upgrade sqlite:///{path}"
            )
        if found is not None and base_sql_model.Base.metadata.tables.keys() <= known:
            return
    raise store_error(uri, "holds a database that is not a complete MLflow store")


def _remove_database(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def tables(path: Path) -> set[str]:
    """Return the names of the tables in an SQLite file.

    Raise sqlite3.Error if it is not one.
    """
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def store_error(uri: str, reason: str) -> InputError:
    """Return the error for a store that cannot be used."""
    advice = (
        "must be a database file that can be written, such as sqlite:///mlflow.db, or a running server; tracking=none "
        "trains without a store"
    )
    if re.search(r"\b40[13]\b", reason) and sqlite_path(uri) is None:
        advice = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what this server "
            "knows"
        )
    return InputError(f"tracking.uri={redact_uri(uri)}: {reason}; {advice}")


def _check_server(uri: str) -> None:
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(redact_uri(uri), timeout=10).close()  # noqa: S310, http
        except urllib.error.HTTPError:
            pass  # it answers
        except (OSError, http.client.HTTPException) as error:
            raise store_error(uri, f"no MLflow server answers ({error})") from error


def make_tables(uri: str) -> None:
    """Make MLflow's tables in a new database.

    MLflow's public way is only a command.
    """
    from mlflow.db import upgrade

    assert upgrade.callback is not None
    upgrade.callback(uri)
