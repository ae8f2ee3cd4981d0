"""Images from every kind of source, and what is refused."""
# ruff: noqa: E501, a case a line reads best

import gzip
import struct
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp.data import memory
from mnist_exp.data.datasets import Data
from mnist_exp.data.metadata import write_metadata
from mnist_exp.data.sources import IdxDataset, KerasDataset, MnistDataset, NpzDataset
from mnist_exp.errors import InputError
from mnist_exp.training.split import load_data

from ..conftest import Arrays

pytestmark = pytest.mark.fast

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


COUNTS = (("y_train", 200), ("y_test", 100))


def npz(path: Path, validation: Any = "test", **keys: Any) -> Data:
    given: dict[str, Any] = {"maximum": None, "limit": None, "seed": 0} | keys
    return load_data(NpzDataset(kind="npz", path=str(path), validation=validation, **given))


def idx(path: Path) -> Data:
    return load_data(IdxDataset(kind="idx", path=str(path), validation="test", limit=None, seed=0))


def write_idx(folder: Path, arrays: Arrays, *, zipped: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for key, name in IDX.items():
        array = arrays[key]
        content = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content, compresslevel=1) if zipped else content)


def test_mnist_is_whole(mnist: Data) -> None:
    assert mnist.x_train.shape == (60000, 28, 28)
    assert mnist.x_test.shape == (10000, 28, 28)
    assert mnist.y_train[0] == 5
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.x_train.mean() / 255 == pytest.approx(0.13066, abs=1e-5)
    assert mnist.classes == 10


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_and_npz_give_the_same_data(tmp_path: Path, small: Arrays, zipped: bool) -> None:
    np.savez(tmp_path / "small.npz", **small)
    write_idx(tmp_path / "idx", small, zipped=zipped)
    one, other = npz(tmp_path / "small.npz"), idx(tmp_path / "idx")
    np.testing.assert_array_equal(one.x_train, other.x_train)
    np.testing.assert_array_equal(one.y_test, other.y_test)
    assert one.digest == other.digest
    assert len(one.digest) <= 36


def test_the_digest_sees_one_changed_pixel_and_one_changed_label(tmp_path: Path, small: Arrays) -> None:
    np.savez(tmp_path / "a.npz", **small)
    pixel = small["x_test"].copy()
    pixel[-1, -1, -1] += 1
    np.savez(tmp_path / "b.npz", **{**small, "x_test": pixel})
    label = small["y_train"].copy()
    label[0] += 1
    np.savez(tmp_path / "c.npz", **{**small, "y_train": label})
    assert len({npz(tmp_path / name).digest for name in ("a.npz", "b.npz", "c.npz")}) == 3


def test_size_channels_and_classes_come_from_the_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (30, 18, 16, 3)), "y_train": np.arange(30) % 6 + 1,
        "x_test": rng.integers(0, 256, (12, 18, 16, 3)), "y_test": np.arange(12) % 6 + 1,
    }  # fmt: skip
    np.savez(tmp_path / "colour.npz", **arrays)
    data = npz(tmp_path / "colour.npz")
    assert data.x_train.shape == (30, 18, 16, 3)
    assert data.x_train.dtype == np.uint8
    assert data.names == ("1", "2", "3", "4", "5", "6")


@pytest.mark.parametrize(("validation", "held_out"), [(40, 40), (0.25, 50)])
def test_validation_images_are_held_out_of_training(
    tmp_path: Path, small: Arrays, validation: float, held_out: int
) -> None:
    # Each image carries its own number, so that one can be told from another.
    numbered: Arrays = {
        **small,
        "x_train": np.zeros((200, 28, 28), np.uint8),
        "y_train": np.arange(200, dtype=np.uint8),
        "x_test": np.zeros((200, 28, 28), np.uint8),
        "y_test": np.arange(200, dtype=np.uint8),
    }
    numbered["x_train"][:, 0, 0] = np.arange(200)
    np.savez(tmp_path / "small.npz", **numbered)
    data = npz(tmp_path / "small.npz", validation)
    assert len(data.x_validation) == held_out
    assert not data.watches_test_set
    assert sorted([*data.y_validation, *data.y_train]) == list(range(200))
    np.testing.assert_array_equal(data.x_validation[:, 0, 0], data.y_validation)
    np.testing.assert_array_equal(data.x_train[:, 0, 0], data.y_train)
    other = npz(tmp_path / "small.npz", validation, seed=1)
    assert set(other.y_validation) != set(data.y_validation)
    again = npz(tmp_path / "small.npz", validation)
    np.testing.assert_array_equal(again.y_validation, data.y_validation)


@pytest.mark.parametrize("validation", [200, 1000, 0.001, 0.999])
def test_a_split_must_leave_both_sides_something(tmp_path: Path, small: Arrays, validation: float) -> None:
    np.savez(tmp_path / "small.npz", **small)
    with pytest.raises(InputError, match=rf"dataset.validation={validation}: holds out \d+ of 200 training images"):
        npz(tmp_path / "small.npz", validation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((200, 784), np.uint8)}, r"x_train has shape \(200, 784\); must be"),
        ({"x_test": np.zeros((100, 14, 14), np.uint8)}, r"training images are \(28, 28\), test images \(14, 14\)"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8)}, r"x_test has shape \(0, 28, 28\); must be \(N"),
        ({"y_train": np.zeros(199, np.uint8)}, "200 images in x_train, 199 labels in y_train"),
        ({"y_test": np.eye(100, dtype=np.uint8)}, "y_test has uint8 of shape .* one-hot vectors"),
        ({"y_test": np.full(100, -1)}, "y_test goes from -1 to -1"),
        ({"x_train": np.full((200, 28, 28), 0.5)}, "x_train has float64 from 0.5 to 0.5; must be whole numbers 0 to 255; .* set dataset.maximum"),
        ({"x_train": np.full((200, 28, 28), 256)}, "x_train has int64 from 256 to 256; must be whole"),
        ({"x_train": np.full((200, 28, 28), np.nan)}, "x_train has float64 from nan to nan; must be whole"),
        *(({"x_train": np.zeros(shape, np.uint8)}, r"x_train has shape .*; must be \(N, height, width\), or .* with 1 to 4 channels, of 10 to 500 pixels a side$") for shape in ((), (200, 9, 28), (200, 20, 501), (200, 28, 28, 5), (200, 28, 28, 0))),
        ({"y_train": np.full(200, 3)}, "the training set has no image of class 0, 1, 2, 4, 5 and 4 others; add some"),
        ({"y_train": np.full(200, 3), "y_test": np.full(100, 3)}, "all images are of class 3; there must be"),
        ({"y_train": np.full(200, "cat")}, "y_train has <U3, y_test uint8; must be both text or numbers"),
        ({"y_train": np.full(200, "cat"), "y_test": np.full(100, "a\x1b")}, "a class is named 'a\\?'; must be some"),
        ({"y_train": np.full(200, b"\xff"), "y_test": np.full(100, b"a")}, "y_train has labels that are not valid Unicode"),
        ({part: np.full(count, 0x110000, np.uint32).view("U1") for part, count in COUNTS}, "y_train has labels that are not valid Unicode"),
        ({"y_train": np.full(200, "cat"), "y_test": np.full(100, "c" * 10**6)}, "a class is named 'c+…'; must be some"),
        ({"x_train": np.array([{"a": 1}] * 200)}, "x_train has object; must be whole numbers"),
    ],
)  # fmt: skip
def test_bad_npz_arrays_are_refused(tmp_path: Path, small: Arrays, changes: Any, message: str) -> None:
    np.savez(tmp_path / "bad.npz", **{**small, **changes})
    with pytest.raises(InputError, match=message):
        npz(tmp_path / "bad.npz")


def test_bad_npz_files_are_refused(tmp_path: Path, small: Arrays) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **small)
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:-3],
        b"not a zip file",
        whole.replace(b"PK\x03\x04", b"PK\x00\x00"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"dataset.path=.*bad.npz: (is not a valid npz file|must hold)"):
            npz(path)
    np.savez(path, x_train=small["x_train"])
    with pytest.raises(
        InputError, match="must hold x_train, y_train, x_test, y_test, once each; lacks or repeats y_train"
    ):
        npz(path)
    with pytest.raises(InputError, match="is a folder; dataset=folder reads pictures in one"):
        npz(tmp_path)


def test_bad_idx_files_are_refused(tmp_path: Path, small: Arrays) -> None:
    folder = tmp_path / "idx"
    images = folder / IDX["x_train"]
    write_idx(folder, small)
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="its header promises 156800 bytes"):
        idx(folder)
    images.write_bytes(whole[:7])
    with pytest.raises(InputError, match="must be an IDX file of images"):
        idx(folder)
    images.write_bytes((folder / IDX["y_train"]).read_bytes())
    with pytest.raises(InputError, match="must be an IDX file of images, which starts with 2051; starts with 2049"):
        idx(folder)
    images.unlink()
    with pytest.raises(InputError, match="has no file train-images-idx3-ubyte"):
        idx(folder)
    images.with_suffix(".gz").write_bytes(gzip.compress(whole)[:-500])
    with pytest.raises(InputError, match="is not a valid gzip file"):
        idx(folder)
    with pytest.raises(InputError, match="must be a folder"):
        idx(images.with_suffix(".gz"))


def test_a_download_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there, so that no test goes online
    config = KerasDataset(kind="keras", name="cifar100", validation="test", limit=None, seed=0)
    with pytest.raises(InputError, match=r"dataset.name=cifar100: Keras could not download it .* needs a network once"):
        load_data(config)


def test_validation_on_the_test_set_is_the_test_set(mnist: Data) -> None:
    assert mnist.watches_test_set
    assert mnist.x_validation is mnist.x_test
    held_out = load_data(MnistDataset(kind="mnist", validation=5000, limit=None, seed=0))
    assert (len(held_out.x_train), len(held_out.x_validation)) == (55000, 5000)
    assert held_out.digest == mnist.digest


def test_maximum_scales_images_and_keeps_their_type(tmp_path: Path, small: Arrays) -> None:
    x, y = small["x_train"].astype(float), small["x_test"].astype(float)
    for kind, factor, maximum, kept in (
        (np.float64, 1 / 255, 1, "float32"),
        (np.float32, 1, 255, "float32"),
        (np.uint16, 257, 65535, "uint16"),
        (np.int32, 16, 4095, "uint16"),
        (np.uint8, 1, 255, "uint8"),
    ):
        np.savez(
            tmp_path / "a.npz", **{**small, "x_train": (x * factor).astype(kind), "x_test": (y * factor).astype(kind)}
        )
        data = npz(tmp_path / "a.npz", maximum=maximum)
        assert (str(data.x_train.dtype), str(data.x_test.dtype), data.maximum) == (kept, kept, maximum)
        np.testing.assert_allclose(data.x_train / data.maximum, x * factor / maximum, rtol=1e-6)
    np.savez(tmp_path / "b.npz", **{**small, "x_train": x.astype(np.int32) * 16})
    with pytest.raises(InputError, match=r"from 0 to 4080; with dataset.maximum=255 it must be from 0 to 255, and no"):
        npz(tmp_path / "b.npz", maximum=255)
    assert npz(tmp_path / "a.npz", maximum=255).digest == npz(tmp_path / "a.npz", maximum=None).digest


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"classes": ["a", "b"]}, r"named.npz: names 2 classes; must name 10, as many as it has"),
        ({"maximum": 100}, r"x_train has uint8 from 0 to 255; with dataset.maximum=100 it must be from 0 to 100"),
    ],
)
def test_headers_of_an_array_file_are_checked(tmp_path: Path, small: Arrays, written: Any, message: str) -> None:
    np.savez(tmp_path / "named.npz", **small)
    write_metadata(tmp_path / "named.npz", {"classes": list("abcdefghij"), "resized": True})
    data = npz(tmp_path / "named.npz")
    assert (data.names, data.resized, data.maximum) == (tuple("abcdefghij"), True, 255)
    np.savez(tmp_path / "named.npz", **small)
    write_metadata(tmp_path / "named.npz", written)
    with pytest.raises(InputError, match=message):
        npz(tmp_path / "named.npz")


@pytest.mark.parametrize("kind", [np.str_, np.bytes_])
def test_labels_as_text_are_classes_with_names(tmp_path: Path, small: Arrays, kind: Any) -> None:
    words = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    named = {part: words[small[part]].astype(kind) for part in ("y_train", "y_test")}
    np.savez(tmp_path / "named.npz", **{**small, **named})
    data = npz(tmp_path / "named.npz")
    assert data.names == tuple(sorted(words))
    np.testing.assert_array_equal(np.array(data.names)[data.y_test], words[small["y_test"]])


def forge(path: Path, arrays: Arrays, **members: bytes) -> None:
    """Write an npz file in which some arrays have other bytes."""
    np.savez(path.with_suffix(".good.npz"), **arrays)
    with zipfile.ZipFile(path.with_suffix(".good.npz")) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, members.get(name.removesuffix(".npy"), good.read(name)))


def header(text: str) -> bytes:
    """Return the header of an array that has no content."""
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def array(shape: str, kind: str = "|u1") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (array("(10" + "0" * 400 + ",1,1)"), "has a shape that no array can"),
        (array(f"({-(10**12)}, 28, 28)"), "has a shape that no array can"),
        ("'" * 3, "has no header of an array"),
        ("(" * 9000, "has no header of an array"),
        (array("(1()\\d,)"), "has no header of an array"),
        (array("(200,)", "|O"), "has object"),
        (array("(10000000000000,)"), r"x_train has shape|must be equal"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_header_of_any_text_is_one_message(tmp_path: Path, small: Arrays, text: str, message: str) -> None:
    for part in ("x_train", "y_train"):
        forge(tmp_path / "bad.npz", small, **{part: header(text)})
        with pytest.raises(InputError, match=message) as caught:
            npz(tmp_path / "bad.npz")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (200, 2**16, 2**16), (200, 28, 29), (0, 28, 28), (200, 0, 0)])
def test_a_false_idx_header_is_refused_before_unpacking(tmp_path: Path, small: Arrays, shape: tuple[int, ...]) -> None:
    write_idx(
        tmp_path / "idx", {**small, "x_test": np.zeros((100, *shape[1:3]), np.uint8)} if shape[2] == 29 else small
    )
    (tmp_path / "idx" / IDX["x_train"]).write_bytes(struct.pack(">4I", 0x0803, *shape))
    with pytest.raises(InputError, match=r"x_train has shape|its header promises 162400 bytes"):
        idx(tmp_path / "idx")


def test_arrays_above_half_of_the_memory_are_refused_unread(
    tmp_path: Path, small: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 10**10
    forge(
        tmp_path / "large.npz", small, x_train=header(array(f"({many}, 28, 28)")), y_train=header(array(f"({many},)"))
    )
    with pytest.raises(
        InputError, match=r"0 training and 100 test images of 28 x 28 take 15690\.\d GB; half .*; keep fewer or"
    ):
        npz(tmp_path / "large.npz")
    np.savez(tmp_path / "small.npz", **small)
    monkeypatch.setattr(memory, "memory", lambda: 2 * 784 * (200 + 100 + 4 * 100 + 50) + 2 * 300)
    with pytest.raises(InputError, match=r"set dataset.limit=50, or keep fewer or smaller images there$"):
        npz(tmp_path / "small.npz")
    assert len(npz(tmp_path / "small.npz", limit=50).x_train) == 50
