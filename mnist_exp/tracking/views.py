"""MLflow's saved views: a link opens the curves of a sweep's rows, or of all runs.

A view is an experiment's tag with a name and a state of MLflow's page (3.15.2 to 3.17.2).
"""

import base64
import csv
import json
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.files import is_file, read_text
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.names import job_name, parse_value
from mnist_exp.tracking.reading import find_mirror_run
from mnist_exp.tracking.records import REUSED, Record, parse_map
from mnist_exp.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALL = "mnist_exp-all"
MAX_SWEEPS = 30  # beside 40 views, MLflow's page saves no other
_TAG = "mlflow.sharedViewState."
_MADE = f"{_TAG}mnist_exp-made"  # keys of the last 200 views: one that was deleted is not made again
_NO_PARENTS = "tags.`mnist_exp.sweep` IS NULL"
_MAX_TAG_CHARS = 5000  # MLflow's limit
_DIGEST = ', "digest": '  # MLflow's page drops it from a changed view
_MAX_NAMED_RUNS = 60  # a tag has room for them
_SCORES = ("objective", "test_accuracy", "fit_seconds")


@dataclass(frozen=True)
class View:
    """The runs that a `query` in MLflow's search syntax finds, and how they are shown.

    Attributes:
        keys: the parameters that vary; `numbers`: those with numbers only.
        groups: the parameters that the runs of a group share; it is drawn as a mean in a band.
        curves: metrics of each epoch.
    """

    name: str
    query: str
    keys: Sequence[str]
    numbers: Sequence[str] = ()
    groups: Sequence[str] = ()
    curves: Sequence[str] = ("val_accuracy", "val_loss")
    order: str = "metrics.`objective`"
    ascending: bool = False


def make_key(run_id: str) -> str:
    """Return the key of a sweep's view, given the id of its run."""
    return f"mnist_exp-{run_id[:8]}"


def make_path(experiment_id: str, key: str) -> str:
    """Return a link to a view, without the server's address."""
    query = f"workflowType=machine_learning&viewStateShareKey={key}&compareRunsMode=CHART"
    return f"#/experiments/{experiment_id}/runs?{query}"


def save(client: "MlflowClient", experiment_id: str, key: str, view: View) -> bool:
    """Write a view unless a person changed or deleted it.

    Args:
        client: of the store.
        experiment_id: of the runs.
        key: of `make_key`, by which MLflow finds the view.
        view: the runs, and how they are shown.

    Returns:
        Whether it exists.
    """
    tags, tag, now = client.get_experiment(experiment_id).tags, f"{_TAG}{key}", int(time.time() * 1000)
    made, state = tags.get(_MADE, "").split(), _pack(view)
    before = _read_unchanged(tags, key)
    if tag in tags and (not before or (before["name"], before["state"]) == (view.name, state)):
        return True
    body = json.dumps({"name": view.name, "createdAt": now, "updatedAt": now, "state": state})[:-1]
    value = f"{body}{_DIGEST}{zlib.crc32(body.encode())}}}"
    if (not before and key in made) or len(value) > _MAX_TAG_CHARS:
        return bool(before)
    if key not in made:
        client.set_experiment_tag(experiment_id, _MADE, " ".join([*made, key][-200:]))
        for old in [old for old in made if old != ALL and _read_unchanged(tags, old)][: 1 - MAX_SWEEPS]:
            client.delete_experiment_tag(experiment_id, f"{_TAG}{old}")
    client.set_experiment_tag(experiment_id, tag, value)
    return True


@cache
def opens_views(uri: str) -> bool:
    """Return whether MLflow's page opens saved views, as it does from 3.15.2 on."""
    if not uri.startswith(("http://", "https://")):
        return True
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from packaging.version import InvalidVersion, Version

    try:
        return Version(http_request(get_default_host_creds(uri), "/version", "GET").text) >= Version("3.15.2")
    except InvalidVersion:
        return False


def show_all(store: Store) -> None:
    """Write the view of all runs but parents, with keys in which the newest differ.

    After an outage, the next command does.
    """
    with suppress(Exception):  # a store raises anything
        client, experiment_id = store.client, store.experiment_id
        if not opens_views(client.tracking_uri):
            return
        runs = [run.data.params for run in client.search_runs([experiment_id], _NO_PARENTS, max_results=20)]
        varied = {key for run in runs for key in run if any(other.get(key) != run[key] for other in runs)}
        shared_first = sorted(varied, key=lambda key: (sum(key not in run for run in runs), key))
        # An order by attributes.start_time, without quotes, makes the page add the parents.
        view = View("All runs", _NO_PARENTS, shared_first[:8], order="attributes.`start_time`")
        save(client, experiment_id, ALL, view)


def show_sweep(store: Store, folder: Folder, record: Record, run_id: str) -> bool:
    """Write the saved view of a sweep that has jobs.

    Args:
        store: that gets the view.
        folder: of the sweep.
        record: of the sweep.
        run_id: of the sweep in the store.

    Returns:
        Whether the store has the view.
    """
    from mlflow.exceptions import MlflowException

    try:
        view = _make_view(store, folder, record, run_id) if opens_views(store.client.tracking_uri) else None
        if view is None or not save(store.client, store.experiment_id, make_key(run_id), view):
            return False
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return False  # this user may not change the experiment
    except (OSError, ValueError, TypeError):  # a damaged folder
        return False
    show_all(store)
    return True


def _make_view(store: Store, folder: Folder, record: Record, run_id: str) -> View | None:
    """Return the view of a sweep, or None before it has jobs."""
    jobs: dict[Path, Record] = {}
    for path in folder.path.glob("*/run.json"):
        with suppress(InputError):  # damaged
            job = Folder(path.parent).read()
            if job.parameters and job.fact("parent") == record.id:
                jobs[path.parent] = job
    if not jobs:
        return None
    typed = list(parse_map(record.fact("varied")))
    recorded = {key for job in jobs.values() for key in job.parameters}
    keys = [name for key in typed for name in (key, f"{key}.kind") if name in recorded]  # a group is known by its kind
    rows = [key for key in keys if key != "seed"]
    values = {key: [parse_value(job.parameters.get(key, "")) for job in jobs.values()] for key in rows}
    ids = [tag.removeprefix(REUSED) for tag in record.tags if re.fullmatch(f"{REUSED}[0-9a-f]+", tag)]
    ids += [found for path in jobs if ids and (found := find_mirror_run(store, Folder(path)))]
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    if 0 < len(ids) <= _MAX_NAMED_RUNS:
        query = f"attributes.run_id IN ({', '.join(map(repr, ids))})"
    metric = record.parameters.get("objective", "val_accuracy").replace("test_", "val_", 1)
    return View(
        f"{_leader(folder, typed) or f'{len(jobs)} jobs'} ({run_id[:8]})",
        query,
        keys,
        [key for key in rows if {type(value) for value in values[key]} <= {int, float} and len(set(values[key])) > 1],
        rows if "seed" in keys else [],
        [*dict.fromkeys([metric, "val_loss", "loss"])][:2],
        ascending=record.parameters.get("direction") == "minimize",
    )


def _leader(folder: Folder, keys: Sequence[str]) -> str:
    """Return the leading row and the number of rows, or "" before the ranking."""
    path = folder.path / "ranking.csv"
    lines = read_text(path, folder=folder.path).splitlines() if is_file(path, folder.path) else []
    ranked = [row for row in csv.DictReader(lines) if row.get("rank")]
    values = {key: value for key in keys if key != "seed" and ranked and (value := ranked[0].get(key))}
    rows = len({row["rank"] for row in ranked})
    return f"{job_name(values, values)} leads, {rows} rows" if values and rows > 1 else ""


def remove(client: "MlflowClient", experiment_id: str, run_id: str) -> None:
    """Remove a sweep's view, unless a person changed it.

    Args:
        client: of the store.
        experiment_id: of the sweep.
        run_id: of the sweep.
    """
    if _read_unchanged(client.get_experiment(experiment_id).tags, key := make_key(run_id)):
        client.delete_experiment_tag(experiment_id, f"{_TAG}{key}")


def _read_unchanged(tags: Mapping[str, str], key: str) -> dict[str, Any]:
    """Return the content of a view as this module wrote it, or an empty map."""
    body, _, digest = tags.get(f"{_TAG}{key}", "").rpartition(_DIGEST)
    return dict(json.loads(f"{body}}}")) if digest == f"{zlib.crc32(body.encode())}}}" else {}


def _pack(view: View) -> str:
    """Return the state in which MLflow's page shows a view."""
    score = {"key": "objective", "type": "METRIC"}
    charts = [_chart("LINE", name, xAxisKey="step", lineSmoothness=0, range={}) for name in view.curves]
    if axes := [key for key in view.keys if key != "seed"][:5]:
        lines = {"selectedParams": axes, "selectedMetrics": ["objective"], "showAllRuns": not view.groups}
        charts.append(_chart("PARALLEL", "objective", **lines))
    if len(view.numbers) > 1:
        x, y = ({"key": key, "type": "PARAM"} for key in view.numbers[:2])
        charts.append(_chart("CONTOUR", "objective", xaxis=x, yaxis=y, zaxis=score))
    charts += [_chart("BAR", name) for name in _SCORES[:2]]
    groups = [{"mode": "param", "groupByData": key} for key in view.groups]
    section = {"uuid": "ours", "name": view.name, "display": True, "isReordered": True, "columns": 2}
    state = {
        "searchFilter": view.query,
        "orderByKey": view.order,
        "orderByAsc": view.ascending,
        "selectedColumns": [*(f"params.`{key}`" for key in view.keys), *(f"metrics.`{name}`" for name in _SCORES)],
        "runsHiddenMode": "FIRST_20_RUNS",
        "runListHidden": True,
        "isAccordionReordered": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": groups} if groups else None,
        "compareRunCharts": charts,
        "compareRunSections": [section],
    }
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def _chart(kind: str, metric: str, **more: object) -> dict[str, object]:
    own = {"uuid": f"{kind} {metric}", "type": kind, "metricSectionId": "ours", "metricKey": metric}
    return {**own, "runsCountToCompare": 200, **more}
