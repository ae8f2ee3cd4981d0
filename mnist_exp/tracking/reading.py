"""Read runs from a store."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.files import read_text
from mnist_exp.config.presets import parse_values
from mnist_exp.config.redaction import shown_address
from mnist_exp.errors import InputError
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.job import REUSED, Job, make_job, short_ids, swept_values
from mnist_exp.tracking.job_folders import id_in_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# The tag for a run's own profile: to all runs of an experiment with the same data, MLflow gives that of the first.
PROFILE = "mnist_exp.profile"
_IDS_IN_A_MESSAGE = 6
_IDS_IN_A_SEARCH = 500  # SQLite and MLflow's parser take some thousands at most


@dataclass(frozen=True)
class Recorded:
    """A run as the store has it.

    `experiment` is the name of MLflow's. `config` is the unchecked content of config.yaml, `metrics` are by name and
    step, and `digest` is the data's.
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
    """Return the only run or sweep of the store whose id begins with `run_id`.

    Raises:
        InputError: if there is none, or more than one; it names six at most.
    """
    found: list[Run] = []
    if re.fullmatch("[0-9a-f]{1,32}", run_id):
        experiments = [experiment.experiment_id for experiment in client.search_experiments(max_results=50_000)]
        begins = f"attributes.run_id LIKE '{run_id}%'"
        found = list(client.search_runs(experiments, begins, max_results=_IDS_IN_A_MESSAGE + 1))
    if not found:
        raise InputError(f"{run_id}: no such run in {shown_address(uri)}; python -m mnist_exp.compare lists the ids")
    if len(found) > 1:
        names = short_ids(sorted(run.info.run_id for run in found)).values()
        more = ", and more" if len(found) > _IDS_IN_A_MESSAGE else ""
        raise InputError(
            f"{run_id}: is the beginning of several ids; type one of {', '.join([*names][:_IDS_IN_A_MESSAGE])}{more}"
        )
    return _checked(found[0])


def _checked(run: "Run") -> "Run":
    """Return a run without the tags and parameters that are no text, which only an altered store has.

    Raises:
        InputError: if its id, status or start is of a wrong type.
    """
    kinds = {"run_id": str, "status": str, "start_time": int}
    if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(run.info, name), kind)]:
        raise InputError(f"{run.info.run_id}: the store has no valid {wrong[0]} of this run")
    for values in (run.data.tags, run.data.params):
        for key, value in list(values.items()):
            if not (isinstance(key, str) and isinstance(value, str)):
                del values[key]
    return run


def queries_of(run: "Run") -> list[str]:
    """Return the queries, in MLflow's syntax, that find a run, or a sweep's jobs and the runs that it reuses."""
    if "mnist_exp.sweep" not in run.data.tags:
        return [f"attributes.run_id = '{run.info.run_id}'"]
    reused = [tag.removeprefix(REUSED) for tag in run.data.tags if re.fullmatch(f"{REUSED}[0-9a-f]+", tag)]
    return [f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", *queries_by_id(reused)]


def queries_by_id(ids: Sequence[str]) -> list[str]:
    """Return the queries that find runs by their hexadecimal ids."""
    starts = range(0, len(ids), _IDS_IN_A_SEARCH)
    parts = [", ".join(f"'{one}'" for one in ids[start : start + _IDS_IN_A_SEARCH]) for start in starts]
    return [f"attributes.run_id IN ({part})" for part in parts]


def fetch_run(uri: str, run_id: str) -> Recorded:
    """Read a run from the store; `run_id` is as for `find_run`.

    Raises:
        InputError: as `find_run` does, or if the run is a sweep or has no configuration.
    """
    client = store.connect_existing(uri)
    run = find_run(client, uri, run_id)
    run_id = str(run.info.run_id)
    if "mnist_exp.sweep" in run.data.tags:
        best = run.data.tags.get("mnist_exp.best_run")
        raise InputError(f"{run_id}: is a sweep; type the id of a job{f', such as the best, {best}' if best else ''}")
    return Recorded(
        run_id=run_id,
        experiment=client.get_experiment(run.info.experiment_id).name,
        name=str(run.info.run_name),
        status=run.info.status,
        config=parse_values(read_config(client, run), f"{run_id}: its config.yaml"),
        metrics={
            (name, point.step): point.value
            for name in run.data.metrics
            for point in client.get_metric_history(run_id, name)
        },
        tags=dict(run.data.tags),
        digest=data_digest(run),
    )


def stored_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return a run that is in the store, deleted or not."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def read_here(output: Path) -> Recorded:
    """Return a run as its folder has it, which no outage of a store delays."""
    folder = Folder(output)
    record = folder.read()
    path = output / "config.yaml"
    return Recorded(
        run_id=id_in_store(output),
        experiment=record.tracking.get("experiment", ""),
        name=record.name,
        status=record.status,
        config=parse_values(read_text(path, folder=output), str(path)),
        metrics={(name, line.step): value for line in folder.measured() for name, value in line.metrics.items()},
        tags=record.tags,
        digest=(record.data or {}).get("digest", ""),
    )


def find_sweep(client: "MlflowClient", uri: str, run_id: str) -> "Run":
    """Return the parent run of a sweep; `run_id` is as for `find_run`.

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
        InputError: if it cannot be read, or lies outside the store.
    """
    artifacts = store.repository(client.tracking_uri, run.info.artifact_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return read_text(Path(artifacts.download_artifacts("config.yaml", folder)))
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"{run.info.run_id}: its config.yaml cannot be read ({first_line(error)})") from None


def data_digest(run: "Run") -> str:
    """Return the recorded digest of a run's data, or "" without one."""
    return (recorded_job(run).data or {}).get("digest", "")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def curve(client: "MlflowClient", run_id: str, metric: str) -> list[float]:
    """Return a run's values of a metric, one an epoch."""
    return [point.value for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)]


def search(
    client: "MlflowClient",
    experiment_id: str,
    query: str,
    order: str = "attributes.start_time ASC",
    at_once: int = 1000,
) -> Iterator["Run"]:
    """Yield all runs that a query in MLflow's syntax finds, and read so many at once."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=[order], max_results=at_once, page_token=token)
        yield from map(_checked, page)
        token = page.token
        if not token:
            return


def recorded_job(run: "Run") -> Job:
    """Return the job that a run has recorded."""
    used = run.inputs.dataset_inputs if run.inputs is not None else []
    data: dict[str, str] | None = None
    if used:
        data = {key: str(getattr(used[0].dataset, key) or "") for key in ("name", "digest", "profile")}
        data["profile"] = next((str(tag.value) for tag in used[0].tags if tag.key == PROFILE), data["profile"])
    return make_job(run.data.tags, run.data.metrics, run.info.status, run.info.run_id, data)


def jobs_of(client: "MlflowClient", experiment_id: str, sweep_id: str) -> list[Job]:
    """Return the jobs of a sweep, and the earlier runs that count as jobs, with the values that they have in it."""
    sweep = find_sweep(client, client.tracking_uri, sweep_id)
    found = (recorded_job(run) for query in queries_of(sweep) for run in search(client, experiment_id, query))
    tags = sweep.data.tags
    return [
        replace(job, values=swept_values(tags[name])) if (name := f"{REUSED}{job.run_id}") in tags else job
        for job in found
    ]
