"""The saved views that MLflow's page opens, as a store has them; `tests/test_browser.py` opens one."""

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow import MlflowClient

from mnist_exp.tracking import views
from mnist_exp.tracking.views import View, opens_views

from ..conftest import QUICK, in_process, store, sweep_in

pytestmark = pytest.mark.slow

TAG = "mlflow.sharedViewState."
SWEEP = ("-m", *QUICK, "model.hidden=8,16", "optimizer.learning_rate=0.01,0.03", "seed=0,1")


def saved(client: MlflowClient, experiment_id: str) -> dict[str, dict[str, Any]]:
    """The views of an experiment, by their keys, with their states unpacked."""
    found = {}
    for tag, text in client.get_experiment(experiment_id).tags.items():
        if tag.startswith(TAG) and text.startswith("{"):
            view = json.loads(text)
            packed = view["state"].removeprefix("deflate;")
            found[tag.removeprefix(TAG)] = view | {"state": json.loads(zlib.decompress(base64.b64decode(packed)))}
    return found


def charts(state: dict[str, Any]) -> list[tuple[str, str]]:
    return [(chart["type"], chart["metricKey"]) for chart in state["compareRunCharts"]]


def test_views_survive_other_commands(tmp_path: Path) -> None:
    done = in_process(*SWEEP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    client, (parent, jobs) = store(tmp_path), sweep_in(tmp_path)
    run_id, experiment_id = parent.info.run_id, parent.info.experiment_id
    key = views.make_key(run_id)
    assert done.stdout.splitlines()[-1] == f"http://127.0.0.1:5000/{views.make_path(experiment_id, key)}"
    view, everything = saved(client, experiment_id)[key], saved(client, experiment_id)[views.ALL]
    best = max(jobs, key=lambda job: job.data.metrics["objective"]).data.params
    assert view["name"].startswith("hidden=16 learning_rate=")
    assert best["model.hidden"] == "16"
    assert view["name"].endswith(f" leads, 4 rows ({run_id[:8]})")
    state, varied = view["state"], ["model.hidden", "optimizer.learning_rate"]
    assert len(client.search_runs([experiment_id], state["searchFilter"])) == 8
    assert [group["groupByData"] for group in state["groupBy"]["groupByKeys"]] == varied
    assert charts(state) == [
        ("LINE", "val_accuracy"), ("LINE", "val_loss"), ("PARALLEL", "objective"), ("CONTOUR", "objective"),
        ("BAR", "objective"), ("BAR", "test_accuracy"),
    ]  # fmt: skip
    scores = [f"metrics.`{name}`" for name in ("objective", "test_accuracy", "fit_seconds")]
    assert state["selectedColumns"] == [*(f"params.`{name}`" for name in [*varied, "seed"]), *scores]
    shown = client.search_runs([experiment_id], everything["state"]["searchFilter"])
    assert sorted(run.info.run_id for run in shown) == sorted(job.info.run_id for job in jobs)
    assert everything["state"]["selectedColumns"] == state["selectedColumns"]

    before = client.get_experiment(experiment_id).tags
    assert in_process(*SWEEP, "resume=true", cwd=tmp_path).returncode == 0
    assert client.get_experiment(experiment_id).tags == before
    page = json.dumps({"name": "Mine", "createdAt": 1, "updatedAt": 2, "state": "{}"})  # MLflow's page saves it so
    client.set_experiment_tag(experiment_id, f"{TAG}{key}", page)
    client.delete_experiment_tag(experiment_id, f"{TAG}{views.ALL}")
    assert in_process(*SWEEP, "resume=true", cwd=tmp_path).returncode == 0
    after = client.get_experiment(experiment_id).tags
    assert after[f"{TAG}{key}"] == page
    assert f"{TAG}{views.ALL}" not in after


def test_view_goes_with_its_sweep(tmp_path: Path) -> None:
    done = in_process("-m", *QUICK, "model.hidden=8,16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    client, (parent, _) = store(tmp_path), sweep_in(tmp_path)
    key, experiment_id = views.make_key(parent.info.run_id), parent.info.experiment_id
    state = saved(client, experiment_id)[key]["state"]
    assert state["groupBy"] is None  # no seeds
    assert ("CONTOUR", "objective") not in charts(state)
    done = in_process("multirun", "--yes", cwd=tmp_path, module="mnist_exp.tidy")
    assert done.returncode == 0, done.stderr
    assert set(saved(client, experiment_id)) == {views.ALL}


def test_oldest_views_go_but_not_a_persons(tmp_path: Path) -> None:
    assert in_process(*QUICK, cwd=tmp_path).returncode == 0
    client = store(tmp_path)
    keys = [f"mnist_exp-{number:08}" for number in range(views.MAX_SWEEPS + 3)]
    for number, key in enumerate(keys):
        assert views.save(client, "1", key, View(key, f"params.seed = '{number}'", ["seed"]))
        if number == 0:
            mine = json.loads(client.get_experiment("1").tags[f"{TAG}{key}"]) | {"name": "Mine"}
            client.set_experiment_tag("1", f"{TAG}{key}", json.dumps(mine))
    assert set(saved(client, "1")) == {views.ALL, keys[0], *keys[3:]}
    assert not views.save(client, "1", keys[1], View("again", "", []))


@contextmanager
def answering(text: str) -> Iterator[str]:
    """A server that tells this version; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/version" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("version", "opens"), [("3.14.0", False), ("3.15.2", True), ("3.100.0", True), ("?", False)])
def test_views_need_a_server_that_opens_them(version: str, opens: bool) -> None:
    with answering(version) as uri:
        assert opens_views(uri) is opens
