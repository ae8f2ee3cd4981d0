"""What a sweep, or a run, with `resume=true` says that it found, and why it found nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from ..conftest import Arrays, facts, in_process, runs_in, sweep_in

pytestmark = pytest.mark.slow

SHORT = ("dataset.limit=500", "dataset.validation=100", "training.epochs=1")


def said(*typed: str, cwd: Path) -> str:
    """Return the line below the first one of a sweep with resume=true."""
    done = in_process(*typed, *SHORT, "resume=true", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()["-m" in typed]


def sweeps(folder: Path) -> list[str]:
    """Return the beginnings of the ids of all sweeps."""
    return [run.info.run_id[:8] for run in runs_in(folder) if "mnist_exp.sweep" in run.data.tags]


def test_sweep_counts_finished_runs_or_names_the_difference(tmp_path: Path) -> None:
    assert said("-m", "model.hidden=8,16", cwd=tmp_path) == "none finished before: no earlier run is like it"
    assert said("-m", "model.hidden=8,16", cwd=tmp_path) == "2 of 2 finished before"
    more = in_process("-m", "model.hidden=8,16,4", *SHORT, "resume=true", cwd=tmp_path).stdout
    for hidden in (8, 16):
        assert re.search(f"\\n[12] of 3 done: hidden={hidden}: finished before, as run [0-9a-f]{{32}}\n", more)
    assert more.count(" done") == 3
    _, wider = sweeps(tmp_path)
    other = said("-m", "model.hidden=32,2", cwd=tmp_path)
    assert re.fullmatch("none finished before: other configuration than run [0-9a-f]{32}", other)
    [parent] = [run for run in runs_in(tmp_path) if run.info.run_id.startswith(wider)]
    assert "best_run" in facts(parent)


def test_a_sweep_of_other_data_does_not_count_its_own_jobs(tmp_path: Path, small: Arrays) -> None:
    np.savez(tmp_path / "mine.npz", **small)
    typed = ("-m", "dataset=npz", "dataset.path=mine.npz", "seed=0,1")
    said(*typed, cwd=tmp_path)
    assert said(*typed, cwd=tmp_path) == "2 of 2 finished before"
    np.savez(tmp_path / "mine.npz", **small | {"x_train": 255 - small["x_train"]})
    [sweep] = sweeps(tmp_path)
    line = said(*typed, cwd=tmp_path)
    assert re.fullmatch("none finished before: other data than run [0-9a-f]{32}", line)
    assert sweeps(tmp_path) == [sweep]  # the same goes on
    assert len(sweep_in(tmp_path)[1]) == 4
    assert said(*typed, cwd=tmp_path) == "2 of 2 finished before"


def test_sweep_without_finished_jobs_names_its_folder(tmp_path: Path) -> None:
    typed = ("-m", "optimizer=sgd", "optimizer.learning_rate=1e38,2e38", *SHORT, "tracking=none", "resume=true")
    first, again = (in_process(*typed, cwd=tmp_path) for _ in range(2))
    assert first.returncode == again.returncode == 1
    folder = first.stdout.split("Report: ")[1].split("/report.html")[0]
    assert f"\nThe sweep in {folder} goes on; none of its jobs finished before\n" in again.stdout
