"""What an outage kept back comes into the store, once."""

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mnist_exp import ends, run
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

from .conftest import QUICK, artifacts, facts, in_process, runs_in, store, sweep_in

pytestmark = pytest.mark.slow

HIDES_THE_STORE = """
import pathlib
import keras

@keras.saving.register_keras_serializable()
class Away(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        pathlib.Path("mlflow.db").rename("away.db")
        pathlib.Path("mlflow.db").mkdir()

    def get_config(self):
        return {}
"""


def sync(*typed: str, cwd: Path) -> str:
    done = in_process(*typed, cwd=cwd, module="mnist_exp.sync")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def points(folder: Path, run_id: str) -> dict[str, list[tuple[int, int, float]]]:
    """Return the metrics that a store has of a run: step, time and value of each point."""
    client = store(folder)
    names = client.get_run(run_id).data.metrics
    return {
        name: [(point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, name)]
        for name in names
    }


@pytest.mark.parametrize("sends", ["sync", "resume=true"])
def test_a_run_outlasts_its_store_and_the_rest_is_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sends: str
) -> None:
    (tmp_path / "away.py").write_text(HIDES_THE_STORE)
    typed = (*QUICK, "code=away.py", "training.callbacks={Away:{}}")
    with monkeypatch.context() as patched:
        patched.setitem(vars(ends.FINISHED), "seconds", 1.0)
        done = in_process(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, scores, _, where, _, line = done.stdout.splitlines()
    assert scores.startswith("TEST accuracy: 0.")
    assert where.startswith("Run ")
    [output] = (path.parent for path in tmp_path.glob("outputs/*/*/run.json"))
    place = output.relative_to(tmp_path)
    assert line.startswith(f"Not all of {place} has reached sqlite:///mlflow.db (")
    assert line.endswith(f"; python -m mnist_exp.sync {place} sends the rest")
    (tmp_path / "mlflow.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "mlflow.db")
    [recorded] = runs_in(tmp_path)
    assert recorded.info.status == "RUNNING"
    for _ in range(2):
        if sends == "sync":
            assert sync(cwd=tmp_path) == "1 folder up to date in sqlite:///mlflow.db\n"
        else:
            assert in_process(*typed, sends, cwd=tmp_path).returncode == 0
        [recorded] = runs_in(tmp_path)
        assert recorded.info.status == "FINISHED"
        lines = Folder(output).read_metrics()
        for name, found in points(tmp_path, recorded.info.run_id).items():
            assert found == [
                (line["step"], line["time"], line["metrics"][name]) for line in lines if name in line["metrics"]
            ]
        assert "figures/curves.png" in artifacts(store(tmp_path), recorded.info.run_id)
        [model] = store(tmp_path).search_logged_models([recorded.info.experiment_id])
        assert model.status == "READY"


def test_sweep_is_sent_to_another_store_with_its_jobs(tmp_path: Path) -> None:
    assert in_process("-m", *QUICK, "seed=0,1", cwd=tmp_path).returncode == 0
    here, jobs = sweep_in(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "multirun", elsewhere / "multirun")
    done = in_process(str(tmp_path / "multirun"), cwd=elsewhere, module="mnist_exp.sync")
    assert done.returncode == 1
    assert "is of another project; type this there, or tracking.uri=sqlite:///mlflow.db to send it here" in done.stderr
    assert not (elsewhere / "mlflow.db").exists()
    for _ in range(2):
        assert (
            sync("multirun", "tracking.uri=sqlite:///mlflow.db", cwd=elsewhere)
            == "3 folders up to date in sqlite:///mlflow.db\n"
        )
        parent, below = sweep_in(elsewhere)
        assert parent.info.run_id != here.info.run_id
        assert [job.data.params for job in below] == [job.data.params for job in jobs]
        assert facts(parent)["best_run"] in {job.info.run_id for job in below}
        assert parent.data.metrics == here.data.metrics
        assert "report.html" in artifacts(store(elsewhere), parent.info.run_id)
        assert len(runs_in(elsewhere)) == 3


def test_an_untracked_run_is_sent_by_its_folders_name(tmp_path: Path) -> None:
    result = run(*QUICK, "tracking=none")
    done = in_process(cwd=tmp_path, module="mnist_exp.sync")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nothing to send: ")
    assert not (tmp_path / "mlflow.db").exists()
    sync(str(result.output), "tracking.experiment=mine", cwd=tmp_path)
    [sent] = runs_in(tmp_path, "mine")
    assert sent.data.metrics["test_loss"] == result.scores["test_loss"]
    store(tmp_path).delete_run(sent.info.run_id)
    sync(str(result.output), "tracking.experiment=mine", cwd=tmp_path)
    assert runs_in(tmp_path, "mine") == [], "what was deleted in MLflow came back"


def test_run_without_a_process_is_marked_killed(tmp_path: Path) -> None:
    Folder(tmp_path / "outputs/a").write(Record("a run", {}))
    sync("outputs/a", cwd=tmp_path)
    assert [run.info.status for run in runs_in(tmp_path)] == ["KILLED"]


def test_folder_that_is_not_sent_in_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*QUICK, "training.epochs=1")
    folder = tmp_path / "outputs/a"
    Folder(folder).write(Record("a run", {}, {"seed": "0"}, status="FINISHED", end=1))
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON params BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with monkeypatch.context() as patched:
        patched.setitem(vars(ends.FINISHED), "seconds", -1.0)
        done = in_process(str(folder), cwd=tmp_path, module="mnist_exp.sync")
    left = f"has not all of 1 folder, such as {folder} (disk is full; type the command again)"
    assert (done.returncode, done.stderr.strip()) == (1, f"sqlite:///mlflow.db: {left}")
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("DROP TRIGGER full")
    assert sync(str(folder), cwd=tmp_path).startswith("1 folder up to date ")


@pytest.mark.fast
def test_missing_folder_is_named(tmp_path: Path) -> None:
    done = in_process("nowhere", cwd=tmp_path, module="mnist_exp.sync")
    assert (done.returncode, done.stderr) == (
        1,
        "nowhere: no such folder; type the folder of a run or a sweep, or one above\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_record_that_no_store_takes_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    monkeypatch.setattr(time, "sleep", tried.append)  # before another try
    for folder, name in (("good", "x"), ("bad", "x\ud800")):
        record = Record(name, {}, status="FINISHED", end=1, tracking={"experiment": "mnist_exp"})
        Folder(tmp_path / "outputs" / folder).write(record)
    done = in_process(cwd=tmp_path, module="mnist_exp.sync")
    assert done.returncode == 1
    assert "has not all of 1 folder, such as" in done.stderr
    assert "surrogates not allowed" in done.stderr
    assert tried == []
    assert [run.info.run_name for run in runs_in(tmp_path)] == ["x"]


@pytest.mark.parametrize("place", ["move", "copytree"])
def test_a_moved_or_copied_project_works_after_one_command(tmp_path: Path, place: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    typed = (*QUICK, "tracking.register=digits")
    assert in_process(*typed, cwd=old).returncode == 0
    assert in_process("-m", *QUICK, "seed=0,1", cwd=old).returncode == 0
    getattr(shutil, place)(old, new)
    before = (old / "mlflow.db").read_bytes() if old.exists() else b""
    refused = in_process(*typed, cwd=new)
    assert refused.returncode == 1
    assert "python -m mnist_exp.sync --moved" in refused.stderr
    assert len(runs_in(new)) == 4

    assert sync("--moved", cwd=new).endswith(" places in mlflow.db changed to this folder\n")
    assert sync("--moved", cwd=new) == "0 places in mlflow.db changed to this folder\n"
    if old.exists():
        assert (old / "mlflow.db").read_bytes() == before
        shutil.rmtree(old)
    run_id = runs_in(new)[0].info.run_id
    again = in_process(*typed, "resume=true", cwd=new)
    assert (again.returncode, again.stderr) == (0, "")
    assert "Epoch" not in again.stdout
    sweep = in_process("-m", *QUICK, "seed=0,1", "resume=true", cwd=new)
    assert "2 of 2 finished before" in sweep.stdout
    seven = str(Path(__file__).parents[1] / "docs/seven.png")
    for module, *arguments in (("rerun", run_id), ("predict", "models:/digits@champion", seven), ("tidy",)):
        done = in_process(*arguments, cwd=new, module=f"mnist_exp.{module}")
        assert (done.returncode, done.stderr) == (0, ""), module


@pytest.mark.fast
def test_sync_imports_no_backend() -> None:
    heavy = "{'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    code = f"import sys, mnist_exp.sync, mnist_exp.tracking.mirror; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
