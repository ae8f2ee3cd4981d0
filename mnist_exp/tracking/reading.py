"""What a store has of runs and models, read for the commands beside a run."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.presets import parse_values, read_text
from mnist_exp.config.redaction import shown_address
from mnist_exp.errors import InputError
from mnist_exp.tracking import store
from mnist_exp.tracking.job import Job, job_of, short_ids

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


REUSED = "mnist_exp.reused."  # a tag of a sweep for each run of before that it counts among its jobs
_NAMED = 6  # runs that a message lists
_TOGETHER = 500  # ids in a search, of which SQLite and MLflow's parser take no more than some thousands


@dataclass(frozen=True)
class Recorded:
    """A run as the store has it.

    `run_id`: all of it. `experiment`: MLflow's, by name. `name` and `status`: the run's. `config`: as config.yaml holds
    it, unchecked. `metrics`: by name and step. `tags`: all. `digest`: of its data.
    """

    run_id: str
    experiment: str
    name: str
    status: str
    config: dict[str, Any]
    metrics: dict[tuple[str, int], float]
    tags: dict[str, str]
    digest: str


def find_run(client: "MlflowClient", uri: str, run_id: str) -> "Run":
    """Return the run that has this id, or the only one in the store whose id begins with it.

    Args:
        client: of the store.
        uri: the store's address, as typed.
        run_id: of a run or a sweep, also shortened.

    Raises:
        InputError: if there is none, or there are several, of which it names six at most.
    """
    found: list[Run] = []
    if re.fullmatch("[0-9a-f]{1,32}", run_id):
        experiments = [experiment.experiment_id for experiment in client.search_experiments(max_results=50_000)]
        begins = f"attributes.run_id LIKE '{run_id}%'"
        found = list(client.search_runs(experiments, begins, max_results=_NAMED + 1))
    if not found:
        raise InputError(f"{run_id}: no such run in {shown_address(uri)}; python -m mnist_exp.compare lists the ids")
    if len(found) > 1:
        names = short_ids(sorted(run.info.run_id for run in found)).values()
        more = ", and more" if len(found) > _NAMED else ""
        raise InputError(f"{run_id}: is the beginning of several ids; type one of {', '.join([*names][:_NAMED])}{more}")
    return found[0]


def queries_of(run: "Run") -> list[str]:
    """Return the searches, in MLflow's syntax, that find a run; of a sweep its jobs, with those of before it reuses."""
    if "mnist_exp.sweep" not in run.data.tags:
        return [f"attributes.run_id = '{run.info.run_id}'"]
    reused = [tag.removeprefix(REUSED) for tag in run.data.tags if re.fullmatch(f"{REUSED}[0-9a-f]+", tag)]
    groups = [reused[start : start + _TOGETHER] for start in range(0, len(reused), _TOGETHER)]
    listed = [", ".join(f"'{one}'" for one in group) for group in groups]
    return [
        f"tags.`mlflow.parentRunId` = '{run.info.run_id}'",
        *(f"attributes.run_id IN ({ids})" for ids in listed),
    ]


def fetch_run(uri: str, run_id: str) -> Recorded:
    """Read a run from the store.

    Args:
        uri: of the store.
        run_id: as for `find_run`.

    Raises:
        InputError: if the store has no such run, or the run no configuration.
    """
    client = store.connect_existing(uri)
    run = find_run(client, uri, run_id)
    run_id = str(run.info.run_id)
    if "mnist_exp.sweep" in run.data.tags:
        best = run.data.tags.get("mnist_exp.best_run")
        raise InputError(f"{run_id}: is a sweep; type the id of a job{f', such as the best, {best}' if best else ''}")
    config = parse_values(read_config(client, run), f"{run_id}: its config.yaml")
    return Recorded(
        run_id=run_id,
        experiment=client.get_experiment(run.info.experiment_id).name,
        name=str(run.info.run_name),
        status=run.info.status,
        config=config,
        metrics={
            (name, point.step): point.value
            for name in run.data.metrics
            for point in client.get_metric_history(run_id, name)
        },
        tags=dict(run.data.tags),
        digest=data_digest(run),
    )


def find_sweep(client: "MlflowClient", uri: str, run_id: str) -> "Run":
    """Return the parent run of a sweep.

    The arguments are those of `find_run`.

    Raises:
        InputError: as `find_run` does, or if the run is no sweep.
    """
    run = find_run(client, uri, run_id)
    if "mnist_exp.sweep" not in run.data.tags:
        parent = run.data.tags.get("mlflow.parentRunId")
        raise InputError(f"{run_id}: is no sweep{f'; it is a job of the sweep {parent}' if parent else ''}")
    return run


def read_config(client: "MlflowClient", run: "Run") -> str:
    """Return the text of a run's config.yaml.

    Raises:
        InputError: if it cannot be read, or would be from elsewhere than the store.
    """
    artifacts = store.repository(client.tracking_uri, run.info.artifact_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return read_text(Path(artifacts.download_artifacts("config.yaml", folder)))
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"{run.info.run_id}: its config.yaml cannot be read ({_first_line(error)})") from None


def read_artifacts(client: "MlflowClient", run: "Run", names: Sequence[str]) -> dict[str, bytes]:
    """Return those of a run's artifacts that it has, by name.

    Raises:
        InputError: if one cannot be read, or would be from elsewhere than the store.
    """
    artifacts = store.repository(client.tracking_uri, run.info.artifact_uri)
    folders = dict.fromkeys(name.rpartition("/")[0] or None for name in names)
    with tempfile.TemporaryDirectory() as folder:
        try:
            there = {item.path for one in folders for item in artifacts.list_artifacts(one)}
            found = {name: artifacts.download_artifacts(name, folder) for name in names if name in there}
            return {name: Path(path).read_bytes() for name, path in found.items()}
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"{run.info.run_id}: its artifacts cannot be read ({_first_line(error)})") from None


def data_digest(run: "Run") -> str:
    """Return the digest of the data that a run has recorded; empty where it has none."""
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    return str(inputs[0].dataset.digest) if inputs else ""


def fetch_model(uri: str, name: str, folder: Path) -> Path:
    """Download the Keras file of a run's model, or of one in the registry.

    Args:
        uri: of the store.
        name: as for `find_run`, of a sweep for its best job; or `models:/NAME@ALIAS`, `models:/NAME/VERSION`.
        folder: where to.

    Raises:
        InputError: if the store has no such run or model, or the run kept none.
    """
    client = store.connect_existing(uri)
    from mlflow.exceptions import MlflowException

    run_id = None if name.startswith("models:/") else str(find_run(client, uri, name).info.run_id)
    try:
        if run_id is None:
            location = client.get_model_version_download_uri(*_registered_version(client, name))
        else:
            location = client.get_logged_model(model_of_run(client, run_id)).artifact_location
    except MlflowException as error:
        raise InputError(f"{name}: no such model in {shown_address(uri)} ({_first_line(error)})") from None
    artifacts = store.repository(client.tracking_uri, location)
    try:
        return Path(artifacts.download_artifacts("data/model.keras", str(folder)))
    except Exception as error:  # each kind of storage raises its own
        raise InputError(f"{name}: its model cannot be read ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def model_of_run(client: "MlflowClient", run_id: str) -> str:
    """Return the id of the model that a run kept, of a sweep that of its best job.

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


def curve(client: "MlflowClient", run_id: str, metric: str) -> list[float]:
    """Return a metric of a run, a value an epoch."""
    return [point.value for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)]


def search(
    client: "MlflowClient", experiment_id: str, query: str, order: str = "attributes.start_time ASC"
) -> Iterator["Run"]:
    """Return all runs that fulfil a query in MLflow's search syntax, however many."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=[order], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def recorded_job(run: "Run") -> Job:
    """Return a job as its run has recorded it."""
    return job_of(run.data.tags, run.data.metrics, run.info.status, run.info.run_id)


def is_over(client: "MlflowClient", run_id: str) -> bool:
    """Return whether a run has ended."""
    return bool(client.get_run(run_id).info.status != "RUNNING")


def newest_finished(client: "MlflowClient", experiment_id: str, signature: str) -> Job | None:
    """Return the newest run that has finished what `signature` stands for, if any; one that was pruned has not."""
    query = f"tags.mnist_exp.signature = '{signature}' AND attributes.status = 'FINISHED'"
    found = map(recorded_job, search(client, experiment_id, query, "attributes.start_time DESC"))
    return next((job for job in found if job.is_whole), None)
