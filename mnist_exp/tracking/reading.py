"""Read runs from a store."""

import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.files import read_text
from mnist_exp.errors import InputError
from mnist_exp.text import redact_uri
from mnist_exp.tracking import locks, store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.names import short_ids
from mnist_exp.tracking.records import REUSED, Record, parse_map

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# The tag for a run's own profile: to all runs of an experiment with the same data, MLflow gives that of the first.
PROFILE = "mnist_exp.profile"
_IDS_IN_A_MESSAGE = 6
_IDS_IN_A_SEARCH = 500  # SQLite and MLflow's parser take some thousands at most


def record_of(run: "Run", client: "MlflowClient") -> Record:
    """Return the record of a run of a client's store.

    Tags and parameters that are not text, which only an altered store has, are left out.

    Raises:
        InputError: if its id, status or start is of a wrong type.
    """
    info = run.info
    kinds = {"run_id": str, "status": str, "start_time": int}
    if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(info, name), kind)]:
        raise InputError(f"{info.run_id}: the store has no valid {wrong[0]} of this run")
    tags, parameters = (
        {str(key): value for key, value in texts.items() if isinstance(value, str)}
        for texts in (run.data.tags, run.data.params)
    )
    tags = {f"mnist_exp.{key}": value for key, value in parse_map(tags.pop("mnist_exp.record", "")).items()} | tags
    database = store.sqlite_path(client.tracking_uri)
    data: dict[str, str] | None = None
    if used := run.inputs.dataset_inputs if run.inputs is not None else []:
        data = {key: str(getattr(used[0].dataset, key) or "") for key in ("name", "digest", "profile")}
        data["profile"] = next((str(tag.value) for tag in used[0].tags if tag.key == PROFILE), data["profile"])
    return Record(
        name=str(info.run_name),
        tags=tags,
        parameters=parameters,
        id=tags.get("mnist_exp.folder", ""),
        status=info.status,
        start=info.start_time,
        end=info.end_time,
        data=data,
        scores={name: value for name, value in run.data.metrics.items() if isinstance(value, float)},
        tracking={"experiment_id": info.experiment_id},
        output=str((database.parent if database else Path.cwd()) / tags.get("mnist_exp.output", "")),
        run_id=info.run_id,
    )


def find_run(client: "MlflowClient", uri: str, run_id: str) -> Record:
    """Return the only run or sweep of the store with an id.

    Args:
        client: of the store.
        uri: of the store, for messages.
        run_id: an id, or the beginning of one.

    Raises:
        InputError: if there is none, or more than one; it names six at most.
    """
    found: list[Run] = []
    if re.fullmatch("[0-9a-f]{1,32}", run_id):
        experiments = [experiment.experiment_id for experiment in client.search_experiments(max_results=50_000)]
        begins = f"attributes.run_id LIKE '{run_id}%'"
        found = list(client.search_runs(experiments, begins, max_results=_IDS_IN_A_MESSAGE + 1))
    if not found:
        raise InputError(f"{run_id}: no such run in {redact_uri(uri)}; python -m mnist_exp.compare lists the ids")
    if len(found) > 1:
        names = short_ids(sorted(run.info.run_id for run in found)).values()
        more = ", and more" if len(found) > _IDS_IN_A_MESSAGE else ""
        raise InputError(
            f"{run_id}: is the beginning of several ids; type one of {', '.join([*names][:_IDS_IN_A_MESSAGE])}{more}"
        )
    return record_of(found[0], client)


def job_queries(run: Record) -> list[str]:
    """Return MLflow's queries for a run, or for a sweep's jobs and reused runs."""
    if not run.is_sweep:
        return [f"attributes.run_id = '{run.run_id}'"]
    reused = [tag.removeprefix(REUSED) for tag in run.tags if re.fullmatch(f"{REUSED}[0-9a-f]+", tag)]
    return [f"tags.`mlflow.parentRunId` = '{run.run_id}'", *queries_by_id(reused)]


def queries_by_id(ids: Sequence[str]) -> list[str]:
    """Return the queries that find runs by their hexadecimal ids."""
    starts = range(0, len(ids), _IDS_IN_A_SEARCH)
    parts = [", ".join(f"'{run_id}'" for run_id in ids[start : start + _IDS_IN_A_SEARCH]) for start in starts]
    return [f"attributes.run_id IN ({part})" for part in parts]


def get_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return a run that is in the store, deleted or not."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def find_mirror_run(to: store.Store, folder: Folder, known: str = "") -> str:
    """Return the id of the run that mirrors a folder in a store, or "".

    Args:
        to: the store.
        folder: of the run.
        known: its id, which spares a search; "" if unknown.
    """
    if known and store.read_mirrored(folder, to.settings.uri).run_id == known:
        return known
    with suppress(InputError):
        return next((str(run.info.run_id) for run in read_runs(to, folder.read().id)), "")
    return ""


def read_runs(to: store.Store, record_id: str) -> "list[Run]":
    """Return the runs that mirror a record in a store, the oldest first.

    A server may briefly have several.
    """
    query = f"tags.mnist_exp.folder = '{record_id}'"
    found = to.client.search_runs([to.experiment_id], query, order_by=["attributes.start_time ASC"])
    return [run for run in found if run.data.tags.get("mnist_exp.folder") == record_id]


def find_sweep(client: "MlflowClient", uri: str, run_id: str) -> Record:
    """Return the parent run of a sweep.

    Args:
        client: of the store.
        uri: of the store, for messages.
        run_id: an id, or the beginning of one.

    Raises:
        InputError: as `find_run` does, or if the run is no sweep.
    """
    run = find_run(client, uri, run_id)
    if not run.is_sweep:
        parent = run.tags.get("mlflow.parentRunId")
        raise InputError(f"{run_id}: is no sweep{f'; it is a job of the sweep {parent}' if parent else ''}")
    return run


def read_config(client: "MlflowClient", run_id: str) -> str:
    """Return the text of a run's config.yaml.

    Raises:
        InputError: if it cannot be read, or lies outside the store.
    """
    artifacts = store.repository(client.tracking_uri, client.get_run(run_id).info.artifact_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if all(file.path != "config.yaml" for file in artifacts.list_artifacts()):
                raise InputError(f"{run_id}: has no config.yaml in the store yet; python -m mnist_exp.sync sends it")
            return read_text(Path(artifacts.download_artifacts("config.yaml", folder)), f"{run_id}: its config.yaml")
        except InputError:
            raise
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"{run_id}: its config.yaml cannot be read ({store.explain(error)})") from None


def points(run: Record, client: "MlflowClient | None" = None) -> dict[tuple[str, int], float]:
    """Return the metrics of a run by name and step, 0 for the end.

    They come from the client's store, or else from the run's folder.
    The time, `fit_seconds`, is left out.
    """
    if client is None:
        lines = Folder(Path(run.output)).read_metrics()
        found = {(name, line["step"]): value for line in lines for name, value in line["metrics"].items()}
    else:
        histories = (client.get_metric_history(run.run_id, name) for name in run.scores)
        found = {(point.key, point.step): point.value for history in histories for point in history}
    return {(name, step): value for (name, step), value in found.items() if name != "fit_seconds"}


def curve(client: "MlflowClient", run_id: str, metric: str) -> list[float]:
    """Return a run's values of a metric, one an epoch.

    Args:
        client: of the store.
        run_id: a whole id.
        metric: such as "val_loss".
    """
    return [point.value for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)]


def search(
    client: "MlflowClient",
    experiment_id: str,
    query: str,
    order: str = "attributes.start_time ASC",
    at_once: int = 1000,
) -> Iterator[Record]:
    """Yield the records of all runs that a query finds.

    Args:
        client: of the store.
        experiment_id: of the runs.
        query: a filter in MLflow's syntax.
        order: an order in MLflow's syntax; the oldest first by default.
        at_once: the number of runs in one request.
    """
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=[order], max_results=at_once, page_token=token)
        yield from (record_of(run, client) for run in page)
        token = page.token
        if not token:
            return


def read_jobs(client: "MlflowClient", sweep: Record) -> list[Record]:
    """Return a sweep's jobs, earlier runs that it counts included."""
    experiment_id = sweep.tracking["experiment_id"]
    jobs = (job for query in job_queries(sweep) for job in search(client, experiment_id, query))
    return [
        job.with_values(parse_map(sweep.tags[name])) if (name := f"{REUSED}{job.run_id}") in sweep.tags else job
        for job in jobs
    ]


def close_in_store(to: store.Store) -> list[Folder]:
    """Close a store's RUNNING runs without an owner, and return the folders to mirror.

    The lock of its folder decides. A run on this host whose folder is gone has nobody; one on another host is left.
    """
    folders = []
    for run in search(to.client, to.experiment_id, "attributes.status = 'RUNNING'"):
        folder = Folder(Path(run.output))
        if _id_and_status(folder)[0] == run.id:
            # The store may lack those of a sweep's jobs that had just begun.
            jobs = (Folder(path.parent) for path in folder.path.glob("*/run.json"))
            closed = [folder, *(job for job in jobs if _id_and_status(job)[1] == "RUNNING")]
            if not locks.close(folder.path / "run.json" for folder in closed):
                folders += closed
        elif run.host == socket.gethostname():
            to.client.set_terminated(run.run_id, "KILLED")
    return folders


def _id_and_status(folder: Folder) -> tuple[str | None, str]:
    with suppress(InputError):
        record = folder.read()
        return record.id, record.status
    return None, ""
