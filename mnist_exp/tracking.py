"""The only module that talks to MLflow: one run's start, its metrics, its files and its end."""

import fcntl
import getpass
import hashlib
import http.client
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from mnist_exp import __version__
from mnist_exp.composition import Experiment
from mnist_exp.config import Config, MLflowTracking
from mnist_exp.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.keras_names import show

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Metric

DEFAULT_URI = "sqlite:///mlflow.db"
_SECONDS_BETWEEN_BATCHES = 2.0
_SECONDS_AFTER_AN_OUTAGE = 60.0
_METRICS_IN_A_BATCH = 1000  # the most that MLflow takes

log = logging.getLogger(__name__)


class Run:
    """What is recorded of one experiment: with `tracking=none`, nothing beyond its output folder."""

    id: str | None = None

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def log_data(self, data: Data) -> None:
        """Record which images were used."""

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, counted from 1."""

    def log_result(self, scores: Mapping[str, float], model: "keras.Model", data: Data) -> None:
        """Record the final scores and the model that takes raw images."""

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""

    def describe(self) -> str:
        """Where to look at the run, for the terminal."""
        return f"Files in {self._experiment.output}"


@contextmanager
def start(experiment: Experiment) -> Iterator[Run]:
    """Record an experiment from its start to its end.

    The run ends FINISHED, FAILED after an exception (with the traceback as `error.txt`), or KILLED after Ctrl-C or
    SIGTERM.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    tracking = experiment.config.tracking
    if not isinstance(tracking, MLflowTracking):
        with _ended(Run(experiment), experiment.output) as untracked:
            yield untracked
        return
    with _store_errors(tracking.uri), _ended(_open(experiment, tracking), experiment.output) as run:
        yield run


@contextmanager
def _ended(run: Run, output: Path) -> Iterator[Run]:
    """Close the run with the status that fits how the block ends."""
    try:
        yield run
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        log.error("%s", status, exc_info=error)
        if status == "FAILED":
            (output / "error.txt").write_text("".join(traceback.format_exception(error)))
        try:
            run.close(status)
        except Exception as second:  # the first error is the one to show
            print(f"{run.describe()} could not be closed as {status}: {second}", file=sys.stderr)
            print(f"Its files are in {output}", file=sys.stderr)
        raise
    run.close("FINISHED")


class MLflowRun(Run):
    """A run in an MLflow store."""

    id: str

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str, experiment: Experiment) -> None:
        super().__init__(experiment)
        assert isinstance(experiment.config.tracking, MLflowTracking)
        self._tracking = experiment.config.tracking
        self.id = run_id
        self._client = client
        self._experiment_id = experiment_id
        self._pending: list[Metric] = []
        self._next_batch = time.monotonic() + _SECONDS_BETWEEN_BATCHES

    def log_data(self, data: Data) -> None:
        """Record the dataset as an input of the run, and the signature, which includes its digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag

        schema = {"mlflow_tensorspec": {"features": _tensor_spec(data.x_train), "targets": _tensor_spec(data.y_train)}}
        profile = {"training": len(data.x_train), "validation": len(data.x_validation), "test": len(data.x_test)}
        dataset = Dataset(
            name=data.name,
            digest=data.digest,
            source_type="local",
            source=json.dumps({"uri": data.source}),
            schema=json.dumps(schema),
            profile=json.dumps(profile),
        )
        self._client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        signature = experiment_signature(self._experiment.config, data.digest)
        self._client.log_batch(self.id, tags=[RunTag("signature", signature)])

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, several epochs at a time where they are short.

        A store that does not answer does not end the training: what it did not take is sent again later.
        """
        from mlflow.exceptions import MlflowException

        self._add(metrics, epoch)
        if time.monotonic() < self._next_batch:
            return
        try:
            self._send()
        except MlflowException as error:
            log.warning("the store does not answer, metrics are kept back: %s", error)
            self._next_batch = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE

    def log_result(self, scores: Mapping[str, float], model: "keras.Model", data: Data) -> None:
        """Record the final scores, at step 0, and the model."""
        self._add(scores, step=0)
        self._send()
        self._log_model(model, data)

    def close(self, status: str) -> None:
        """Record the output folder's configuration, figures, log and error, and end the run."""
        self._send()
        output = self._experiment.output
        texts = [path for name in ("config.yaml", "error.txt", "run.log") if (path := output / name).is_file()]
        for path in [*texts, *sorted(output.glob("figures/*.png"))]:
            self._client.log_artifact(self.id, str(path), None if path.parent == output else path.parent.name)
        self._client.set_terminated(self.id, status)
        if status != "FINISHED":
            # A progress bar may have left the cursor in the middle of a line.
            print(f"{os.linesep if sys.stdout.isatty() else ''}Run {self.id} is {status}", file=sys.stderr)

    def describe(self) -> str:
        """The run's page: on its server, or on the local one that `mlflow ui` starts.

        The link goes to the run itself; MLflow 3.17 opens an experiment on a page that does not list training runs.
        """
        uri = self._tracking.uri
        page = f"#/experiments/{self._experiment_id}/runs/{self.id}"
        start = f"Run {self.id} in experiment {self._tracking.experiment}"
        if uri.startswith(("http://", "https://")):
            return f"{start}; {without_credentials(uri).rstrip('/')}/{page}"
        command = "mlflow ui" if uri == DEFAULT_URI else f"mlflow ui --backend-store-uri {without_credentials(uri)}"
        return f"{start}; {command}, then http://127.0.0.1:5000/{page}"

    def _add(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, value, now, step) for name, value in metrics.items()]

    def _send(self) -> None:
        for start in range(0, len(self._pending), _METRICS_IN_A_BATCH):
            self._client.log_batch(self.id, metrics=self._pending[start : start + _METRICS_IN_A_BATCH])
        self._pending = []
        self._next_batch = time.monotonic() + _SECONDS_BETWEEN_BATCHES

    def _log_model(self, model: "keras.Model", data: Data) -> None:
        """What `mlflow.keras.log_model` does, which fails with an input example in MLflow 3.17.2: it writes the example
        before the folder exists, here it does."""
        import mlflow.keras
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        example = data.x_test[:2]
        signature = ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
        )
        logged = self._client.create_logged_model(self._experiment_id, name="model", source_run_id=self.id)
        description = Model(
            artifact_path=logged.artifact_location, run_id=self.id, model_uuid=logged.model_id, model_id=logged.model_id
        )
        with tempfile.TemporaryDirectory() as folder:
            mlflow.keras.save_model(
                model,
                folder,
                mlflow_model=description,
                signature=signature,
                input_example=example,
                pip_requirements=[f"{name}=={version(name)}" for name in ("keras", "tensorflow", "numpy")],
            )
            self._client.log_model_artifacts(logged.model_id, folder)
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.id, [LoggedModelOutput(logged.model_id, step=0)])


def experiment_signature(config: Config, data_digest: str) -> str:
    """What makes two experiments the same: configuration without tracking, data and package version; hexadecimal."""
    values = {key: value for key, value in asdict(config).items() if key != "tracking"}
    content = json.dumps([values, data_digest, __version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def recorded_config(config: Config) -> dict[str, Any]:
    """The configuration as `config.yaml` holds it: everything but a password in the store's address."""
    values = asdict(config)
    if "uri" in values["tracking"]:
        values["tracking"]["uri"] = without_credentials(values["tracking"]["uri"])
    return values


def without_credentials(uri: str) -> str:
    """An address without user name and password.

    >>> without_credentials("https://me:secret@host/mlflow")
    'https://host/mlflow'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested maps as MLflow parameters, keys joined by dots, values as one would type them.

    >>> flatten({"model": {"hidden": [128, 64], "dropout": None}})
    {'model.hidden': '[128, 64]', 'model.dropout': 'null'}
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = show(value)
    return flat


def _open(experiment: Experiment, tracking: MLflowTracking) -> MLflowRun:
    """Create the run, and the store and MLflow experiment where they do not exist yet."""
    _check_store(tracking.uri)
    # An outage is better told soon than waited for: MLflow's own default adds up to minutes a request.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):  # they announce each table of a new store
        logging.getLogger(name).setLevel(logging.WARNING)
    with _one_process_at_a_time(tracking.uri):
        try:
            client = MlflowClient(tracking.uri)
        except ImportError as error:
            raise _store_error(tracking.uri, f"its database driver is not installed ({error})") from error
        experiment_id = _experiment_id(client, tracking)
    _close_abandoned(client, experiment_id)
    return MLflowRun(client, _create_run(client, experiment_id, experiment, tracking), experiment_id, experiment)


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """What MLflow raises because of the store, as one message."""
    try:
        yield
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":  # which is imported only once it is needed
            raise
        raise _store_error(uri, str(error).splitlines()[0]) from error


def _create_run(client: "MlflowClient", experiment_id: str, experiment: Experiment, tracking: MLflowTracking) -> str:
    from mlflow.entities import Param

    tags = {
        "host": socket.gethostname(),
        "process": _process_tag(os.getpid()),
        "overrides": " ".join(experiment.overrides),
        "mlflow.source.name": "mnist_exp",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **_git_tags(),
        **{key: show(value) for key, value in (tracking.tags or {}).items()},
    }
    if tracking.note is not None:
        tags["mlflow.note.content"] = tracking.note
    name = tracking.run_name or " ".join(experiment.overrides) or "baseline"
    run = client.create_run(experiment_id, tags=tags, run_name=name[:250])  # as long as MLflow's databases take
    values = {key: value for key, value in recorded_config(experiment.config).items() if key != "tracking"}
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in flatten(values).items()])
    return str(run.info.run_id)


def _experiment_id(client: "MlflowClient", tracking: MLflowTracking) -> str:
    found = client.get_experiment_by_name(tracking.experiment)
    if found is None:
        path = _sqlite_path(tracking.uri)
        # Beside the database, wherever that is; a server decides for itself.
        artifacts = (path.resolve().parent / "mlruns").as_uri() if path else None
        return str(client.create_experiment(tracking.experiment, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment={tracking.experiment}: was deleted in this store; choose another name, or restore it "
            f"with mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Mark as KILLED what this host's gone processes (kill -9, power cut) left RUNNING."""
    running = f"attributes.status = 'RUNNING' AND tags.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], running):
        process = run.data.tags.get("process", "")
        if process.partition(" ")[0].isdigit() and process != _process_tag(int(process.partition(" ")[0])):
            client.set_terminated(run.info.run_id, "KILLED")


def _process_tag(pid: int) -> str:
    """A process by number and start, since numbers are used again; without a start if there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
    else:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{pid} started {started}" if started else str(pid)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _git_tags() -> dict[str, str]:
    """The commit of the code that runs, with -dirty where it was changed since; none outside a git checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return {}
    return {"mlflow.source.git.commit": found.stdout.strip()} if found.returncode == 0 else {}


def _check_store(uri: str) -> None:
    """Fail at once where MLflow would try for minutes: a server that is not there, a database that is not writable."""
    path = _sqlite_path(uri)
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


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _one_process_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock beside an SQLite store: of processes that create its tables at once, all but one would fail."""
    path = _sqlite_path(uri)
    if path is None:
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tensor_spec(array: npt.NDArray[Any]) -> str:
    spec = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
    return json.dumps([{"type": "tensor", "tensor-spec": spec}])
