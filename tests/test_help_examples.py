"""The examples that `--help` of a command prints are typed in bash, as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

import mnist_exp

from .conftest import QUICK, in_process, runs_in

ROOT = Path(mnist_exp.__file__).parents[1]
PICTURE = ROOT / "docs/seven.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples name: runs, a sweep, a champion, another experiment and store, pictures."""
    folder = tmp_path_factory.mktemp("examples")
    done = in_process("-m", "model.hidden=64,32", "training.epochs=3", "optimizer.learning_rate=0.01", cwd=folder)
    assert done.returncode == 0, done.stderr
    with chdir(folder):
        result = mnist_exp.run(*QUICK, "tracking.register=digits")
        mnist_exp.run(*QUICK, "tracking.experiment=mine")
    named = folder / "outputs/2026-01-31/12-00-00-000000/model.keras"
    named.parent.mkdir(parents=True)
    shutil.copy(result.output / "model.keras", named)
    shutil.copy(folder / "mlflow.db", folder / "other.db")
    [of_sweep] = folder.glob("multirun/*/*/report.json")
    shutil.copytree(of_sweep.parent, folder / "multirun/2026-01-31/12-00-00-000000")
    (folder / "scans").mkdir()
    for name in ("three.png", "four.jpg", "scans/one.png", "scans/two.png"):
        shutil.copy(PICTURE, folder / name)  # pictures are known by what they hold, whatever they are called
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["show", "compare", "predict", "rerun", "report"])
def test_the_examples_of_help_run_as_they_are_printed(folder: Path, name: str) -> None:
    _, examples = in_process("--help", cwd=folder, module=f"mnist_exp.{name}").stdout.split("examples:\n")
    sweep, _, _, run = (found.info.run_id for found in runs_in(folder)[:4])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    typed = [line.strip() for line in examples.splitlines() if line.strip()]
    assert len(typed) >= 3
    for line in typed:
        assert line.startswith(f"python -m mnist_exp.{name} ")
        if "fashion_mnist" in line:  # needs a network
            continue
        text = re.sub("SWEEP_ID", sweep[:12], re.sub("RUN_ID", run[:12], line))
        bash = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "command not found" not in done.stderr, f"{line}\n{done.stderr}"
        assert done.stdout or ">" in line
