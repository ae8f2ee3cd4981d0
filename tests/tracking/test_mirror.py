"""`mirror` makes a run of MLflow from the run's folder, and may be called again."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.config.schema import require_store
from mnist_exp.data.datasets import Data
from mnist_exp.tracking.environment import describe_data
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.logged_models import save_model
from mnist_exp.tracking.mirror import mirror
from mnist_exp.tracking.reading import record_of
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.store import Store, connect

from ..conftest import QUICK, artifacts, in_process, runs_in, sweep_in
from ..conftest import store as client_of

pytestmark = pytest.mark.slow


def connected(*overrides: str) -> Store:
    return connect(require_store(compose(overrides).config.tracking))


@pytest.fixture
def store() -> Store:
    """The default store of the test's folder."""
    return connected()


def contents(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """All that a store has of a run."""
    recorded = client.get_run(run_id)
    names = recorded.data.metrics
    return {
        **recorded.to_dictionary(),
        "history": {
            name: [point.to_dictionary() for point in client.get_metric_history(run_id, name)] for name in names
        },
        "files": artifacts(client, run_id),
    }


def models(client: MlflowClient, experiment_id: str) -> list[str]:
    return [model.model_id for model in client.search_logged_models([experiment_id])]


def test_second_mirror_changes_no_run(tmp_path: Path, store: Store, mnist: Data) -> None:
    result = run(*QUICK)
    assert result.run_id is not None
    client, experiment_id = store.client, store.experiment_id
    before, before_models = contents(client, result.run_id), models(client, experiment_id)
    assert len(before_models) == 1
    save_model(result.model, mnist, Folder(result.output))  # an outage would leave this
    for _ in range(2):
        assert mirror(Folder(result.output), store).run_id == result.run_id
        assert contents(client, result.run_id) == before
        assert models(client, experiment_id) == before_models
    assert len(runs_in(tmp_path)) == 1
    assert not (result.output / "model").exists()


def test_mirror_deletes_a_run_that_a_server_made_twice(tmp_path: Path, used_server: str) -> None:
    store = connected(f"tracking.uri={used_server}", "tracking.experiment=again")
    client, experiment_id = store.client, store.experiment_id
    record, folder = Record("a run", {}), Folder(tmp_path / "outputs" / "day" / "time")
    folder.write(record)
    folder.measure(1, {"loss": 0.5})
    for _ in range(2):  # requests whose answers were lost, before and after the used run
        client.create_run(experiment_id, tags={"mnist_exp.folder": record.id})
        sent = mirror(folder, store)
    [made] = client.search_runs([experiment_id])
    assert (made.info.run_id, made.data.metrics) == (sent.run_id, {"loss": 0.5})


def test_mirror_sends_an_epoch_once_when_trained_again(tmp_path: Path, store: Store) -> None:
    folder, sent = Folder(tmp_path / "run"), None
    folder.begin(Record("run", {}))
    for epochs in ([1, 2, 3], [2, 3, 4], [4, 0]):  # after a checkpoint, and after none that can be used
        for step in epochs:
            folder.measure(step, {"loss": 1 / step} if step else {"objective": 0.5, "fit_seconds": 1.0})
        sent = mirror(folder, store)
        sent = mirror(folder, store)  # in another process
        lines = (folder.path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder.path / "metrics.jsonl").write_text("".join(lines[: epochs[0] - 1]))
        time.sleep(0.002)
    folder.measure(0, {"objective": 0.5, "fit_seconds": 2.0})
    sent = mirror(folder, store)
    assert [point.step for point in store.client.get_metric_history(sent.run_id, "loss")] == [1, 2, 3, 4]
    assert [point.value for point in store.client.get_metric_history(sent.run_id, "fit_seconds")] == [1.0]


def test_mirror_replaces_earlier_tries_of_a_job(tmp_path: Path, store: Store) -> None:
    folder, tags = Folder(tmp_path / "0"), {"mnist_exp.parent": "a" * 32, "mnist_exp.swept": '{"seed": "1"}'}
    for status in ("KILLED", "FAILED", "FINISHED"):
        folder.begin(Record(status, tags))
        folder.measure(1, {"loss": 0.5})
        if status != "FAILED":  # no store has seen that try
            mirror(folder, store)
        folder.end(status)
    mirror(folder, store)
    assert [(run.info.run_name, run.info.status) for run in runs_in(tmp_path)] == [("FINISHED", "FINISHED")]
    folder.begin(Record("other", tags))
    mirror(folder, store)
    assert len(runs_in(tmp_path)) == 2, "what has finished stays"


def test_reused_folder_has_the_last_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        result = run(*QUICK, f"seed={seed}", f"hydra.run.dir={tmp_path}/out")
    assert Folder(tmp_path / "out").history() == result.history
    assert [len(client_of(tmp_path).get_metric_history(run.info.run_id, "loss")) for run in runs_in(tmp_path)] == [2, 2]


def test_mirror_needs_the_folder_alone(tmp_path: Path, mnist: Data) -> None:
    result = run(*QUICK, "tracking=none")
    folder = Folder(result.output)
    (tmp_path / "elsewhere").mkdir()
    store = connected(f"tracking.uri=sqlite:///{tmp_path}/elsewhere/mlflow.db")
    client, run_id = store.client, mirror(folder, store).run_id
    begun = client.create_logged_model(store.experiment_id, "model", run_id)  # a power cut follows
    save_model(result.model, mnist, folder)
    mirror(folder, store)
    assert models(client, store.experiment_id) == [begun.model_id]
    outputs = client.get_run(run_id).outputs
    assert outputs is not None
    assert [model.model_id for model in outputs.model_outputs] == [begun.model_id]
    made = contents(client, run_id)
    assert (made["info"]["status"], made["info"]["end_time"]) == ("FINISHED", folder.read().end)
    assert {name: [point["value"] for point in made["history"][name]] for name in result.history} == result.history
    assert made["data"]["metrics"]["test_loss"] == result.scores["test_loss"]
    assert made["data"]["params"]["model.hidden"] == "16"
    assert "figures/curves.png" in made["files"]


def test_mirror_sends_the_best_job_of_a_sweep_first(tmp_path: Path, store: Store) -> None:
    sweep, job = Folder(tmp_path / "sweep"), Folder(tmp_path / "sweep" / "0")
    record = Record("sweep", {"mnist_exp.sweep": "a"})
    sweep.begin(record)
    job.begin(Record("job", {"mnist_exp.parent": record.id, "mlflow.parentRunId": "elsewhere"}))
    job.end("FINISHED")
    sweep.change(best="0")
    sweep.end("FINISHED")
    parent = mirror(sweep, store).run_id
    tags = {run.info.run_name: run.data.tags for run in runs_in(tmp_path)}
    assert tags["job"]["mlflow.parentRunId"] == parent
    assert json.loads(tags["sweep"]["mnist_exp.record"])["best_run"] == mirror(job, store).run_id


def test_sweep_records_means_and_its_run_has_them(tmp_path: Path) -> None:
    done = in_process("-m", *QUICK, "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = [Folder(path.parent) for path in tmp_path.glob("multirun/*/*/run.json")]
    record = folder.read()
    jobs = [Folder(path.parent).read() for path in sorted(folder.path.glob("*/run.json"))]
    assert [job.status for job in (record, *jobs)] == ["FINISHED"] * 3
    [measured] = [line["metrics"] for line in folder.read_metrics()]
    for name in ("objective", "val_accuracy", "test_accuracy", "test_loss"):
        assert measured[name] == pytest.approx(sum(job.scores.get(name, job.scores["objective"]) for job in jobs) / 2)
    assert measured["fit_seconds"] == pytest.approx(sum(job.scores["fit_seconds"] for job in jobs))
    assert json.loads(record.tags["mnist_exp.varied"]) == {"seed": "0,1"}
    parameters = {key: value for key, value in jobs[0].parameters.items() if key != "seed"}
    parent, _ = sweep_in(tmp_path)
    assert record.parameters == parent.data.params == parameters
    assert parent.data.metrics["objective"] == measured["objective"]
    assert parent.data.tags["mnist_exp.folder"] == record.id


def test_ranking_stands_below_the_users_description(tmp_path: Path) -> None:
    typed = ("-m", "seed=0,1", "dataset.limit=500", "training.epochs=1")
    assert in_process(*typed, cwd=tmp_path).returncode == 0
    parent, _ = sweep_in(tmp_path)
    shown = parent.data.tags["mlflow.note.content"].splitlines()
    assert shown[0].startswith("**Result:** 2 jobs")
    assert shown[2] == "### Ranking of the jobs"
    client_of(tmp_path).set_tag(
        parent.info.run_id, "mlflow.note.content", f"Mine, written *meanwhile*.\n\n{shown[0]}\nold"
    )
    done = in_process(*typed, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sweep_in(tmp_path)[0].data.tags["mlflow.note.content"].splitlines() == [
        "Mine, written *meanwhile*.",
        "",
        *shown,
    ]


def test_runs_that_begin_at_once_all_have_their_new_data(tmp_path: Path, store: Store, mnist: Data) -> None:
    folders = [Folder(tmp_path / str(number)) for number in range(40)]
    for number, folder in enumerate(folders):
        folder.begin(Record(str(number), {}, data=describe_data(mnist) | {"digest": str(number // 8)}))
    with ThreadPoolExecutor(8) as at_once:
        sent = list(at_once.map(lambda folder: mirror(folder, store), folders))
    for number, upload in enumerate(sent):
        inputs = store.client.get_run(upload.run_id).inputs
        assert inputs is not None
        [used] = inputs.dataset_inputs
        assert used.dataset.digest == str(number // 8)


def test_runs_have_their_own_sizes_of_one_dataset(tmp_path: Path, store: Store, mnist: Data) -> None:
    for held_out in (10_000, 200):
        folder = Folder(tmp_path / str(held_out))
        data = replace(mnist, x_validation=mnist.x_validation[:held_out])
        folder.begin(Record("run", {}, data=describe_data(data)))
        recorded = record_of(store.client.get_run(mirror(folder, store).run_id), store.client)
        assert recorded.images("validation") == held_out
        assert recorded.test_digest == mnist.test_digest


def test_mirror_sends_parameters_in_several_batches(tmp_path: Path, store: Store) -> None:
    parameters = {f"model.key_{number}": str(number) for number in range(250)}
    folder = Folder(tmp_path / "run")
    folder.begin(Record("many", {}, parameters))
    assert store.client.get_run(mirror(folder, store).run_id).data.params == parameters
