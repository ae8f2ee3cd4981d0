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

from .conftest import QUICK, in_process, runs_in


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this project, to be edited, as a folder for PYTHONPATH."""
    root = Path(mnist_exp.__file__).parents[1]
    for name in ("mnist_exp", "hydra_plugins"):
        shutil.copytree(root / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "copy" / "conf", dirs_exist_ok=True)
    return tmp_path / "copy"


@pytest.mark.fast
def test_an_edit_of_what_trains_changes_the_digest_and_no_other_does(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = copy / "mnist_exp"
    before = experiment.code_digest()
    monkeypatch.setattr(experiment, "__file__", str(package / "experiment.py"))
    digest = experiment.code_digest.__wrapped__
    assert digest() == before
    for path in sorted(package.rglob("*.py")):
        path.write_text(path.read_text() + "\n")
        trains = path.parent.name == "learning" or path == package / "runner.py"
        assert (digest() != before) == trains, path
        before = digest()


def test_after_an_edit_nothing_has_finished_before_and_a_sweep_has_a_new_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (*QUICK, "training.epochs=1", "dataset.limit=500", "resume=true")
    for _ in range(2):
        assert in_process("-m", *small, "seed=0,1", cwd=tmp_path).returncode == 0
    assert "has finished this before" in in_process(*small, "seed=0", cwd=tmp_path).stdout
    assert len(runs_in(tmp_path)) == 3
    monkeypatch.setattr(experiment, "code_digest", lambda: "edited")
    assert in_process("-m", *small, "seed=0,1", cwd=tmp_path).returncode == 0
    recorded = runs_in(tmp_path)
    parents = [run.info.run_id for run in recorded if "mnist_exp.sweep" in run.data.tags]
    jobs = [run.data.tags.get("mlflow.parentRunId") for run in recorded]
    assert [jobs.count(one) for one in parents] == [2, 2]
    assert len({run.data.tags["mnist_exp.signature"] for run in recorded if run.info.run_id not in parents}) == 4


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
