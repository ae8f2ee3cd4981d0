"""Let a store find its artifacts after its project was moved or copied."""

import sqlite3
from contextlib import closing
from pathlib import Path

from mnist_exp.tracking.store import connect_existing, explained, store_error

# MLflow has absolute places of artifacts in these columns of its tables.
_PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def move_artifacts() -> int:
    """Let the store in this folder, which was moved or copied here, find its artifacts here; return how many places.

    They change all at once, or not at all.

    Raises:
        InputError: if there is no such store, or it cannot be used.
    """
    connect_existing("sqlite:///mlflow.db")
    path = Path.cwd() / "mlflow.db"
    new = (path.parent / "mlruns").as_uri()
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            known = connection.execute(
                "SELECT artifact_location FROM experiments JOIN runs USING (experiment_id) JOIN tags USING (run_uuid) "
                "WHERE key = 'mnist_exp.folder' AND artifact_location LIKE 'file:///%/mlruns'"
            )
            roots = {str(place) for (place,) in known if place != new}
            return sum(
                connection.execute(
                    f"UPDATE {table} SET {column} = ?1 || substr({column}, length(?2) + 1) "  # noqa: S608, names from above
                    f"WHERE {column} = ?2 OR substr({column}, 1, length(?2) + 1) = ?2 || '/'",
                    (new, old),
                ).rowcount
                for old in roots
                for table, column in _PLACES.items()
            )
    except sqlite3.Error as error:  # another program has locked it, or it cannot be written
        raise store_error("sqlite:///mlflow.db", explained(error)) from error
