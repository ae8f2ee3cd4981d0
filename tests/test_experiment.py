"""What makes two experiments the same: a result is used again only if nothing that could change it did."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_exp
from mnist_exp import experiment
from mnist_exp.config.composition import compose
from mnist_exp.config.presets import CONF

from .conftest import QUICK, command, runs_in


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this project, to be edited, as a folder for PYTHONPATH."""
    root = Path(mnist_exp.__file__).parents[1]
    for name in ("mnist_exp", "hydra_plugins"):
        shutil.copytree(root / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "copy" / "conf", dirs_exist_ok=True)
    return tmp_path / "copy"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, path
    path.write_text(text.replace(old, new))


# Of a module of what trains, something to edit that changes the loss.
EDITS = {
    "learning/models.py": ('"activation": "softmax"', '"activation": "softplus"'),
    "learning/training.py": ("training.loss or (", 'training.loss or "MeanSquaredError" or ('),
    "learning/datasets.py": ("np.sort(order[:size]), np.sort(order[size:])", "order[:size], order[size:]"),
}


@pytest.mark.slow
def test_an_edit_of_what_trains_skips_nothing_and_one_of_a_figure_or_a_table_everything(
    tmp_path: Path, copy: Path
) -> None:
    arguments = (*QUICK, "dataset.validation=100", "resume=true")
    assert command(*arguments, cwd=tmp_path, PYTHONPATH=str(copy)).returncode == 0
    for name in ("figures.py", "sweeps/ranking.py"):
        with (copy / "mnist_exp" / name).open("a") as module:
            module.write("\n\nprint('edited')\n")
    assert "has finished this before" in command(*arguments, cwd=tmp_path, PYTHONPATH=str(copy)).stdout
    assert len(runs_in(tmp_path)) == 1
    for name, (old, new) in EDITS.items():
        edit(copy / "mnist_exp" / name, old, new)
        edited = command(*arguments, cwd=tmp_path, PYTHONPATH=str(copy))
        assert edited.returncode == 0, edited.stderr
        assert "has finished this before" not in edited.stdout
    recorded = runs_in(tmp_path)
    for name in ("mnist_exp.code", "mnist_exp.signature"):
        assert len({run.data.tags[name] for run in recorded}) == 1 + len(EDITS)
    assert len({run.data.metrics["test_loss"] for run in recorded}) == 1 + len(EDITS)


@pytest.mark.slow
def test_after_an_edit_a_sweep_has_a_new_parent(tmp_path: Path, copy: Path) -> None:
    sweep = ("-m", *QUICK, "training.epochs=1", "seed=0,1", "resume=true")
    for _ in range(2):
        assert command(*sweep, cwd=tmp_path, PYTHONPATH=str(copy)).returncode == 0
    [parent] = [run for run in runs_in(tmp_path) if "mnist_exp.sweep" in run.data.tags]
    assert len(runs_in(tmp_path)) == 3
    edit(copy / "mnist_exp" / "learning/models.py", *EDITS["learning/models.py"])
    assert command(*sweep, cwd=tmp_path, PYTHONPATH=str(copy)).returncode == 0
    recorded = runs_in(tmp_path)
    parents = [run.info.run_id for run in recorded if "mnist_exp.sweep" in run.data.tags]
    assert parents[0] == parent.info.run_id
    jobs = [run.data.tags.get("mlflow.parentRunId") for run in recorded]
    assert [jobs.count(one) for one in parents] == [2, 2]


# What the code that can change a result imports from elsewhere: what was typed, signals, texts and checks.
FROM_ELSEWHERE = {"config", "errors", "experiment", "interrupts"}


@pytest.mark.fast
def test_the_code_that_can_change_a_result_is_in_its_folder() -> None:
    package = Path(mnist_exp.__file__).parent
    imported = set()
    for path in (package / "learning").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "mnist_exp":
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("mnist_exp."):
                imported.add(str(node.module).split(".")[1])
    assert imported - {"learning"} == FROM_ELSEWHERE


@pytest.mark.fast
def test_an_experiment_is_a_value_that_needs_nothing() -> None:
    code = "import sys, mnist_exp.experiment; print({'hydra', 'mlflow', 'keras', 'numpy'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.fast
def test_another_version_of_a_package_is_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([]).config
    before = experiment.experiment_signature(config, "digest")
    assert before == experiment.experiment_signature(config, "digest")
    for package in ("numpy", "keras", "tensorflow"):
        with monkeypatch.context() as changed:
            changed.setattr(
                importlib.metadata, "version", lambda name, package=package: "9" if name == package else "1"
            )
            one = experiment.experiment_signature(config, "digest")
            changed.setattr(importlib.metadata, "version", lambda _: "1")
            assert one != experiment.experiment_signature(config, "digest")
