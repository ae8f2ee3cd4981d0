"""Save a model in MLflow's format, send it, find it again, and register it."""

import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.config.files import MODEL_FILES, NEW_MODEL, copy_files, remove_files
from mnist_exp.data.datasets import Data
from mnist_exp.data.metadata import write_metadata
from mnist_exp.errors import InputError
from mnist_exp.experiment import package_version
from mnist_exp.text import redact_uri
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import find_run, record_of
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.store import Store, connect_existing, explain, repository

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient


def save_model(model: "keras.Model", data: Data, folder: Folder) -> None:
    """Write a model in MLflow's format for `mirror`.

    Args:
        model: of raw images.
        data: has the example images.
        folder: of the run.
    """
    import mlflow.keras
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = data.x_test[:2]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    path, new = folder.path / "model", folder.path / NEW_MODEL
    for left in (path, new):
        remove_files(left, MODEL_FILES)
    new.mkdir()  # MLflow 3.17.2 makes it only after it writes the example
    mlflow.keras.save_model(
        model,
        str(new),
        mlflow_model=Model(metadata=data.metadata() or None),
        signature=signature,
        input_example=example,
        pip_requirements=[f"{name}=={package_version(name)}" for name in ("keras", "tensorflow", "numpy")],
    )
    write_metadata(new / "data" / "model.keras", data.metadata())
    new.rename(path)  # whole, even if this is interrupted


def send_model(store: Store, folder: Folder, run_id: str) -> None:
    """Send a saved model unless the run has one, and remove the local copy.

    Args:
        store: of the run.
        folder: of the run, with the saved model.
        run_id: in the store.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if not folder.has_model():
        return
    client, experiment_id = store.client, store.experiment_id
    begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        logged = begun[0] if begun else client.create_logged_model(experiment_id, "model", run_id)
        artifacts = repository(client.tracking_uri, logged.artifact_location)
        with TemporaryDirectory() as copies:
            copy_files(folder.path / "model", MODEL_FILES, Path(copies))
            description = Model.load(copies)
            description.artifact_path, description.run_id = logged.artifact_location, run_id
            description.model_id = description.model_uuid = logged.model_id
            description.save(str(Path(copies, "MLmodel")))
            artifacts.log_artifacts(copies)
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    kept = find_model(client, run_id)
    for other in begun:  # a request whose answer was lost made it
        if other.model_id != kept:
            client.delete_logged_model(other.model_id)
    with suppress(OSError):  # a folder that may only be read
        remove_files(folder.path / "model", MODEL_FILES)


def fetch_model(uri: str, name: str, folder: Path) -> Path:
    """Return a model's Keras file, from the run's folder or else downloaded.

    Args:
        uri: of the store.
        name: an id as for `find_run`, a sweep's for its best job's model, `models:/NAME@ALIAS` or
            `models:/NAME/VERSION`.
        folder: for a download.

    Raises:
        InputError: if the store has no such run or model, or the run kept none.
    """
    client = connect_existing(uri)
    from mlflow.exceptions import MlflowException

    try:
        if name.startswith("models:/"):
            location = client.get_model_version_download_uri(*_registered_version(client, name))
        else:
            run = find_run(client, uri, name)
            if run.is_sweep:
                if not (best := run.fact("best_run")):
                    raise InputError(f"{run.run_id}: is a sweep without a best job ({run.status}); use the id of a job")
                run = record_of(client.get_run(best), client)
            if (path := _file_here(run)) is not None:
                return path
            location = client.get_logged_model(find_model(client, run.run_id)).artifact_location
    except MlflowException as error:
        raise InputError(f"{name}: no such model in {redact_uri(uri)} ({explain(error)})") from None
    artifacts = repository(client.tracking_uri, location)
    try:
        return Path(artifacts.download_artifacts("data/model.keras", str(folder)))
    except Exception as error:  # each kind of storage raises its own
        raise InputError(f"{name}: its model cannot be read ({explain(error)})") from None


def _file_here(run: Record) -> Path | None:
    """Return the Keras file of a finished run whose folder here has no later run."""
    folder = Folder(Path(run.output))
    with suppress(InputError, OSError):
        here = folder.read()
        if (here.id, here.status) == (run.id, "FINISHED") and folder.has_weights():
            return folder.path / "model.keras"
    return None


def find_model(client: "MlflowClient", run_id: str) -> str:
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


def register(store: Store, record: Record, run_id: str, best: str) -> str:
    """Register the model of a run, or of a sweep's `best` job, if it has a name.

    The first version gets the alias `champion`; a later one gets it if its objective is better than the champion's, and
    both were measured with the same metric and loss on the same data and validation set.

    Args:
        store: that has the run.
        record: of the run or sweep.
        run_id: of its run in the store.
        best: the id of a sweep's best run there; "" for a single run.

    Returns:
        The outcome as a line, or "" without a name.
    """
    name, chosen = store.settings.register, best if record.is_sweep else run_id
    if name is None or not chosen or record.status != "FINISHED" or "mlflow.parentRunId" in record.tags:
        return ""
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        model_id = find_model(client, chosen)
    except InputError as error:  # its weights are on another machine
        return str(error)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    champion = client.get_registered_model(name).aliases.get("champion")
    before = [model for model in client.search_model_versions(f"name = '{name}'") if model.run_id == chosen]
    if before:
        version = before[0].version
        text = f"Registered before, as models:/{name}/{version}"
        if champion is not None:
            return text
    else:
        version = client.create_model_version(name, f"models:/{model_id}", chosen, model_id=model_id).version
        text = f"Registered as models:/{name}/{version}"
    if champion is None:
        client.set_registered_model_alias(name, "champion", version)
        return f"{text}, which is now the champion"
    new = record_of(client.get_run(chosen), client)
    try:
        old = record_of(client.get_run(str(client.get_model_version(name, champion).run_id)), client)
    except MlflowException:  # registered by hand, or its run was deleted
        old = None
    if old is None or _measure(new) != _measure(old):
        return (
            f"{text}; champion stays version {champion}, whose objective was measured otherwise; if this one is "
            "better, move the alias in mlflow ui"
        )
    value, best_value = new.scores["objective"], old.scores["objective"]
    outcome = f"champion stays version {champion}"
    if value > best_value if new.parameters["direction"] == "maximize" else value < best_value:
        client.set_registered_model_alias(name, "champion", version)
        outcome = "which is now the champion"
    objective = new.parameters["objective"]
    text = f"{text}, {outcome}: {objective} {value:.4f} against {best_value:.4f}"
    if objective.startswith("test_") or new.parameters["dataset.validation"] == "test":
        text += ", MEASURED ON THE TEST SET"
    return text


def _measure(run: Record) -> list[str | None]:
    """Return the facts that comparable objectives share."""
    names = ["objective", "direction", "training.loss", "training.metrics", "dataset.validation"]
    if run.parameters.get("dataset.validation") != "test":  # held out of the training images
        names += ["dataset.seed", "dataset.limit"]
    return [run.digest, *map(run.parameters.get, names)]
