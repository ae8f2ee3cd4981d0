"""Find the model that a run kept, in its folder or in a store."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import shown_address
from mnist_exp.errors import InputError
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import find_run, record_of
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient


def fetch_model(uri: str, name: str, folder: Path) -> Path:
    """Return a model's Keras file, which is downloaded into `folder` unless the run's own folder is here.

    The `name` is an id as for `find_run`, a sweep's for its best job's model, or `models:/NAME@ALIAS` or
    `models:/NAME/VERSION`.

    Raises:
        InputError: if the store has no such run or model, or the run kept none.
    """
    client = store.connect_existing(uri)
    from mlflow.exceptions import MlflowException

    try:
        if name.startswith("models:/"):
            location = client.get_model_version_download_uri(*_registered_version(client, name))
        else:
            run = _kept_run(client, find_run(client, uri, name))
            if (path := _file_here(run)) is not None:
                return path
            location = client.get_logged_model(model_of_run(client, run.run_id)).artifact_location
    except MlflowException as error:
        raise InputError(f"{name}: no such model in {shown_address(uri)} ({store.explained(error)})") from None
    artifacts = store.repository(client.tracking_uri, location)
    try:
        return Path(artifacts.download_artifacts("data/model.keras", str(folder)))
    except Exception as error:  # each kind of storage raises its own
        raise InputError(f"{name}: its model cannot be read ({store.explained(error)})") from None


def _file_here(run: Record) -> Path | None:
    """Return the Keras file of a finished run, if its folder is on this machine and has no other run since."""
    folder = Folder(Path(run.output))
    with suppress(InputError, OSError):
        here = folder.read()
        if (here.id, here.status) == (run.id, "FINISHED") and folder.has_weights():
            return folder.path / "model.keras"
    return None


def _kept_run(client: "MlflowClient", run: Record) -> Record:
    """Return a run, or the best job of a sweep."""
    if not run.is_sweep:
        return run
    if not (best := run.fact("best_run")):
        raise InputError(f"{run.run_id}: is a sweep without a best job ({run.status}); type the id of a job")
    return record_of(client.get_run(best), client)


def model_of_run(client: "MlflowClient", run_id: str) -> str:
    """Return the id of the model that a run kept.

    Raises:
        InputError: if it kept none.
    """
    stored = client.get_run(run_id)
    if stored.outputs is not None and stored.outputs.model_outputs:
        return str(stored.outputs.model_outputs[-1].model_id)
    run = record_of(stored, client)
    if run.status != "FINISHED":
        raise InputError(f"{run_id}: is {run.status} and kept no model")
    raise InputError(
        f"{run_id}: kept no model, as only a sweep's best job does (with tracking.keep=all, every job); type its file "
        f"instead, {Path(run.output) / 'model.keras'} on {run.host}"
    )


def _registered_version(client: "MlflowClient", name: str) -> tuple[str, str]:
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", name)
    if found is None:
        raise InputError(f"{name}: must be models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/digits@champion")
    model, alias, number = found.groups()
    return model, number or str(client.get_model_version_by_alias(model, alias).version)
