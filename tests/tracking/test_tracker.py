"""What a run leaves in MLflow, however it ends."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

import mnist_exp
from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.experiment import experiment_signature
from mnist_exp.tracking.environment import make_config
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import now

from ..conftest import QUICK, artifacts, facts, in_process, runs_in, start, store, wait_for_line

LONG = ("training.epochs=100000", "dataset.limit=2000", "training.batch_size=100")


def test_parameters_are_the_configuration_with_dots(tracked_folder: Path) -> None:
    [recorded] = runs_in(tracked_folder)
    parameters = recorded.data.params
    assert parameters["model.hidden"] == "16"
    assert parameters["optimizer.learning_rate"] == "0.001"
    assert parameters["optimizer.weight_decay"] == "null"
    assert parameters["training.metrics"] == "[accuracy]"
    assert parameters["preprocessing.scale"] == "true"
    assert not [key for key in parameters if key.startswith("tracking")]


def test_curves_and_scores_are_those_of_the_run(tracked_folder: Path) -> None:
    [recorded] = runs_in(tracked_folder)
    result = run("tracking=none")  # the same configuration, so the same numbers
    client = store(tracked_folder)
    for name, values in result.history.items():
        logged = sorted(client.get_metric_history(recorded.info.run_id, name), key=lambda metric: metric.step)
        assert [metric.step for metric in logged] == list(range(1, 11))
        assert [metric.value for metric in logged] == values
    assert recorded.data.metrics["test_loss"] == result.scores["test_loss"]
    assert recorded.data.metrics["test_accuracy"] == result.scores["test_accuracy"]
    assert recorded.data.metrics["fit_seconds"] > 0
    assert recorded.info.status == "FINISHED"


def test_files_of_the_run(tracked_folder: Path, tmp_path: Path) -> None:
    [recorded] = runs_in(tracked_folder)
    client = store(tracked_folder)
    assert artifacts(client, recorded.info.run_id) == {
        "config.yaml",
        "run.log",
        "predictions.csv",
        "figures/classes.png",
        "figures/confusion_matrix.png",
        "figures/curves.png",
        "figures/mistakes.png",
        "figures/predictions.png",
    }
    uri = Path(client.download_artifacts(recorded.info.run_id, "config.yaml", str(tmp_path)))
    assert yaml.safe_load(uri.read_text()) == make_config(
        compose(["tracking.note=first", "tracking.tags={team: vision}"]).config
    )
    log = Path(client.download_artifacts(recorded.info.run_id, "run.log", str(tmp_path))).read_text()
    assert "epoch 10" in log
    assert "scores" in log
    assert recorded.info.artifact_uri.startswith((tracked_folder / "mlruns").as_uri())


def test_the_model_takes_raw_images(tracked_folder: Path, mnist: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    [recorded] = runs_in(tracked_folder)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the tracker sets it, too
    mlflow.set_tracking_uri(f"sqlite:///{tracked_folder}/mlflow.db")
    model = mlflow.pyfunc.load_model(f"runs:/{recorded.info.run_id}/model")
    probabilities = model.predict(mnist.x_test)
    assert (probabilities.argmax(1) == mnist.y_test).mean() == pytest.approx(
        recorded.data.metrics["test_accuracy"], abs=2e-4
    )
    assert model.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 28, 28)}
    np.testing.assert_array_equal(model.input_example, mnist.x_test[:2])
    keras_model = mlflow.keras.load_model(f"runs:/{recorded.info.run_id}/model")
    np.testing.assert_array_equal(keras_model.predict(mnist.x_test[:10], verbose=0).shape, (10, 10))


def test_the_dataset_and_tags(tracked_folder: Path, mnist: Data) -> None:
    [recorded] = runs_in(tracked_folder)
    assert recorded.inputs is not None
    [used] = recorded.inputs.dataset_inputs
    assert used.dataset.name == "mnist"
    assert used.dataset.digest == mnist.digest
    profile = json.loads(used.dataset.profile or "")
    assert len(profile.pop("test_digest")) == 32
    assert profile == {"training": 60000, "validation": 10000, "test": 10000}
    tags = recorded.data.tags
    assert tags["mnist_exp.signature"] == experiment_signature(compose([]).config, mnist.digest)
    assert (tracked_folder / tags["mnist_exp.output"] / "run.json").is_file()
    assert facts(recorded)["host"] == socket.gethostname()
    assert facts(recorded)["process"].isdigit()
    ours = {key.removeprefix("mnist_exp.") for key in tags if key.startswith("mnist_exp.")}
    assert ours == {"overrides", "packages", "signature", "folder", "output", "record"}
    assert tags["mnist_exp.overrides"] == ""
    assert tags["team"] == "vision"
    assert tags["mlflow.note.content"] == "first"
    assert recorded.info.run_name == "baseline"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:
        assert tags["mlflow.source.git.commit"].removesuffix("-dirty") == head.stdout.strip()


def test_the_terminal_shows_only_progress_scores_and_a_link(tracked_folder: Path) -> None:
    [recorded] = runs_in(tracked_folder)
    lines = (tracked_folder / "stdout").read_text().splitlines()
    assert (tracked_folder / "stderr").read_text() == ""
    assert [line for line in lines if line.startswith("Epoch ")] == [f"Epoch {n}/10" for n in range(1, 11)]
    assert lines[-5] == f"TEST loss: {recorded.data.metrics['test_loss']:.4f}"
    assert lines[-4] == f"TEST accuracy: {recorded.data.metrics['test_accuracy']:.4f}"
    assert lines[-3].startswith("Computation time: ")
    [folder] = tracked_folder.glob("outputs/*/*")
    place = f"in experiment mnist_exp, files in {folder.relative_to(tracked_folder)}"
    assert lines[-2] == f"Run {recorded.info.run_id} {place}; mlflow ui, then"
    page = f"#/experiments/{recorded.info.experiment_id}/runs/{recorded.info.run_id}/model-metrics"
    assert lines[-1] == f"http://127.0.0.1:5000/{page}?workflowType=machine_learning"
    assert len(lines) == 25


def test_run_is_named_by_its_overrides_by_default() -> None:
    run("model.hidden=4", *QUICK)
    run("tracking.run_name=mine", *QUICK)
    first, second = runs_in(Path())
    assert first.info.run_name == " ".join(("model.hidden=4", *QUICK)) == first.data.tags["mnist_exp.overrides"]
    assert second.info.run_name == "mine"
    assert second.data.tags["mnist_exp.overrides"] == " ".join(QUICK)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    done = in_process(*QUICK, "optimizer=sgd", "optimizer.learning_rate=1e30", "model.activation=linear", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "loss became nan in epoch 1" in done.stderr
    [failed] = runs_in(tmp_path)
    assert failed.info.status == "FAILED"
    assert f"Run {failed.info.run_id} is FAILED" in done.stderr
    assert artifacts(store(tmp_path), failed.info.run_id) == {"error.txt", "run.log", "config.yaml"}
    path = store(tmp_path).download_artifacts(failed.info.run_id, "error.txt", str(tmp_path))
    assert "Traceback" in Path(path).read_text()
    assert "loss became nan" in Path(path).read_text()


def test_bad_data_leave_no_run(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    done = in_process("dataset=npz", "dataset.path=bad.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "dataset.path=bad.npz: is not a valid npz file" in done.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["bad.npz"]
    assert not any(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.release)]
)
def test_an_interrupted_run_is_killed_and_keeps_its_curves(tmp_path: Path, number: int, code: int) -> None:
    process = start(*LONG, cwd=tmp_path)
    wait_for_line(process, "Epoch 20/")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in stderr
    [killed] = runs_in(tmp_path)
    assert killed.info.status == "KILLED"
    history = store(tmp_path).get_metric_history(killed.info.run_id, "val_loss")
    assert len(history) >= 18


def test_next_command_closes_runs_without_a_process(tmp_path: Path) -> None:
    result = run(*QUICK)
    client = store(tmp_path)
    [recorded] = runs_in(tmp_path)
    Folder(result.output).change(status="RUNNING", end=None)  # its lock has gone with the run
    client.update_run(recorded.info.run_id, status="RUNNING")
    for host in ("far", socket.gethostname()):
        tags = {"mnist_exp.host": host, "mnist_exp.output": str(tmp_path / "gone")}
        client.create_run(recorded.info.experiment_id, tags=tags, start_time=now())
    assert [run.info.status for run in runs_in(tmp_path)] == ["RUNNING"] * 3
    run(*QUICK)
    assert [run.info.status for run in runs_in(tmp_path)] == ["KILLED", "RUNNING", "KILLED", "FINISHED"]
    assert Folder(result.output).read().status == "KILLED"


CHANGES_ITS_MIND = """
import sqlite3
import keras

@keras.saving.register_keras_serializable()
class Elsewhere(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        with sqlite3.connect("mlflow.db", timeout=30) as database:
            database.execute("UPDATE runs SET artifact_uri = 'elsewhere'")

    def get_config(self):
        return {}
"""


def test_an_artifact_address_that_changes_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CHANGES_ITS_MIND)
    done = in_process("code=mine.py", "training.callbacks={Elsewhere:{}}", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert "does not take it (tracking.uri=sqlite:///" in done.stdout


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("UPDATE runs SET artifact_uri = ?", "file://[bad"),
        ("UPDATE runs SET artifact_uri = ?", "mlruns/1#/../../elsewhere"),
        ("UPDATE latest_metrics SET value = ? WHERE key = 'objective'", "much"),
        ("UPDATE tags SET value = ? WHERE key = 'mnist_exp.record'", '{"host": "\\u001b[2J", "threads": 2}'),
        ("INSERT INTO tags SELECT 'mnist_exp.swept', ?, run_uuid FROM runs", "[" * 5000),
    ],
)
def test_damaged_run_of_a_store_is_one_message(quick_folder: Path, tmp_path: Path, query: str, value: str) -> None:
    shutil.copy(quick_folder / "mlflow.db", tmp_path)
    [recorded] = runs_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute(query, [value])
        database.commit()
    for module, arguments in (("compare", ()), ("rerun", (recorded.info.run_id,))):
        done = in_process(*arguments, cwd=tmp_path, module=f"mnist_exp.{module}")
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == done.returncode
        assert "\x1b[2J" not in done.stdout + done.stderr


CONNECTS = """
from mnist_exp.config.composition import compose
from mnist_exp.tracking.store import connect
print(connect(compose([]).config.tracking).experiment_id)
"""


@pytest.mark.slow
def test_four_processes_at_once_on_a_store_that_does_not_exist(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
    program = [sys.executable, "-c", CONNECTS]
    started = [subprocess.Popen(program, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=300)[0] for process in started] == ["1\n"] * 4
    assert len(store(tmp_path).search_experiments()) == 2  # one is MLflow's own


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/mlflow.db")
    run(*QUICK)
    [recorded] = runs_in(tmp_path / "elsewhere")
    assert recorded.info.artifact_uri.startswith((tmp_path / "elsewhere" / "mlruns").as_uri())
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_on_a_server(used_server: str, capfd: pytest.CaptureFixture[str]) -> None:
    uri = used_server
    result = run("tracking=server", f"tracking.uri={uri}", *QUICK)
    assert result.run_id is not None
    client = MlflowClient(uri)
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert "figures/curves.png" in artifacts(client, result.run_id)
    assert f"{uri}/#/experiments/" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", "no MLflow server answers"),
        ("sqlite:////nowhere/at/all/mlflow.db", "cannot be written"),
        ("sqlite:///text.db", "file is not a database"),
        ("postgresql://me@127.0.0.1:9/db", "tracking.uri=postgresql://127.0.0.1:9/db"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_message(tmp_path: Path, uri: str, message: str) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough for SQLite to look at its header" * 4)
    done = in_process(f"tracking.uri={uri}", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "tracking=none trains without" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [*tmp_path.glob("outputs/*/*")]


def test_a_deleted_experiment_is_named() -> None:
    run(*QUICK)
    store(Path()).delete_experiment(runs_in(Path())[0].info.experiment_id)
    with pytest.raises(InputError, match=r"tracking\.experiment=mnist_exp: was deleted in this store"):
        run(*QUICK)


def test_telemetry_is_off(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from mnist_exp.tracking.mlflow_import import import_mlflow; import_mlflow()\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    env = {key: value for key, value in os.environ.items() if key not in {"CI", "MLFLOW_DISABLE_TELEMETRY"}}
    env["PYTHONPATH"] = str(Path(mnist_exp.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
