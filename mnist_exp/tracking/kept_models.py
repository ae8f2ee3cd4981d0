"""Find the model that a run kept, in its folder or in a store."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import shown_address
from mnist_exp.errors import InputError
from mnist_exp.tracking import limits, store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import find_run, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient


def model_file(uri: str, run_id: str) -> Path | None:
    """Return the Keras file of a run, or of a sweep's best job, given by its whole id, in the run's own folder.

    It is None unless the run has finished, and store and folder are on this machine. MLflow, which takes seconds to
    import, is not needed.
    """
    database = store.sqlite_path(uri)
    if database is None or not database.is_file() or not re.fullmatch("[0-9a-f]{32}", run_id):
        return None
    query = "SELECT key, value FROM tags JOIN runs USING (run_uuid) WHERE run_uuid = ? AND lifecycle_stage = 'active'"
    try:
        if not {"runs", "tags"} <= store.tables(database):
            return None
        with closing(sqlite3.connect(database, factory=limits.Connection)) as connection:
            tags = dict(connection.execute(query, (run_id,)))
            if "mnist_exp.sweep" in tags:
                run_id = str(tags.get("mnist_exp.best_run"))
                tags = dict(connection.execute(query, (run_id,)))
    except sqlite3.Error:
        return None
    folder = Folder(Path(str(tags.get("mnist_exp.output", ""))))
    if not folder.has_weights():
        return None
    try:
        status, mirrored = folder.read().status, folder.mirrored()
    except InputError:
        return None
    if mirrored is None or mirrored.run_id != run_id:
        return None  # another run has taken the folder
    return folder.path / "model.keras" if status == "FINISHED" else None


def fetch_model(uri: str, name: str, folder: Path) -> Path:
    """Return a model's Keras file, which is downloaded into `folder` unless the run's own folder is here.

    The `name` is an id as for `find_run`, a sweep's for its best job's model, or `models:/NAME@ALIAS` or
    `models:/NAME/VERSION`.

    Raises:
        InputError: if the store has no such run or model, or the run kept none.
    """
    if (path := model_file(uri, name)) is not None:
        return path
    client = store.connect_existing(uri)
    from mlflow.exceptions import MlflowException

    run_id = None if name.startswith("models:/") else str(find_run(client, uri, name).run_id)
    if run_id is not None and (path := model_file(uri, run_id)) is not None:
        return path
    try:
        if run_id is None:
            location = client.get_model_version_download_uri(*_registered_version(client, name))
        else:
            location = client.get_logged_model(model_of_run(client, run_id)).artifact_location
    except MlflowException as error:
        raise InputError(f"{name}: no such model in {shown_address(uri)} ({first_line(error)})") from None
    artifacts = store.repository(client.tracking_uri, location)
    try:
        return Path(artifacts.download_artifacts("data/model.keras", str(folder)))
    except Exception as error:  # each kind of storage raises its own
        raise InputError(f"{name}: its model cannot be read ({first_line(error)})") from None


def model_of_run(client: "MlflowClient", run_id: str) -> str:
    """Return the id of the model that a run, or the best job of a sweep, kept.

    Raises:
        InputError: if it kept none.
    """
    run = client.get_run(run_id)
    if "mnist_exp.sweep" in run.data.tags:
        if "mnist_exp.best_run" not in run.data.tags:
            raise InputError(f"{run_id}: is a sweep without a best job ({run.info.status}); type the id of a job")
        run = client.get_run(run.data.tags["mnist_exp.best_run"])
    if run.outputs is not None and run.outputs.model_outputs:
        return str(run.outputs.model_outputs[-1].model_id)
    if run.info.status != "FINISHED":
        raise InputError(f"{run_id}: is {run.info.status} and kept no model")
    file = Path(run.data.tags.get("mnist_exp.output", "")) / "model.keras"
    raise InputError(
        f"{run_id}: kept no model, as only a sweep's best job does (with tracking.keep=all, every job); type its file "
        f"instead, {file} on {run.data.tags.get('mnist_exp.host')}"
    )


def _registered_version(client: "MlflowClient", name: str) -> tuple[str, str]:
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", name)
    if found is None:
        raise InputError(f"{name}: must be models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/digits@champion")
    model, alias, number = found.groups()
    return model, number or str(client.get_model_version_by_alias(model, alias).version)
