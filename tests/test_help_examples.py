"""The examples that `--help` of a command prints are typed as they are printed."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest

import mnist_exp

from .conftest import QUICK, in_process, runs_in
from .test_docs import Command, Reader

PICTURE = Path(mnist_exp.__file__).parents[1] / "docs/seven.png"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Somebody in a folder with what the examples name: runs, one of which failed, a sweep, a champion, pictures."""
    folder = tmp_path_factory.mktemp("examples")
    done = in_process("-m", "model.hidden=64,32", "training.epochs=2", "optimizer.learning_rate=0.03", cwd=folder)
    assert done.returncode == 0, done.stderr
    with chdir(folder):
        result = mnist_exp.run(*QUICK, "tracking.register=digits")
    failed = in_process(*QUICK, "optimizer.learning_rate=1e38", cwd=folder)
    assert failed.returncode == 1, failed.stdout
    named = folder / "outputs/2026-01-31/12-00-00/model.keras"
    named.parent.mkdir(parents=True)
    shutil.copy(result.output / "model.keras", named)
    shutil.copy(folder / "mlflow.db", folder / "other.db")
    (folder / "pics").mkdir()
    for name in ("three.png", "four.jpg", "pics/one.png", "pics/two.png"):
        shutil.copy(PICTURE, folder / name)  # pictures are known by what they hold, whatever they are called
    return Reader(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["show", "compare", "predict", "rerun"])
def test_examples_of_help_run(reader: Reader, name: str) -> None:
    _, examples = in_process("--help", cwd=reader.folder, module=f"mnist_exp.{name}").stdout.split("examples:\n")
    sweep, _, _, run = (found.info.run_id for found in runs_in(reader.folder)[:4])
    typed = [line.strip() for line in examples.splitlines() if line.strip()]
    assert len(typed) >= 3
    for line in typed:
        assert line.startswith(f"python -m mnist_exp.{name} ")
        before = len(reader.printed)
        text = line.replace("SWEEP_ID", sweep[:12]).replace("RUN_ID", run[:12])
        reader.type(Command(text, "", "bash", f"--help of {name}"))
        assert len(reader.printed) > before or ">" in line or "fashion_mnist" in line
