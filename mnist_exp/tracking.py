"""The only module that talks to MLflow: one run's start, its metrics, its files and its end."""

import getpass
import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_exp import __version__, store
from mnist_exp.config import Config, MLflowTracking, objective_direction
from mnist_exp.datasets import Data
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Experiment, code_digest, experiment_signature, package_version, package_versions
from mnist_exp.keras_names import show
from mnist_exp.presets import parse_values, read_text
from mnist_exp.ranking import job_name
from mnist_exp.redaction import traceback_text, without_secrets

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as RecordedRun

_SECONDS_BETWEEN_BATCHES = 2.0
_SECONDS_BETWEEN_BATCHES_AT_MOST = 30.0
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

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record what was measured at the end."""

    def log_model(self, model: "keras.Model", data: Data) -> None:
        """Record the model, which takes raw images."""

    def log_failure(self, reason: str) -> None:
        """Record why the run failed, in a line."""

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""

    def describe(self) -> str:
        """Where to look at the run, for the terminal."""
        return f"Files in {self._experiment.output}"


@contextmanager
def start(experiment: Experiment, together: int = 1) -> Iterator[Run]:
    """Record an experiment from its start to its end; `together`: how many jobs train as one program with it.

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
    with store.store_errors(tracking.uri):
        client, experiment_id = store.connect(tracking)
        if experiment.child is None:
            store.close_abandoned(client, experiment_id)
        run_id = create_run(client, experiment_id, experiment, tracking, together)
        check_artifacts(client, run_id)
        with _ended(MLflowRun(client, run_id, experiment_id, experiment, together), experiment.output) as run:
            yield run


@contextmanager
def _ended(run: Run, output: Path) -> Iterator[Run]:
    """Close the run with the status that fits how the block ends."""
    try:
        yield run
        run.close("FINISHED")
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        log.error("%s", status, exc_info=error, extra={"output": output})
        if status == "FAILED":
            (output / "error.txt").write_text(traceback_text(error))
        try:
            if status == "FAILED":
                run.log_failure(failure_reason(error))
            run.close(status)
        except Exception as second:  # the first error is the one to show
            print(f"{run.describe()} could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
            print(f"Its files are in {output}", file=sys.stderr)
        raise


class MLflowRun(Run):
    """A run in an MLflow store."""

    id: str

    def __init__(
        self, client: "MlflowClient", run_id: str, experiment_id: str, experiment: Experiment, together: int
    ) -> None:
        super().__init__(experiment)
        assert isinstance(experiment.config.tracking, MLflowTracking)
        self._tracking = experiment.config.tracking
        self.id = run_id
        self._client = client
        self._experiment_id = experiment_id
        self._registered = ""
        self._pending: list[Metric] = []
        self._seconds_between_batches = min(_SECONDS_BETWEEN_BATCHES * together, _SECONDS_BETWEEN_BATCHES_AT_MOST)
        self._next_batch = time.monotonic() + self._seconds_between_batches

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
        self._client.log_batch(self.id, tags=[RunTag("mnist_exp.signature", signature)])

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
            child = self._experiment.child
            over = child is not None and is_over(self._client, child.parent)
        except MlflowException as error:
            over = False
            output = self._experiment.output
            log.warning(
                "the store does not answer, metrics are kept back: %s", failure_reason(error), extra={"output": output}
            )
            self._next_batch = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE
        if over:  # by Ctrl-C or SIGTERM, which reached the sweep but not this process
            raise SystemExit(143)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record what was measured at the end, at step 0."""
        self._add(scores, step=0)
        self._send()

    def log_model(self, model: "keras.Model", data: Data) -> None:
        """Record the model, with a signature and an input example."""
        log_model(self._client, self._experiment_id, self.id, model, data)
        if self._tracking.register is not None and self._experiment.child is None:
            self._registered = register(self._client, self._tracking.register, self.id)

    def log_failure(self, reason: str) -> None:
        """Record why the run failed, as the tag `mnist_exp.error`."""
        self._client.set_tag(self.id, "mnist_exp.error", reason)

    def close(self, status: str) -> None:
        """Record the output folder's configuration, figures, log and error, and end the run."""
        self._send()
        log_files(self._client, self.id, self._experiment.output)
        self._client.set_terminated(self.id, status)
        if status != "FINISHED" and self._experiment.child is None:
            # A progress bar may have left the cursor in the middle of a line.
            print(f"{os.linesep if sys.stdout.isatty() else ''}Run {self.id} is {status}", file=sys.stderr)

    def describe(self) -> str:
        """The run's page: on its server, or on the local one that `mlflow ui` starts."""
        page = store.page(self._tracking, self._experiment_id, self.id)
        where = printable(f"Run {self.id} in experiment {self._tracking.experiment}; {page}")
        return f"{self._registered}\n{where}" if self._registered else where

    def _add(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, value, now, step) for name, value in metrics.items()]

    def _send(self) -> None:
        for start in range(0, len(self._pending), _METRICS_IN_A_BATCH):
            self._client.log_batch(self.id, metrics=self._pending[start : start + _METRICS_IN_A_BATCH])
        self._pending = []
        self._next_batch = time.monotonic() + self._seconds_between_batches


def check_artifacts(client: "MlflowClient", run_id: str) -> None:
    """End a new run as FAILED whose artifacts would go elsewhere than the store's do.

    Raises:
        InputError: if so.
    """
    try:
        store.check_location(client.tracking_uri, client.get_run(run_id).info.artifact_uri)
    except InputError:
        client.set_terminated(run_id, "FAILED")
        raise


def is_over(client: "MlflowClient", run_id: str) -> bool:
    """Whether a run has ended."""
    return bool(client.get_run(run_id).info.status != "RUNNING")


def log_files(client: "MlflowClient", run_id: str, output: Path) -> None:
    """Record an output folder's configuration, log, error and figures."""
    texts = [path for name in ("config.yaml", "error.txt", "run.log") if (path := output / name).is_file()]
    for path in [*texts, *sorted(output.glob("figures/*.png"))]:
        client.log_artifact(run_id, str(path), None if path.parent == output else path.parent.name)


def failure_reason(error: BaseException) -> str:
    """Return the first line of an error, for tables; of an exception that is no bad input, with its class."""
    lines = without_secrets(str(error)).splitlines() or [""]
    return lines[0][:300] if isinstance(error, InputError) else f"{type(error).__name__}: {lines[0]}"[:300]


def log_model(client: "MlflowClient", experiment_id: str, run_id: str, model: "keras.Model", data: Data) -> None:
    """Record a model that takes raw images as the run's.

    What `mlflow.keras.log_model` does, which fails with an input example in MLflow 3.17.2: it writes the example
    before the folder exists, here it does.
    """
    import mlflow.keras
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = data.x_test[:2]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    logged = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    store.check_location(client.tracking_uri, client.get_logged_model(logged.model_id).artifact_location)
    description = Model(
        artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    with tempfile.TemporaryDirectory() as folder:
        mlflow.keras.save_model(
            model,
            folder,
            mlflow_model=description,
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={package_version(name)}" for name in ("keras", "tensorflow", "numpy")],
        )
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


@dataclass(frozen=True)
class Recorded:
    """A run as the store has it.

    `experiment`: MLflow's, by name. `name` and `status`: the run's. `config`: as config.yaml holds it, unchecked.
    `metrics`: name to step to value. `tags`: all. `digest`: of its data.
    """

    experiment: str
    name: str
    status: str
    config: dict[str, Any]
    metrics: dict[str, dict[int, float]]
    tags: dict[str, str]
    digest: str


def fetch_run(uri: str, run_id: str) -> Recorded:
    """Read a run from the store.

    Raises:
        InputError: if the store has no such run, or the run no configuration.
    """
    client = store.connect_existing(uri)
    from mlflow.exceptions import MlflowException

    where = without_secrets(uri)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(f"{run_id}: not in {where} ({_first_line(error)})") from None
    if "mnist_exp.sweep" in run.data.tags:
        best = run.data.tags.get("mnist_exp.best_run")
        raise InputError(f"{run_id}: is a sweep; name one of its jobs{f', the best is {best}' if best else ''}")
    store.check_location(uri, run.info.artifact_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = read_text(Path(client.download_artifacts(run_id, "config.yaml", folder)))
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"{run_id}: its config.yaml cannot be read ({_first_line(error)})") from None
    config = parse_values(text, f"{run_id}: its config.yaml")
    return Recorded(
        experiment=client.get_experiment(run.info.experiment_id).name,
        name=str(run.info.run_name),
        status=run.info.status,
        config=config,
        metrics={
            name: {point.step: point.value for point in client.get_metric_history(run_id, name)}
            for name in run.data.metrics
        },
        tags=dict(run.data.tags),
        digest=data_digest(run),
    )


def data_digest(run: "RecordedRun") -> str:
    """The digest of the data that a run has recorded; empty where it has none."""
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    return str(inputs[0].dataset.digest) if inputs else ""


def fetch_model(uri: str, name: str, folder: Path) -> Path:
    """Download the Keras file of a run's model, or of one in the registry.

    Args:
        uri: of the store.
        name: a run's id, of a sweep for its best job; or `models:/NAME@ALIAS`, `models:/NAME/VERSION`.
        folder: where to.

    Raises:
        InputError: if the store has no such run or model, or the run kept none.
    """
    client = store.connect_existing(uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        if name.startswith("models:/"):
            location = client.get_model_version_download_uri(*_registered_version(client, name))
        else:
            location = client.get_logged_model(_model_of_run(client, name)).artifact_location
    except MlflowException as error:
        where = without_secrets(uri)
        raise InputError(f"{name}: not in {where} ({_first_line(error)})") from None
    store.check_location(uri, location)
    file = f"{location}/data/model.keras"
    try:
        return Path(download_artifacts(file, dst_path=str(folder), tracking_uri=client.tracking_uri))
    except Exception as error:  # each kind of storage raises its own
        raise InputError(f"{name}: its model cannot be read ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _model_of_run(client: "MlflowClient", run_id: str) -> str:
    run = client.get_run(run_id)
    if "mnist_exp.sweep" in run.data.tags:
        if "mnist_exp.best_run" not in run.data.tags:
            raise InputError(f"{run_id}: is a sweep, {run.info.status} and without a best job; name one of its jobs")
        run = client.get_run(run.data.tags["mnist_exp.best_run"])
    if run.outputs is not None and run.outputs.model_outputs:
        return str(run.outputs.model_outputs[-1].model_id)
    if run.info.status != "FINISHED":
        raise InputError(f"{run_id}: is {run.info.status} and kept no model")
    file = Path(run.data.tags.get("mnist_exp.output", "")) / "model.keras"
    raise InputError(
        f"{run_id}: kept no model, which of a sweep's jobs the best alone does, or with tracking.keep=all each; its "
        f"weights are in {file} on {run.data.tags.get('mnist_exp.host')}, a file that can be named instead"
    )


def _registered_version(client: "MlflowClient", name: str) -> tuple[str, str]:
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", name)
    if found is None:
        raise InputError(f"{name}: must be models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/digits@champion")
    model, alias, number = found.groups()
    return model, number or str(client.get_model_version_by_alias(model, alias).version)


def register(client: "MlflowClient", name: str, run_id: str) -> str:
    """Put a run's model into MLflow's registry, once, as a new version of the model `name`; the outcome as a line.

    A model without a version of the alias `champion` gets it; later ones get it if their objective is better than the
    champion's and was measured alike: the same metric and loss, on the same data and validation set.
    """
    from mlflow.exceptions import MlflowException

    model_id = _model_of_run(client, run_id)
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
        return f"{text}, now its champion, as it had none"
    new = client.get_run(run_id)
    try:
        old = client.get_run(str(client.get_model_version(name, champion).run_id))
    except MlflowException:  # registered by hand, or its run was deleted
        old = None
    if old is None or _measure(new) != _measure(old):
        return (
            f"{text}; champion stays version {champion}, whose objective was measured otherwise; where this one is "
            "better, move the alias in mlflow ui"
        )
    objective, value, best = new.data.params["objective"], new.data.metrics["objective"], old.data.metrics["objective"]
    better = value > best if new.data.params["direction"] == "maximize" else value < best
    if better:
        client.set_registered_model_alias(name, "champion", version)
    on_test_set = objective.startswith("test_") or new.data.params["dataset.validation"] == "test"
    return (
        f"{text}, {'now its champion' if better else f'champion stays version {champion}'}: {objective} "
        f"{value:.4f} against {best:.4f}{', MEASURED ON THE TEST SET' if on_test_set else ''}"
    )


def _measure(run: "RecordedRun") -> list[str | None]:
    """What makes two objectives comparable."""
    names = ["objective", "direction", "training.loss", "training.metrics", "dataset.validation"]
    if run.data.params.get("dataset.validation") != "test":  # held out of the training images
        names += ["dataset.seed", "dataset.limit"]
    return [data_digest(run), *map(run.data.params.get, names)]


def recorded_config(config: Config) -> dict[str, Any]:
    """The configuration as `config.yaml` holds it: everything but a password in the store's address."""
    values = asdict(config)
    if "uri" in values["tracking"]:
        values["tracking"]["uri"] = without_secrets(values["tracking"]["uri"])
    return values


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


def create_run(
    client: "MlflowClient", experiment_id: str, experiment: Experiment, tracking: MLflowTracking, together: int
) -> str:
    """Open a run with its tags and parameters; a sweep's job below its parent, named by what varies.

    `together`: how many jobs train as one program with it; more than one is a tag.
    """
    from mlflow.entities import Param

    name = tracking.run_name or " ".join(experiment.overrides) or "baseline"
    tags = process_tags(tracking) | {
        "mnist_exp.overrides": " ".join(experiment.overrides),
        "mnist_exp.output": str(experiment.output),
    }
    if experiment.child is not None:
        values = experiment.child.values
        name = job_name(values, values) or name
        tags |= {"mlflow.parentRunId": experiment.child.parent, "mnist_exp.swept": json.dumps(values)}
    if together > 1:
        tags["mnist_exp.trained_together"] = str(together)
    run = client.create_run(experiment_id, tags=tags, run_name=name[:250])  # as long as MLflow's databases take
    recorded = recorded_config(experiment.config) | {"direction": objective_direction(experiment.config)}
    values = {key: value for key, value in recorded.items() if key not in ("tracking", "resume")}
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in flatten(values).items()])
    return str(run.info.run_id)


def process_tags(tracking: MLflowTracking) -> dict[str, str]:
    """The tags of every run that this process opens: where it runs, which code, and what the user adds."""
    tags = {
        "mnist_exp.host": socket.gethostname(),
        "mnist_exp.process": store.process_tag(os.getpid()),
        **environment_tags(),
        "mlflow.source.name": "mnist_exp",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **_git_tags(),
        **{key: show(value) for key, value in (tracking.tags or {}).items()},
    }
    return tags if tracking.note is None else tags | {"mlflow.note.content": tracking.note}


def environment_tags() -> dict[str, str]:
    """What, beside configuration and data, decides whether a run repeats: packages, machine, threads, and the code.

    `threads`: those that one operation computes with. `code`: a digest of the source that can change a result.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS") if backend == "tensorflow" else None
    packages = {**package_versions(backend), "mnist_exp": __version__, "python": platform.python_version()}
    return {
        "mnist_exp.packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
        "mnist_exp.machine": f"{platform.system()} {platform.machine()}, {_processor()}",
        "mnist_exp.threads": threads or str(os.cpu_count()),
        "mnist_exp.code": code_digest(),
    }


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


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


def _tensor_spec(array: npt.NDArray[Any]) -> str:
    spec = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
    return json.dumps([{"type": "tensor", "tensor-spec": spec}])
