"""Whole experiments on all of MNIST, and the same ones from other files."""

import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import run
from mnist_exp.config.keras_backend import keras
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.record import Run

from .conftest import QUICK, command


def weights(folder: Path) -> list[Any]:
    """The weights of the one model that was trained in `folder`."""
    [path] = folder.glob("outputs/*/*/model.keras")
    return list(keras.saving.load_model(path).get_weights())


def assert_same_weights(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.release) for seed in range(1, 5))])
def test_the_baseline_reaches_the_published_scores(seed: int) -> None:
    result = run(f"seed={seed}", "tracking=none")
    assert 0.885 <= result.scores["test_accuracy"] <= 0.905
    assert 0.48 <= result.scores["test_loss"] <= 0.55
    # Published: 2.0619 and 0.5397 in the first and last epoch, 0.3990 and 0.8890 accuracy.
    assert result.history["loss"][0] == pytest.approx(2.06, abs=0.2)
    assert result.history["accuracy"][-1] == pytest.approx(0.889, abs=0.015)
    assert len(result.history["val_loss"]) == 10


def test_run_returns_a_result(mnist: Data) -> None:
    result = run("model.hidden=32", *QUICK, "tracking=none")
    assert set(result.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(result.scores) == {"test_loss", "test_accuracy", "fit_seconds"}
    assert result.scores["test_accuracy"] == result.history["val_accuracy"][-1]
    assert result.config.training.epochs == 2
    assert result.run_id is None
    probabilities = result.model.predict(mnist.x_test, verbose=0)
    assert (probabilities.argmax(1) == mnist.y_test).mean() == pytest.approx(result.scores["test_accuracy"], abs=2e-4)
    files = {str(path.relative_to(result.output)) for path in result.output.rglob("*") if path.is_file()}
    names = ("classes", "confusion_matrix", "curves", "mistakes", "predictions")
    texts = {"config.yaml", "run.lock", "run.log", "run.json", "metrics.jsonl", "predictions.csv"}
    assert files == texts | {"model.keras"} | {f"figures/{name}.png" for name in names}
    with (result.output / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["index"]) for line in lines] == list(range(10000))
    assert [int(line["label"]) for line in lines] == mnist.y_test.tolist()
    assert [int(line["predicted"]) for line in lines] == probabilities.argmax(1).tolist()
    assert [float(line["probability"]) for line in lines] == pytest.approx(probabilities.max(1), abs=1e-5)


CONVNET = ("experiment=convnet", *QUICK, "dataset.validation=500")
ELSEWHERE = """
import sys
from mnist_exp import run
run("tracking=none", *sys.argv[1:])
assert "tensorflow" in sys.modules
assert not [name for name in sys.modules if name.startswith("mlflow")]
"""


@pytest.mark.parametrize("typed", [QUICK, pytest.param(CONVNET, marks=pytest.mark.slow)], ids=["baseline", "convnet"])
def test_equal_configurations_give_equal_weights_without_mlflow(tmp_path: Path, typed: tuple[str, ...]) -> None:
    program = [sys.executable, "-c", ELSEWHERE, *typed]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", ".mnist_exp"}
    elsewhere = weights(tmp_path)
    run("seed=7", *QUICK, "tracking=none")  # what came before in the process must not matter
    assert_same_weights(run(*typed, "tracking=none").model.get_weights(), elsewhere)


def test_other_sizes_channels_and_numbers_of_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (rng.integers(0, 60, (300, 12, 10, 3)) + 60 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "colours.npz", x_train=x[:250], y_train=y[:250], x_test=x[250:], y_test=y[250:])
    for model in ("mlp", "cnn"):
        result = run(
            "dataset=npz", "dataset.path=colours.npz", f"model={model}", "training.batch_size=10", "tracking=none"
        )
        assert result.model.input_shape == (None, 12, 10, 3)
        assert result.model.output_shape == (None, 3)
        assert result.scores["test_accuracy"] > 0.6  # by chance 0.33


def test_a_bug_shows_its_traceback() -> None:
    code = (
        "import mnist_exp.data.datasets as d\nd._digest = lambda *arrays: 1 / 0\n"
        "from mnist_exp.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, "tracking=none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_error_at_the_end_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_run: Run, status: str, _reason: str = "") -> None:
        raise OSError(f"no space left to write {status}")

    monkeypatch.setattr(Run, "end", end)
    with pytest.raises(InputError, match=r"cannot be written \(no space left to write FINISHED\)"):
        run("tracking=none", *QUICK)


def test_an_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"model\.hidden=0"):
        run("model.hidden=0")
    assert issubclass(InputError, ValueError)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a library call leaves signals alone


INTERRUPTS_ITS_SAVING = """
import os, signal
from pathlib import Path
import keras

@keras.saving.register_keras_serializable()
class Interrupting(keras.layers.Flatten):
    def save_own_variables(self, store):
        os.kill(os.getpid(), signal.SIGINT)
        super().save_own_variables(store)
        Path("saved").touch()
"""


def test_ctrl_c_waits_until_a_model_is_saved(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(INTERRUPTS_ITS_SAVING)
    layers = ("code=mine.py", "model=layers", "model.layers=[Interrupting]")
    done = command(*layers, *QUICK, "training.checkpoint_seconds=null", "tracking=none", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)
    assert (tmp_path / "saved").exists()
    [output] = (path.parent for path in tmp_path.glob("outputs/*/*/run.json"))
    assert Folder(output).read().status == "KILLED"
    assert not list(output.glob("*.keras*"))
