"""What a run records of the code that trained it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_exp

pytestmark = pytest.mark.fast

ROOT = Path(mnist_exp.__file__).parents[1]
PATCH = "from mnist_exp.tracking.environment import code_patch; print(code_patch(), end='')"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of this project with one commit."""
    folder = tmp_path / "checkout"
    for name in ("mnist_exp", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "mnist.npz"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=first")
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def patch_of(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PATCH], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_git_applies_the_patch_of_uncommitted_changes(checkout: Path) -> None:
    assert patch_of(checkout) == ""
    changed = checkout / "mnist_exp" / "runner.py"
    before = changed.read_text()
    changed.write_text(f"{before}# another line\n")
    (checkout / "unknown.txt").write_text("git does not know this file")
    patch = patch_of(checkout)
    assert "+# another line" in patch
    assert "unknown.txt" not in patch
    changed.write_text(before)
    (checkout / "changes.patch").write_text(patch)
    git(checkout, "apply", "changes.patch")
    assert changed.read_text() == f"{before}# another line\n"


def test_a_patch_has_no_password_and_large_ones_are_dropped(checkout: Path) -> None:
    config = checkout / "conf" / "config.yaml"
    config.write_text("address: https://me:hunter2@host/mlflow\n")
    assert "https://host/mlflow" in (patch := patch_of(checkout))
    assert "hunter2" not in patch
    config.write_text("# a line\n" * 200_000)
    assert patch_of(checkout).startswith("The changes are not kept: they have 2")


def test_only_this_projects_checkout_counts(checkout: Path) -> None:
    inside = checkout / "venv" / "site-packages"
    for name in ("mnist_exp", "conf", "hydra_plugins"):
        shutil.copytree(checkout / name, inside / name)
    (checkout / "conf" / "config.yaml").write_text("# changed\n")
    assert patch_of(inside) == ""
