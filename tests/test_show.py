"""What `python -m mnist_exp.show` prints, draws and saves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.data.datasets import Data
from mnist_exp.data.sources import NpzDataset
from mnist_exp.training.split import load_data

from .conftest import in_process

AUGMENTED = "preprocessing.augment=[{RandomRotation:{factor:0.1,fill_mode:constant}}]"


def numbers(stdout: str) -> list[list[int]]:
    """The lines of 28 whole numbers."""
    rows = [line.split() for line in stdout.splitlines()]
    return [[int(text) for text in row] for row in rows if len(row) == 28 and all(text.isdecimal() for text in row)]


def test_show_prints_arrays_an_image_and_model_input(tmp_path: Path, mnist: Data) -> None:
    done = in_process("--index", "7", "dataset.validation=10000", cwd=tmp_path, module="mnist_exp.show")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert mnist.digest in lines[0]
    table = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[2:8]}
    assert table["x_train"].split("  ")[0] == "(50000, 28, 28)"
    assert table["x_validation"].split("  ")[0] == "(10000, 28, 28)"
    assert table["y_test"].endswith("int64   0 to 9")
    counts = next(line for line in lines if line.startswith("y_test ") and "int64" not in line)
    assert list(map(int, counts.split()[1:])) == np.bincount(mnist.y_test).tolist()
    assert f"Training image 7, label {mnist.y_train[7]}:" in lines
    assert numbers(done.stdout) == mnist.x_train[7].tolist()
    assert max(map(len, lines)) <= 112  # all of it on one screen
    assert "The model gets float32 values of shape (784,), from 0 to 1.\nRow 14 of the image becomes:" in done.stdout
    middle = lines[lines.index("Row 14 of the image becomes:") + 1]
    np.testing.assert_allclose(list(map(float, middle.split())), mnist.x_train[7][14] / 255, atol=0.005)
    assert lines[-2] == "The label becomes: [0. 0. 0. 1. 0. 0. 0. 0. 0. 0.]"


def test_an_image_and_its_counts_fit_a_terminal(tmp_path: Path, mnist: Data) -> None:
    done = in_process("--index", "7", cwd=tmp_path, module="mnist_exp.show", COLUMNS="80")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    note = lines.index("(columns 5 to 22 of 0 to 27; the others are all 0)")
    assert [list(map(int, line.split())) for line in lines[note - 28 : note]] == mnist.x_train[7][:, 5:23].tolist()


def test_the_image_enlarged_and_samples_of_each_class(tmp_path: Path) -> None:
    done = in_process("--output", "plain", cwd=tmp_path, module="mnist_exp.show")
    assert done.stdout.endswith("Pictures: plain/image-0.png, plain/samples.png\n"), done.stderr
    enlarged = np.asarray(Image.open(tmp_path / "plain/image-0.png").convert("RGB"), int)
    assert enlarged.shape == (600, 600, 3)
    blue = (enlarged[..., 2] - enlarged[..., 0] > 60).nonzero()
    assert blue[0].min() > 300, "the label, in the lower right corner"
    assert blue[1].min() > 300
    done = in_process(
        AUGMENTED, "preprocessing.one_hot=false", "--output", "changed", cwd=tmp_path, module="mnist_exp.show"
    )
    assert "The label becomes: 5" in done.stdout
    assert (tmp_path / "changed/samples.png").is_file()


def test_saved_arrays_are_read_back_bit_identical(tmp_path: Path, mnist: Data) -> None:
    done = in_process("dataset.validation=50", "--save", "saved.npz", cwd=tmp_path, module="mnist_exp.show")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "saved.npz") as saved:
        assert set(saved.files) == {"x_train", "y_train", "x_test", "y_test"}
        np.testing.assert_array_equal(saved["x_train"], mnist.x_train)
        assert saved["x_train"].dtype == np.uint8
    again = load_data(NpzDataset(kind="npz", path="saved.npz", maximum=None, validation="test", limit=None, seed=0))
    np.testing.assert_array_equal(again.y_train, mnist.y_train)
    np.testing.assert_array_equal(again.x_test, mnist.x_test)
    assert again.digest == mnist.digest


def test_images_in_colour_are_numbers_of_each_channel(tmp_path: Path) -> None:
    x = np.arange(2 * 12 * 10 * 3, dtype=np.uint16).reshape(2, 12, 10, 3).astype(np.uint8)
    np.savez("colour.npz", x_train=x, y_train=np.array([0, 1]), x_test=x, y_test=np.array([1, 0]))
    done = in_process("dataset=npz", "dataset.path=colour.npz", "model=cnn", cwd=tmp_path, module="mnist_exp.show")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.split("channel 2:\n")[1].splitlines()[:12]
    np.testing.assert_array_equal([list(map(int, row.split())) for row in rows], x[0, ..., 2])
    assert "shape (12, 10, 3)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], "7: no KEY=VALUE; --index 7 shows"),
        (["--index", "60000"], "--index 60000: must be from 0 to 59999"),
        (["--save", "old.npz"], "--save old.npz: must be a new file"),
        (["--save", "new.txt"], "--save new.txt: must be a new file that ends with .npz"),
        (["--output", "drawn"], "--output drawn: samples.png: was not drawn by this program; choose another name"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "old.npz").write_text("")
    (tmp_path / "drawn").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "drawn/samples.png")
    done = in_process(*arguments, cwd=tmp_path, module="mnist_exp.show")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["drawn", "old.npz", "samples.png"]
