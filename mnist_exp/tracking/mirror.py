"""MLflow's run of a folder, made from its files; sending them again changes nothing."""

import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.experiment import package_version
from mnist_exp.learning.datasets import Data
from mnist_exp.learning.metadata import write_metadata
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder, Record, now

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_IN_A_BATCH, _PARAMETERS_IN_A_BATCH = 1000, 100  # the most that MLflow takes
_LONGEST_NAME = 250  # that all of MLflow's databases take


@dataclass
class Sent:
    """What the store is known to have of a folder; `metrics`: in bytes of `metrics.jsonl`."""

    run_id: str
    artifacts: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    parameters: bool = False
    data: bool = False
    metrics: int = 0
    ended: bool = False


def mirror(client: "MlflowClient", experiment_id: str, folder: Folder, sent: Sent | None = None) -> Sent:
    """Send what a folder has and its run has not: tags, parameters, data, metrics; at the end files, model and status.

    Args:
        client: of the store.
        experiment_id: MLflow's, for a new run.
        folder: of a run or a sweep.
        sent: as an earlier call returned it; None to look for the folder's run in the store.

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
            folder.change(end=now())  # only now, for those who ask the store what ended since
        client.set_terminated(sent.run_id, record.status, folder.read().end)
        sent.ended = True
    return sent


def create_run(client: "MlflowClient", experiment_id: str, record: Record) -> Sent:
    """Create the run of a new folder.

    Raises:
        InputError: if the store would keep the run's artifacts elsewhere than its own; the run has then FAILED.
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
    """Return what the store has of a run, as it was just read."""
    ended = run.info.status != "RUNNING"
    return Sent(run.info.run_id, run.info.artifact_uri, dict(run.data.tags), ended=ended)


def _send_values(client: "MlflowClient", folder: Folder, record: Record, sent: Sent) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    if record.data is not None and not sent.data:
        used = DatasetInput(Dataset(**record.data), [InputTag("mlflow.data.context", "training")])
        try:
            client.log_inputs(sent.run_id, [used])
        except MlflowException as error:
            # MLflow looks for a dataset before it adds it, and refuses one of two jobs that do so at once.
            if not re.search("unique|duplicate", str(error), re.IGNORECASE):
                raise
            client.log_inputs(sent.run_id, [used])
        sent.data = True
    tags = {key: value for key, value in record.tags.items() if sent.tags.get(key) != value}
    parameters = [] if sent.parameters else [Param(key, value) for key, value in record.parameters.items()]
    lines, sent_until = folder.measured(sent.metrics)
    metrics: list[Metric] = [
        Metric(name, v, line.time, line.step) for line in lines for name, v in line.metrics.items()
    ]
    if tags:
        client.log_batch(sent.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    for start in range(0, len(parameters), _PARAMETERS_IN_A_BATCH):
        client.log_batch(sent.run_id, params=parameters[start : start + _PARAMETERS_IN_A_BATCH])
    for start in range(0, len(metrics), _METRICS_IN_A_BATCH):
        client.log_batch(sent.run_id, metrics=metrics[start : start + _METRICS_IN_A_BATCH])
    sent.tags, sent.parameters, sent.metrics = dict(record.tags), True, sent_until


def save_model(model: "keras.Model", data: Data, folder: Folder) -> None:
    """Write a model that takes raw images, in MLflow's format, for `mirror` to send."""
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
    new.mkdir()  # before an example is written; MLflow 3.17.2 makes it after that
    mlflow.keras.save_model(
        model,
        str(new),
        mlflow_model=Model(metadata=data.metadata() or None),
        signature=signature,
        input_example=example,
        pip_requirements=[f"{name}=={package_version(name)}" for name in ("keras", "tensorflow", "numpy")],
    )
    write_metadata(new / "data" / "model.keras", data.metadata())
    new.rename(path)  # whole, in case this is interrupted


def _send_model(client: "MlflowClient", experiment_id: str, folder: Folder, run_id: str) -> None:
    """Send the model that `save_model` wrote, once; the folder keeps no second copy of the weights."""
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
    """Return whether a run has a model; its figures were sent before it."""
    return run.outputs is not None and bool(run.outputs.model_outputs)
