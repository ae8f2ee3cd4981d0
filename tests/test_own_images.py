"""Images of one's own from the folder or file to the prediction, on both engines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import load_model
from PIL import Image

from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.data.datasets import Data
from mnist_exp.data.pictures import pixels
from mnist_exp.predict import predict
from mnist_exp.training.split import load_data

from .conftest import Command, in_process, store
from .drawing import STYLES, draw

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUICK = ("training.epochs=8", "training.batch_size=10", "optimizer.learning_rate=0.01")


@pytest.fixture
def digits(tmp_path: Path, mnist: Data) -> Path:
    """A folder with 300 PNG files of MNIST to train with, and 300 to test."""
    for part, x, y in (("train", mnist.x_train, mnist.y_train), ("test", mnist.x_test, mnist.y_test)):
        for name in NAMES:
            (tmp_path / "digits" / part / name).mkdir(parents=True)
        for index in range(300):
            Image.fromarray(x[index]).save(tmp_path / "digits" / part / NAMES[y[index]] / f"{index:03}.png")
    return tmp_path / "digits"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_folder_of_pictures_trains_and_predicts(
    tmp_path: Path, digits: Path, jax_command: Command, backend: str
) -> None:
    by = in_process if backend == "tensorflow" else jax_command  # Keras has one backend a process
    done = by("dataset=folder", "dataset.path=digits", f"backend={backend}", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accuracy = float(done.stdout.split("TEST accuracy: ")[1].split()[0])
    assert accuracy > 0.7
    [file] = tmp_path.glob("outputs/*/*/model.keras")
    [run_id] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Run ")]
    pictures = sorted(digits.glob("test/*/*.png"))
    for model in (str(file), run_id):
        found = predict(model, pictures)
        right = [prediction.name == prediction.path.parent.name for prediction in found]
        assert np.mean(right) == pytest.approx(accuracy, abs=0.001)
        np.testing.assert_array_equal(found[0].seen, np.asarray(Image.open(pictures[0])))
    client: MlflowClient = store(tmp_path)
    [logged] = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    known = load_model(logged.artifact_location).metadata.metadata
    assert known == {"classes": sorted(NAMES), "resized": True}


def test_a_saved_npz_file_can_replace_the_folder(tmp_path: Path, digits: Path) -> None:
    for name in ("10", "9"):  # classes that text would order otherwise
        (digits / "train" / "seven").with_name(name).symlink_to(digits / "train" / "seven")
        (digits / "test" / "seven").with_name(name).symlink_to(digits / "test" / "seven")
    done = in_process(
        "dataset=folder", "dataset.path=digits", "--save", "saved.npz", cwd=tmp_path, module="mnist_exp.show"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("read them with dataset=npz dataset.path=saved.npz\n")
    folder = load_data(compose(["dataset=folder", "dataset.path=digits"]).config.dataset)
    result = run("dataset=npz", "dataset.path=saved.npz", "training.epochs=1", "tracking=none")
    saved = load_data(result.config.dataset)
    assert (saved.digest, saved.names, saved.resized) == (folder.digest, ("9", "10", *sorted(NAMES)), True)
    with np.load("saved.npz") as file:  # pickles are refused
        names = file["files_test"].tolist()
        assert len(file["files_train"]) == len(saved.x_train)
    for index in (0, -1):
        assert Path(names[index]).parent == Path("test", saved.names[saved.y_test[index]])
        np.testing.assert_array_equal(saved.x_test[index], np.asarray(Image.open(digits / names[index])))
    picture = draw(3, STYLES[2])
    picture.save("drawn.png")
    [found] = predict(str(result.output / "model.keras"), [Path("drawn.png")])
    np.testing.assert_array_equal(found.seen, pixels(picture, 28, 28, 1))
    assert found.name in saved.names


def test_models_of_floats_and_bytes_predict_alike(tmp_path: Path, mnist: Data, jax_command: Command) -> None:
    x, y = mnist.x_train[:600], mnist.y_train[:600]
    for name, factor, kind in (("bytes", 1, np.uint8), ("floats", 1 / 255, np.float64)):
        scaled: Any = (x * float(factor)).round(9).astype(kind)
        labels = np.array(NAMES)[y]
        np.savez(f"{name}.npz", x_train=scaled[:400], y_train=labels[:400], x_test=scaled[400:], y_test=labels[400:])
    Image.fromarray(mnist.x_test[0]).resize((140, 140)).save("seven.png")
    augment = "preprocessing.augment=[{RandomBrightness:{factor:0.1}}]"
    found = {}
    for name, maximum, dtype, backend in (
        ("bytes", "null", "uint8", "tensorflow"),
        ("floats", "1", "float32", "tensorflow"),
        ("floats", "1", "float32", "jax"),
    ):
        by = in_process if backend == "tensorflow" else jax_command
        done = by(
            "dataset=npz", f"dataset.path={name}.npz", f"dataset.maximum={maximum}", *QUICK, augment,
            "tracking=none", f"backend={backend}", f"hydra.run.dir={name}-{backend}", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split("TEST accuracy: ")[1].split()[0]) > 0.7
        [found[name, backend]] = predict(f"{name}-{backend}/model.keras", [Path("seven.png")])
        recorded = json.loads(Path(f"{name}-{backend}/run.json").read_text())
        assert dtype in recorded["data"]["schema"]
    assert {prediction.name for prediction in found.values()} == {"seven"}
    by_bytes, by_floats = (found[name, "tensorflow"].probability for name in ("bytes", "floats"))
    assert by_floats == pytest.approx(by_bytes, abs=0.02)


def test_images_with_opacity_are_trained_and_predicted_with(mnist: Data) -> None:
    x = np.repeat(mnist.x_train[:400, ..., None], 4, axis=-1)
    y = mnist.y_train[:400]
    np.savez("clear.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    result = run("dataset=npz", "dataset.path=clear.npz", "model=cnn", *QUICK, "training.epochs=1", "tracking=none")
    assert result.model.input_shape == (None, 28, 28, 4)
    assert (result.output / "figures" / "predictions.png").is_file()
    Image.fromarray(x[300]).save("clear.png")
    [found] = predict(str(result.output / "model.keras"), [Path("clear.png")])
    np.testing.assert_array_equal(found.seen, x[300])
    assert found.probability == pytest.approx(result.model.predict(x[300:301], verbose=0).max(), abs=1e-6)
