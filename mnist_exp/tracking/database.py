"""An MLflow store in an SQLite file: whole or not there, whatever ends the process that makes or upgrades it."""

import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from mnist_exp.config.redaction import shown_address
from mnist_exp.errors import InputError
from mnist_exp.tracking.mlflow_api import import_mlflow, make_tables, newest_revision
from mnist_exp.tracking.processes import has_gone


def prepare_database(path: Path, uri: str) -> None:
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
            raise store_error(uri, "holds a database that is not a complete MLflow store")
        import_mlflow()
        if exists and revision == newest_revision():
            return
        if exists:
            _refuse_in_use(path, uri)
            with closing(sqlite3.connect(path)) as before, closing(sqlite3.connect(new)) as copy:
                before.backup(copy)
            shutil.copymode(path, new)
        make_tables(f"sqlite:///{new}")
        if exists:
            kept = path.with_name(f"{path.name}.{datetime.now():%Y-%m-%d-%H-%M-%S}")
            kept.hardlink_to(path)
            new.replace(path)
            print(f"{path.name} was made by another version of MLflow and is now upgraded; the old file is {kept.name}")
        elif _is_there(path):
            raise store_error(uri, "was made by another program, such as mlflow ui, just now; type the command again")
        else:
            _remove_database(path)  # an empty file, and a journal that would be applied to the new one
            new.replace(path)
    except InputError:
        raise
    except Exception as error:  # SQLite, SQLAlchemy and Alembic raise their own
        what = "upgraded from another version of MLflow" if exists else "written"
        raise store_error(uri, f"cannot be {what} ({(str(error).splitlines() or [''])[0]})") from error
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
    alive = [run for run, host, process in running if not has_gone(host, process)]
    if alive:
        raise store_error(
            uri,
            f"was made by another version of MLflow and cannot be upgraded while run {alive[0]} is RUNNING in it; wait "
            f"for its end, or copy {path.name} and type mlflow db upgrade sqlite:///{path}",
        )


def store_error(uri: str, reason: str) -> InputError:
    """Return what a store that cannot be used is: its address, without secrets, and what would be right."""
    return InputError(
        f"tracking.uri={shown_address(uri)}: {reason}; must be a database file that can be written, such as "
        "sqlite:///mlflow.db, or a running server; tracking=none trains without a store"
    )
