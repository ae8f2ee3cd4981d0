"""A store that is away for a while, or does what it does not say, has all in the end, once."""

import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import QUICK, in_process, store
from .left import left
from .outages import MOMENTS, SYNC, cases
from .proxy import Fault, proxied
from .watched import epochs

pytestmark = pytest.mark.slow

SWEEP = ("-m", *QUICK, "seed=0,1")


def lacking(folder: Path, client: MlflowClient, experiment: str = "mnist_exp", jobs: int | None = 0) -> dict[str, int]:
    """Return the counts that are not 0; `jobs` as for `left`."""
    return {count: len(lines) for count, lines in left(folder, jobs, client, experiment).items() if lines}


def uploaded(folder: Path, client: MlflowClient, experiment: str, jobs: int = 0) -> dict[str, int]:
    """Return the counts that are not 0 after `sync`, twice."""
    for _ in range(2):
        done = in_process(cwd=folder, module=SYNC, MLFLOW_TRACKING_URI=client.tracking_uri)
        assert done.returncode == 0, done.stderr
    return lacking(folder, client, experiment, jobs)


@pytest.mark.parametrize(
    ("moment", "fault"),
    [
        ("at a job's start", Fault("lost", share=0.2)),
        ("in training", Fault("refused", 2)),
        ("while a model is uploaded", Fault(500, share=0.3)),
    ],
)
def test_run_is_complete_after_an_outage(tmp_path: Path, used_server: str, moment: str, fault: Fault) -> None:
    experiment = f"a run {fault.kind}"
    with proxied(used_server) as proxy:
        proxy.fail_at(fault, MOMENTS[moment])
        done = in_process(*QUICK, f"tracking.experiment='{experiment}'", cwd=tmp_path, MLFLOW_TRACKING_URI=proxy.uri)
        assert proxy.began is not None
        proxy.heal()
        assert done.returncode == 0, done.stderr
        assert "TEST accuracy: " in done.stdout
        assert uploaded(tmp_path, MlflowClient(proxy.uri), experiment) == {}


def test_sweep_is_complete_after_an_outage_at_a_jobs_start(tmp_path: Path, used_server: str) -> None:
    experiment = "a sweep, away"
    with proxied(used_server) as proxy:
        proxy.fail_at(Fault("refused", 3), MOMENTS["at the end"], answered=True)
        done = in_process(*SWEEP, f"tracking.experiment='{experiment}'", cwd=tmp_path, MLFLOW_TRACKING_URI=proxy.uri)
        assert proxy.began is not None
        proxy.heal()
        assert done.returncode == 0, done.stderr
        assert uploaded(tmp_path, MlflowClient(proxy.uri), experiment, jobs=2) == {}


def test_an_absent_server_ends_a_command_before_training(tmp_path: Path, used_server: str) -> None:
    with proxied(used_server) as proxy:
        proxy.fail(Fault("refused"))
        done = in_process(*QUICK, cwd=tmp_path, MLFLOW_TRACKING_URI=proxy.uri)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert epochs(tmp_path) == 0


def test_restored_database_has_all_runs(tmp_path: Path) -> None:
    """It is away from the first epoch until the fifteenth is measured, or the run has ended."""
    ended = threading.Event()

    def until(lines: int) -> None:
        while epochs(tmp_path) < lines and not ended.is_set():
            time.sleep(0.001)

    def move() -> None:
        until(1)
        (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
        until(15)
        (tmp_path / "away.db").replace(tmp_path / "mlflow.db")

    mover = threading.Thread(target=move)
    mover.start()
    done = in_process(*QUICK, "training.epochs=20", cwd=tmp_path)
    ended.set()
    mover.join()
    assert done.returncode == 0, done.stderr
    assert uploaded(tmp_path, store(tmp_path), "mnist_exp") == {}


def test_each_fault_is_tried_at_each_moment_and_of_each_command() -> None:
    assert len({case[:2] for case in cases(42, 0)}) == 42
    assert len(set(cases(168, 0))) == len(set(cases(168, 7))) == 168
