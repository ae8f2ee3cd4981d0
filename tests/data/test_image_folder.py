"""Pictures in folders: what is read of them, how long it is kept, and what is refused."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_exp.data import memory, pictures
from mnist_exp.data.datasets import Data
from mnist_exp.data.pictures import open_picture
from mnist_exp.data.sources import FolderDataset, NpzDataset
from mnist_exp.errors import InputError
from mnist_exp.training.split import load_data

from ..conftest import Arrays

pytestmark = pytest.mark.fast


def read(path: Path, **keys: Any) -> Data:
    given: dict[str, Any] = {
        "size": 28,
        "color": False,
        "test": 0.2,
        "validation": "test",
        "limit": None,
        "seed": 0,
    } | keys
    return load_data(FolderDataset(kind="folder", path=str(path), **given))


def write(path: Path, picture: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def age(folder: Path) -> None:
    """Let files seem to have been written a day before."""
    for path in folder.rglob("*.*"):
        then = path.stat().st_mtime_ns - 86400 * 10**9
        os.utime(path, ns=(then, then))


def write_mnist(folder: Path, mnist: Data, count: int = 300) -> None:
    for part, x, y in (("train", mnist.x_train, mnist.y_train), ("test", mnist.x_test, mnist.y_test)):
        for index in range(count):
            write(folder / part / str(y[index]) / f"{index:03}.png", Image.fromarray(x[index]))


def two_classes(folder: Path, each: int = 10) -> None:
    """Dark pictures and light ones, each of a grey of its own."""
    for name, start in (("dark", 0), ("light", 100)):
        for index in range(each):
            write(folder / name / f"{index}.png", Image.new("L", (30, 20), start + index))


def test_mnist_as_png_files_is_mnist(tmp_path: Path, mnist: Data) -> None:
    write_mnist(tmp_path / "digits", mnist)
    data = read(tmp_path / "digits")
    assert (data.name, data.names, data.classes) == ("digits", tuple("0123456789"), 10)
    assert (data.x_train.shape, str(data.x_train.dtype)) == ((300, 28, 28), "uint8")
    for x, y, wanted_x, wanted_y in (
        (data.x_train, data.y_train, mnist.x_train[:300], mnist.y_train[:300]),
        (data.x_test, data.y_test, mnist.x_test[:300], mnist.y_test[:300]),
    ):
        for label in range(10):
            np.testing.assert_array_equal(x[y == label], wanted_x[wanted_y == label])
    np.testing.assert_array_equal(data.y_train[:10], range(10))  # dataset.limit takes images of each class
    colour = read(tmp_path / "digits", color=True, size=14)
    assert colour.x_train.shape == (300, 14, 14, 3)


def test_a_share_of_each_class_is_held_out_by_seed(tmp_path: Path) -> None:
    two_classes(tmp_path / "pictures")
    data = read(tmp_path / "pictures", test=0.3)
    assert data.names == ("dark", "light")
    for limit, validation in ((None, "test"), (12, "test"), (None, 4), (12, 0.25)):
        cut = read(tmp_path / "pictures", test=0.3, limit=limit, validation=validation)
        assert cut.digest == data.digest
        assert cut.file_names is not None
        for x, files in zip((cut.x_train, cut.x_test), cut.file_names, strict=True):
            for image, name in zip(x, files, strict=True):
                np.testing.assert_array_equal(
                    image, np.full((28, 28), np.asarray(Image.open(tmp_path / "pictures" / name))[0, 0])
                )
    assert [np.bincount(y).tolist() for y in (data.y_train, data.y_test)] == [[7, 7], [3, 3]]
    greys = [sorted(x[:, 0, 0].tolist()) for x in (data.x_train, data.x_test)]
    assert sorted([*greys[0], *greys[1]]) == [*range(10), *range(100, 110)]
    np.testing.assert_array_equal(data.y_test, data.x_test[:, 0, 0] >= 100)
    again, other = (read(tmp_path / "pictures", test=0.3, seed=seed) for seed in (0, 1))
    assert again.digest == data.digest
    assert sorted(other.x_test[:, 0, 0].tolist()) != greys[1]
    np.testing.assert_array_equal(other.y_train, other.x_train[:, 0, 0] >= 100)


def mixed(folder: Path, count: int) -> None:
    """Write pictures of many sizes and modes whose upper left half is dark, and the other one light, or the reverse."""
    rng = np.random.default_rng(0)
    modes = ["L", "LA", "P", "P with a transparent colour", "RGB", "RGB with a transparent colour", "RGBA", "CMYK"]
    modes += ["1", "I;16", "turned"]
    for index in range(count):
        name = ("above", "below")[index % 2]
        width, height = rng.integers(12, 120, 2)
        mode = modes[index // 2 % len(modes)]
        grey = np.full((height, width), 255 if name == "above" else 0, np.uint8)
        grey[height // 2 :] = 255 - grey[0, 0]
        plain = Image.fromarray(grey)
        path = folder / name / f"{index:04}.png"
        match mode:
            case "CMYK":
                write(path.with_suffix(".jpg"), plain.convert("RGB").convert("CMYK"))
            case "I;16":
                write(path, Image.fromarray(grey.astype(np.uint16) * 257))
            case "turned":
                exif = Image.Exif()
                exif[0x0112] = 6  # to be shown turned by a quarter to the right
                write(path.with_suffix(".JPEG"), plain.transpose(Image.Transpose.ROTATE_90), exif=exif)
            case "P with a transparent colour":  # several colours, each with its own opacity
                write(path, plain.convert("P"), transparency=bytes([255] * 256))
            case "RGB with a transparent colour":
                write(path, plain.convert("RGB"), transparency=(1, 2, 3))
            case "LA" | "RGBA":  # white where nothing is
                clear = plain.convert(mode)
                clear.putalpha(Image.fromarray(255 - grey))
                write(path, Image.composite(Image.new(mode, plain.size), clear, plain))
            case _:
                write(path, plain.convert(mode))


def test_pictures_of_any_size_and_mode_are_read_alike(tmp_path: Path) -> None:
    mixed(tmp_path / "pictures", 1000)
    for color in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = read(tmp_path / "pictures", color=color)
        upper, lower = (
            (x[:, rows].reshape(len(x), -1).mean(1)) for x in [data.x_train] for rows in (slice(8), slice(20, 28))
        )
        assert len(data.x_train) + len(data.x_test) == 1000
        above = data.y_train == data.names.index("above")
        assert upper[above].min() > 245
        assert lower[above].max() < 10
        assert upper[~above].max() < 10
        assert lower[~above].min() > 245


def test_pictures_are_read_again_only_after_one_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    two_classes(folder)
    assert read(folder) is not read(folder), "what was written just now may change again unseen"
    for change in (
        lambda: write(folder / "dark" / "3.png", Image.new("L", (30, 20), 50)),
        lambda: write(folder / "dark" / "more.png", Image.new("L", (30, 20), 50)),
        lambda: (folder / "light" / "1.png").unlink(),
    ):
        age(folder)
        kept = read(folder)
        assert read(folder) is kept
        change()
        assert read(folder).digest != kept.digest
    age(folder)
    kept = read(folder)
    assert read(folder, seed=3) is not kept
    assert read(folder) is not kept, "the last one is kept, not all"


def test_a_file_that_replaces_one_of_its_size_and_time_is_read(tmp_path: Path, small: Arrays) -> None:
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(path, **small)
    np.savez(other, **small | {"x_train": 255 - small["x_train"]})
    age(tmp_path)
    config = NpzDataset(kind="npz", path=str(path), maximum=None, validation="test", limit=None, seed=0)
    kept = load_data(config)
    assert load_data(config) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept.x_train[0, 0, 0] = 1
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert load_data(config).digest != kept.digest


def test_hidden_and_other_files_are_skipped_and_links_followed(tmp_path: Path) -> None:
    two_classes(tmp_path / "there")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("dark", "light"):
        (folder / name).symlink_to(tmp_path / "there" / name)
    (folder / ".checkpoints").mkdir()
    (folder / "README.txt").write_text("about the pictures")
    (folder / "dark" / "notes.txt").write_text("about the dark ones")
    (folder / "dark" / "._0.png").write_text("what macOS leaves")
    (folder / "loop").symlink_to(folder / "loop")
    data = read(folder)
    assert (len(data.x_train), len(data.x_test), data.names) == (16, 4, ("dark", "light"))


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    with pytest.raises(InputError, match=r"pictures: must be a folder with a folder of pictures for each class"):
        read(folder)
    two_classes(folder / "train")
    with pytest.raises(InputError, match=r"has only train/ with .* or type dataset.path=.*train to hold a share"):
        read(folder)
    two_classes(folder / "test")
    assert len(read(folder).x_test) == 20
    (folder / "test" / "light").rename(folder / "test" / "bright")
    with pytest.raises(InputError, match=r"train/ has no folder bright; both sets must have the same classes"):
        read(folder)
    empty = folder / "train" / "empty"
    empty.mkdir()
    with pytest.raises(
        InputError, match=r"empty has no picture \(.png, .jpg, .jpeg\); each folder there must be a class"
    ):
        read(folder / "train")
    write(empty / "one.png", Image.new("L", (20, 20)))
    with pytest.raises(InputError, match="empty/ has one picture; it must have two or more"):
        read(folder / "train")
    (tmp_path / "single" / "class").mkdir(parents=True)
    write(tmp_path / "single" / "class" / "one.png", Image.new("L", (20, 20)))
    with pytest.raises(InputError, match="single has 1 folders; must have one with pictures for each class"):
        read(tmp_path / "single")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "must be a whole picture in one of the formats PNG, JPEG"),
        (None, "must be a whole picture in one of the formats"),
        ((10000, 10000), "must have at most 89478485 pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: Any, message: str) -> None:
    two_classes(tmp_path / "pictures")
    path = tmp_path / "pictures" / "dark" / "5.png"
    if isinstance(content, tuple):
        Image.new("1", content).save(path)
    else:
        path.write_bytes(path.read_bytes()[:50] if content is None else content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "pictures")
    assert str(caught.value).startswith(f"{path}: ")


def test_pictures_above_half_of_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path / "pictures")
    monkeypatch.setattr(memory, "memory", lambda: 200_000)
    with pytest.raises(InputError, match=r"images of 500 x 500 x 3 take .* GB; half .*; set a smaller dataset.size$"):
        read(tmp_path / "pictures", size=500, color=True)
    assert len(read(tmp_path / "pictures", size=10).x_train) == 16
    path = write(tmp_path / "pictures" / "dark" / "large.png", Image.new("L", (80, 80)))
    with pytest.raises(
        InputError, match=r"large.png: decoding \d+ at once of 80 x 80 pixels takes .*; save it with fewer"
    ):
        read(tmp_path / "pictures", size=10)
    open_picture(write(path, Image.new("L", (80, 60)))).close()  # one at a time
    with pytest.raises(InputError, match="decoding 2 at once"):
        open_picture(path, at_once=2)


def test_a_picture_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endless.jpg"
    monkeypatch.setattr(pictures, "MAX_SECONDS", 0.1)
    path.write_bytes(b"\xff\xd8" + b"\xff" * 50_000_000)
    with pytest.raises(InputError, match=r"endless.jpg: takes more than 0.1 seconds to read; save it anew as PNG"):
        open_picture(path)
    with path.open("wb") as file:
        file.write(b"P6 #")
        file.truncate(20 * 10**9)
    with pytest.raises(InputError, match=r"has 20000000000 bytes; must have at most 300000000"):
        open_picture(path)
