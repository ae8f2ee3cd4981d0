"""Mirror a folder as a run of MLflow, idempotently; its model can be registered."""

import re
import shutil
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.experiment import package_version
from mnist_exp.learning.datasets import Data
from mnist_exp.learning.metadata import write_metadata
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder, Record, now
from mnist_exp.tracking.reading import PROFILE, data_digest, model_of_run, search

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_IN_A_BATCH, _PARAMETERS_IN_A_BATCH = 1000, 100  # the most that MLflow takes
_LONGEST_NAME = 250  # that all of MLflow's databases take


@dataclass
class Sent:
    """What the store is known to have of a folder; `metrics` counts bytes of `metrics.jsonl`."""

    run_id: str
    artifacts: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    parameters: bool = False
    data: bool = False
    metrics: int = 0
    ended: bool = False


def mirror(client: "MlflowClient", experiment_id: str, folder: Folder, sent: Sent | None = None) -> Sent:
    """Send the tags, parameters, data and metrics that a run lacks; if it ended, its files, model and status too.

    `sent` is what an earlier call returned; without it, the store is searched for the folder's run, which is created if
    it is missing.

    Raises:
        InputError: if the store keeps the run's artifacts where it may not.
    """
    record, ends_now = folder.read(), sent is not None and not sent.ended
    if sent is None:
        found = client.search_runs([experiment_id], f"tags.mnist_exp.folder = '{record.id}'", max_results=1)
        sent = known_run(found[0]) if found else create_run(client, experiment_id, record)
    _send_values(client, folder, record, sent)
    if record.status != "RUNNING":
        artifacts = store.repository(client.tracking_uri, sent.artifacts)
        for path in folder.files():
            artifacts.log_artifact(str(path), None if path.parent == folder.path else path.parent.name)
        if record.status == "FINISHED":
            _send_model(client, experiment_id, folder, sent.run_id)
        if ends_now:
            folder.change(end=now())  # only now, as sweeps ask the store which runs ended since
        client.set_terminated(sent.run_id, record.status, folder.read().end)
        sent.ended = True
    return sent


def create_run(client: "MlflowClient", experiment_id: str, record: Record) -> Sent:
    """Create the run of a new folder.

    Raises:
        InputError: if the store would keep the run's artifacts where it may not; the run has then FAILED.
    """
    tags = record.tags | {"mnist_exp.folder": record.id}
    run = client.create_run(experiment_id, record.start, tags, record.name[:_LONGEST_NAME])
    try:
        store.repository(client.tracking_uri, run.info.artifact_uri)
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    return known_run(run)


def known_run(run: "Run") -> Sent:
    """Return what the store has of a run that was just read."""
    ended = run.info.status != "RUNNING"
    return Sent(run.info.run_id, run.info.artifact_uri, dict(run.data.tags), ended=ended)


def reopen_sweep(client: "MlflowClient", experiment_id: str, record: Record) -> tuple[Record, Sent] | None:
    """Make the last sweep with this record's signature RUNNING again, in this process, unless it may still run.

    Return its record and what the store has of it, or None if there is no such sweep.
    """
    query = f"tags.mnist_exp.sweep = '{record.tags['mnist_exp.sweep']}'"
    found = client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"], max_results=1)
    if not found or found[0].info.status == "RUNNING":
        return None
    before = found[0]
    left = f"tags.mlflow.parentRunId = '{before.info.run_id}' AND attributes.status = 'RUNNING'"
    for job in search(client, experiment_id, left):
        # On this host, `close_abandoned` knows which still run.
        if job.data.tags.get("mnist_exp.host") != socket.gethostname():
            client.set_terminated(job.info.run_id, "KILLED")
    own = ("mnist_exp.host", "mnist_exp.process")
    for name in own:  # first, or another command would close the RUNNING sweep, whose old process has gone
        client.set_tag(before.info.run_id, name, record.tags[name])
    client.update_run(before.info.run_id, status="RUNNING")
    sent = replace(known_run(before), ended=False)
    new = {*own, "mlflow.source.git.commit", "mnist_exp.packages", "mnist_exp.machine", "mnist_exp.threads"}
    tags = record.tags | {key: sent.tags[key] for key in (sent.tags.keys() & record.tags.keys()) - new}
    folder_id = sent.tags.get("mnist_exp.folder", record.id)
    return replace(record, id=folder_id, name=before.info.run_name, start=before.info.start_time, tags=tags), sent


def _send_values(client: "MlflowClient", folder: Folder, record: Record, sent: Sent) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    if record.data is not None and not sent.data:
        used = DatasetInput(
            Dataset(**record.data),
            [InputTag("mlflow.data.context", "training"), InputTag(PROFILE, record.data.get("profile", ""))],
        )
        try:
            client.log_inputs(sent.run_id, [used])
        except MlflowException as error:
            # MLflow refuses one of two jobs that add a dataset at once.
            if not re.search("unique|duplicate", str(error), re.IGNORECASE):
                raise
            client.log_inputs(sent.run_id, [used])
        sent.data = True
    tags = {key: value for key, value in record.tags.items() if sent.tags.get(key) != value}
    parameters = [] if sent.parameters else [Param(key, value) for key, value in record.parameters.items()]
    lines, sent_until = folder.measured(sent.metrics)
    metrics: list[Metric] = [Metric(key, v, line.time, line.step) for line in lines for key, v in line.metrics.items()]
    if tags:
        client.log_batch(sent.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    for start in range(0, len(parameters), _PARAMETERS_IN_A_BATCH):
        client.log_batch(sent.run_id, params=parameters[start : start + _PARAMETERS_IN_A_BATCH])
    for start in range(0, len(metrics), _METRICS_IN_A_BATCH):
        client.log_batch(sent.run_id, metrics=metrics[start : start + _METRICS_IN_A_BATCH])
    sent.tags, sent.parameters, sent.metrics = dict(record.tags), True, sent_until


def save_model(model: "keras.Model", data: Data, folder: Folder) -> None:
    """Write a model, which takes raw images, in MLflow's format for `mirror`."""
    import mlflow.keras
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = data.x_test[:2]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    path, new = folder.path / "model", folder.path / ".model.new"
    for left in (path, new):
        shutil.rmtree(left, ignore_errors=True)
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


def _send_model(client: "MlflowClient", experiment_id: str, folder: Folder, run_id: str) -> None:
    """Send the model that `save_model` wrote, unless the run has one, and remove this second copy of the weights."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    path = folder.path / "model"
    if not path.is_dir():
        return
    if not has_model(client.get_run(run_id)):
        begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        logged = begun[0] if begun else client.create_logged_model(experiment_id, "model", run_id)
        artifacts = store.repository(client.tracking_uri, logged.artifact_location)
        description = Model.load(str(path))
        description.artifact_path, description.run_id = logged.artifact_location, run_id
        description.model_id = description.model_uuid = logged.model_id
        description.save(str(path / "MLmodel"))
        artifacts.log_artifacts(str(path))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    shutil.rmtree(path)


def has_model(run: "Run") -> bool:
    """Return whether a run has a model, and so its figures, which are sent before."""
    return run.outputs is not None and bool(run.outputs.model_outputs)


def register(client: "MlflowClient", name: str, run_id: str) -> str:
    """Register a run's model as a new version of `name`, unless it is one, and return the outcome as a line.

    The first version gets the alias `champion`; a later one gets it if its objective is better than the champion's, and
    both were measured with the same metric and loss on the same data and validation set.
    """
    from mlflow.exceptions import MlflowException

    model_id = model_of_run(client, run_id)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.run_id == run_id:
            return f"Registered before, as models:/{name}/{known.version}"
    version = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id).version
    text = f"Registered as models:/{name}/{version}"
    champion = client.get_registered_model(name).aliases.get("champion")
    if champion is None:
        client.set_registered_model_alias(name, "champion", version)
        return f"{text}, which is now the champion"
    new = client.get_run(run_id)
    try:
        old = client.get_run(str(client.get_model_version(name, champion).run_id))
    except MlflowException:  # registered by hand, or its run was deleted
        old = None
    if old is None or _measure(new) != _measure(old):
        return (
            f"{text}; champion stays version {champion}, whose objective was measured otherwise; if this one is "
            "better, move the alias in mlflow ui"
        )
    objective, value, best = new.data.params["objective"], new.data.metrics["objective"], old.data.metrics["objective"]
    if better := value > best if new.data.params["direction"] == "maximize" else value < best:
        client.set_registered_model_alias(name, "champion", version)
    on_test_set = objective.startswith("test_") or new.data.params["dataset.validation"] == "test"
    return (
        f"{text}, {'which is now the champion' if better else f'champion stays version {champion}'}: {objective} "
        f"{value:.4f} against {best:.4f}{', MEASURED ON THE TEST SET' if on_test_set else ''}"
    )


def _measure(run: "Run") -> list[str | None]:
    """Return the facts that comparable objectives share."""
    names = ["objective", "direction", "training.loss", "training.metrics", "dataset.validation"]
    if run.data.params.get("dataset.validation") != "test":  # held out of the training images
        names += ["dataset.seed", "dataset.limit"]
    return [data_digest(run), *map(run.data.params.get, names)]
