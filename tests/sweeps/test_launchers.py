"""One sweep under every launcher; each needs an extra, and says so where it is missing."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from ..conftest import (
    Server,
    SharedFolder,
    alone_with_ray,
    facts,
    in_process,
    installed,
    start,
    sweep_in,
    wait_for_line,
    wait_until_an_epoch_is_recorded,
)

FAST = ("dataset.limit=1200", "dataset.validation=200", "training.epochs=2", "training.batch_size=100")


def needs(distribution: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not installed(distribution), reason=f"needs pip install -e '.[{extra}]'")


def scores(folder: Path, experiment: str = "mnist_exp") -> dict[str, tuple[float, float]]:
    _, jobs = sweep_in(folder, experiment)
    return {
        str(job.info.run_name): (job.data.metrics["test_accuracy"], job.data.metrics["val_loss"])
        for job in jobs
        if job.info.status == "FINISHED"
    }


OWN_MODEL = """
import keras
import mnist_exp

@mnist_exp.model
def own(images, filters: int = 8):
    return keras.layers.Flatten()(keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(images))
"""
PRESET = """# @package _global_
dataset: {limit: 1200, validation: 200}
training: {epochs: 2, batch_size: 100}
"""
SPY = "import pathlib\npathlib.Path(__file__).with_name('HACKED').touch()\nraise SystemExit('was imported')\n"


def own_sweep(*launcher: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Sweep over two seeds with a preset, code of one's own, and modules in the current folder that none may import.

    The code is what was typed, not what lies there by the time that a job starts: a job that read the file would find
    none.
    """
    (cwd / "presets" / "experiment").mkdir(parents=True)
    (cwd / "presets" / "experiment" / "narrow.yaml").write_text(PRESET)
    (cwd / "mine.py").write_text(OWN_MODEL)
    for name in ("numpy", "joblib", "submitit", "ray"):
        (cwd / f"{name}.py").write_text(SPY)
    typed = ("--config-dir", "presets", "-m", "experiment=narrow", "code=mine.py", "model=own", "seed=0,1")
    process = start(*typed, *launcher, cwd=cwd, RAY_AUTH_MODE="disabled", **env)
    wait_for_line(process, "2 jobs")
    (cwd / "mine.py").unlink()
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(typed, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def own_sweep_folder(shared_folder: SharedFolder) -> Path:
    """A folder in which Hydra's basic launcher ran it."""
    return shared_folder("own-sweep", own_sweep)


LAUNCHERS = [
    pytest.param("joblib", marks=needs("hydra-joblib-launcher", "joblib")),
    pytest.param("ray", marks=needs("hydra-ray-launcher", "ray")),
    pytest.param("submitit_slurm", marks=needs("hydra-submitit-launcher", "slurm")),
]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_are_equal_in_any_process(tmp_path: Path, own_sweep_folder: Path, launcher: str) -> None:
    """A convolution does not if the number of threads differs."""
    if launcher == "submitit_slurm":
        if shutil.which("sinfo") is None:
            pytest.skip("needs Slurm's sbatch")
        answer = subprocess.run(["sinfo"], capture_output=True, text=True, check=False)
        if "idle" not in answer.stdout:
            pytest.skip(f"no Slurm node is idle: {answer.stderr}")
    with alone_with_ray() if launcher == "ray" else nullcontext():
        done = own_sweep(f"hydra/launcher={launcher}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(scores(tmp_path)) == 2
    assert scores(tmp_path) == scores(own_sweep_folder)
    jobs = sweep_in(tmp_path)[1]
    assert len({facts(job)["process"] for job in jobs}) == 2
    assert {job.data.params["training.epochs"] for job in jobs} == {"2"}
    assert not (tmp_path / "HACKED").exists()


@needs("hydra-submitit-launcher", "slurm")
def test_no_launcher_writes_a_password_down(tmp_path: Path, server: Server) -> None:
    uri, _ = server
    secret = {"MLFLOW_TRACKING_URI": uri.replace("http://", "http://me:hunter2@")}
    done = own_sweep("hydra/launcher=submitit_local", cwd=tmp_path, **secret)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "HACKED").exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in written)
    for path in written:
        assert b"hunter2" not in path.read_bytes(), path


@needs("hydra-joblib-launcher", "joblib")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.release)]
)
def test_interrupted_joblib_sweep_has_no_running_job(tmp_path: Path, number: int, code: int) -> None:
    lengths = "training.epochs=2,100000,100001"
    process = start("-m", *FAST[:2], lengths, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    wait_for_line(process, "1 of 3 done")
    process.send_signal(number)
    process.communicate(timeout=300)
    assert process.returncode == code
    parent, jobs = sweep_in(tmp_path)
    assert parent.info.status == "KILLED"
    assert {job.info.status for job in jobs} <= {"FINISHED", "KILLED"}
    assert "KILLED" in {job.info.status for job in jobs}


@needs("hydra-submitit-launcher", "slurm")
def test_jobs_that_no_signal_reaches_end_with_their_sweep(tmp_path: Path) -> None:
    sweep = ("-m", *FAST[:2], "training.epochs=100000,100001", "hydra/launcher=submitit_local")
    process = start(*sweep, cwd=tmp_path)
    wait_for_line(process, "2 jobs")
    wait_until_an_epoch_is_recorded(tmp_path)
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 143
    parent, jobs = sweep_in(tmp_path)
    assert [run.info.status for run in [parent, *jobs]] == ["KILLED"] * (1 + len(jobs))


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A Ray cluster of two nodes on this machine, with a CPU each."""
    ray = Path(sys.executable).with_name("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with alone_with_ray():
        start_node = [str(ray), "start", "--num-cpus=1", "--disable-usage-stats"]
        try:
            subprocess.run(
                [*start_node, "--head", "--port=6399", "--include-dashboard=false"], check=True, capture_output=True
            )
            subprocess.run([*start_node, "--address=127.0.0.1:6399"], check=True, capture_output=True)
            status = [str(ray), "status", "--address=127.0.0.1:6399"]
            while subprocess.run(status, capture_output=True, text=True, check=True).stdout.count(" node_") < 2:
                pass
            yield {"RAY_ADDRESS": "127.0.0.1:6399"}
        finally:
            subprocess.run([str(ray), "stop", "--force"], check=True, capture_output=True)


@pytest.mark.release
@needs("hydra-ray-launcher", "ray")
def test_a_ray_cluster_of_two_nodes_gives_the_same_scores(
    tmp_path: Path, own_sweep_folder: Path, ray_cluster: dict[str, str]
) -> None:
    on_ray = ("hydra/launcher=ray", "hydra.launcher.ray.init.address=auto")
    done = own_sweep(*on_ray, cwd=tmp_path, **ray_cluster)
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path) == scores(own_sweep_folder)
    assert len({facts(job)["process"] for job in sweep_in(tmp_path)[1]}) == 2


@pytest.mark.skipif(installed("hydra-ray-launcher"), reason="it is installed")
def test_missing_launcher_names_its_extra(tmp_path: Path) -> None:
    done = in_process("-m", "seed=0,1", "hydra/launcher=ray", cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == "hydra/launcher=ray: is not installed; pip install -e '.[ray]' in the project's folder brings it\n"
    )
    assert list(tmp_path.iterdir()) == []
