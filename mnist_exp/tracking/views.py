"""MLflow's saved views: a link opens the curves of a sweep's rows, or of all runs.

A view is an experiment's tag with a name and a state of MLflow's page (3.15.2 to 3.17.2).
"""

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALL = "mnist_exp-all"
MAX_SWEEPS = 30  # beside 40 views, MLflow's page saves no other
_TAG = "mlflow.sharedViewState."
_MADE = f"{_TAG}mnist_exp-made"  # keys of the last 200 views: one that was deleted is not made again
_DIGEST = ', "digest": '  # MLflow's page drops it from a changed view
_NO_PARENTS = "tags.`mnist_exp.sweep` IS NULL"
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


def key_of(run_id: str) -> str:
    """Return the key of a sweep's view, given the id of its run."""
    return f"mnist_exp-{run_id[:8]}"


def path_of(experiment_id: str, key: str) -> str:
    """Return a link to a view, without the server's address."""
    query = f"workflowType=machine_learning&viewStateShareKey={key}&compareRunsMode=CHART"
    return f"#/experiments/{experiment_id}/runs?{query}"


def save(client: "MlflowClient", experiment_id: str, key: str, view: View) -> bool:
    """Write a view unless a person changed or deleted it; return whether it is there."""
    tags, tag, now = client.get_experiment(experiment_id).tags, f"{_TAG}{key}", int(time.time() * 1000)
    made, state = tags.get(_MADE, "").split(), _packed(view)
    before = _unchanged(tags, key)
    if tag in tags and (not before or (before["name"], before["state"]) == (view.name, state)):
        return True
    body = json.dumps({"name": view.name, "createdAt": now, "updatedAt": now, "state": state})[:-1]
    value = f"{body}{_DIGEST}{zlib.crc32(body.encode())}}}"
    if (not before and key in made) or len(value) > 5000:
        return bool(before)
    if key not in made:
        client.set_experiment_tag(experiment_id, _MADE, " ".join([*made, key][-200:]))
        for old in [old for old in made if old != ALL and _unchanged(tags, old)][: 1 - MAX_SWEEPS]:
            client.delete_experiment_tag(experiment_id, f"{_TAG}{old}")
    client.set_experiment_tag(experiment_id, tag, value)
    return True


def save_all(client: "MlflowClient", experiment_id: str) -> None:
    """Write the view of all runs but parents, with keys in which the newest differ."""
    runs = [run.data.params for run in client.search_runs([experiment_id], _NO_PARENTS, max_results=20)]
    varied = {key for run in runs for key in run if any(other.get(key) != run[key] for other in runs)}
    shared_first = sorted(varied, key=lambda key: (sum(key not in run for run in runs), key))
    # An order by attributes.start_time, without quotes, makes the page add the parents.
    view = View("All runs", _NO_PARENTS, shared_first[:8], order="attributes.`start_time`")
    save(client, experiment_id, ALL, view)


def remove(client: "MlflowClient", experiment_id: str, run_id: str) -> None:
    """Remove a sweep's view, given the id of its run, unless a person changed it."""
    if _unchanged(client.get_experiment(experiment_id).tags, key := key_of(run_id)):
        client.delete_experiment_tag(experiment_id, f"{_TAG}{key}")


def _unchanged(tags: Mapping[str, str], key: str) -> dict[str, Any]:
    """Return the content of a view as this module wrote it, or an empty map."""
    body, _, digest = tags.get(f"{_TAG}{key}", "").rpartition(_DIGEST)
    return dict(json.loads(f"{body}}}")) if digest == f"{zlib.crc32(body.encode())}}}" else {}


def _packed(view: View) -> str:
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
