"""Where images come from: a class each, with its keys in conf/dataset/ and how it reads its arrays.

A new source is a class here, its name in `SOURCES`, and a file in conf/dataset/. Imports nothing heavy.
"""

import gzip
import lzma
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_exp.config.code_file import in_use, own_choices
from mnist_exp.config.values import Count, ExistingPath, Maximum, Seed, Share, Side
from mnist_exp.errors import InputError
from mnist_exp.learning import memory

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MNIST = Path(__file__).resolve().parents[1] / "data" / "mnist.npz"
# What a damaged zip file makes of zipfile, NumPy and Keras.
DAMAGED = (
    *(OSError, EOFError, KeyError, RuntimeError, TypeError, MemoryError, SystemError),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # the magic numbers of the MNIST page: unsigned bytes, 3 axes and 1


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """What a source holds, unchecked: images and labels, a short `name` for it, and where they came from.

    Labels are whole numbers, or names. `names`: of the classes that labels count, if they have any. `maximum`:
    the value of a white pixel, if the source says so; whole numbers go to 255 without. `resized`: whether the images
    are pictures as they were taken, only resized, so that a picture is prepared as they were before a model reads it.
    """

    x_train: "npt.NDArray[np.generic]"
    y_train: "npt.NDArray[np.generic]"
    x_test: "npt.NDArray[np.generic]"
    y_test: "npt.NDArray[np.generic]"
    name: str
    source: str
    names: tuple[str, ...] | None = None
    maximum: float | None = None
    resized: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What all sources share; `datasets.py` applies `validation` and `limit` to what a source reads."""

    kind: str
    validation: Literal["test"] | Count | Share
    limit: Count | None
    seed: Seed

    def read(self) -> Arrays:
        """Return all images and labels.

        Raises:
            InputError: for what cannot be read.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MnistDataset(Dataset):
    """The handwritten digits that come with the package."""

    kind: Literal["mnist"]

    def read(self) -> Arrays:
        """Return the 70,000 digits."""
        return _read_npz(_MNIST, "mnist_exp/data/mnist.npz")


@dataclass(frozen=True, kw_only=True)
class NpzDataset(Dataset):
    """One NumPy file; `maximum`: the value of a white pixel in it, None for whole numbers from 0 to 255."""

    kind: Literal["npz"]
    path: ExistingPath
    maximum: Maximum | None

    def read(self) -> Arrays:
        """Return the four arrays of a file, which fit into the memory."""
        path = Path(self.path).expanduser()
        return _read_npz(path, str(path), self)


@dataclass(frozen=True, kw_only=True)
class IdxDataset(Dataset):
    """A folder with MNIST's four original files, plain or .gz."""

    kind: Literal["idx"]
    path: ExistingPath

    def read(self) -> Arrays:
        """Return what the four files of a folder hold."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError(f"dataset.path={folder}: must be a folder with the four IDX files")
        return Arrays(
            x_train=_read_idx_file(folder, "train-images-idx3-ubyte", _IDX_IMAGES),
            y_train=_read_idx_file(folder, "train-labels-idx1-ubyte", _IDX_LABELS),
            x_test=_read_idx_file(folder, "t10k-images-idx3-ubyte", _IDX_IMAGES),
            y_test=_read_idx_file(folder, "t10k-labels-idx1-ubyte", _IDX_LABELS),
            name=folder.resolve().name,
            source=str(folder),
        )


@dataclass(frozen=True, kw_only=True)
class KerasDataset(Dataset):
    """An image set of keras.datasets."""

    kind: Literal["keras"]
    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]

    def read(self) -> Arrays:
        """Return what Keras downloads, once."""
        from mnist_exp.learning.keras_backend import keras

        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.name).load_data()
        except Exception as error:  # urllib, tarfile and Keras raise whatever a broken network or download makes of it
            raise InputError(
                f"dataset.name={self.name}: Keras could not download it ({error}); it needs a network once. "
                "dataset=mnist needs none; dataset=npz and dataset=idx read files that you have"
            ) from error
        return Arrays(
            x_train=x_train,
            y_train=y_train.reshape(len(y_train)),
            x_test=x_test,
            y_test=y_test.reshape(len(y_test)),
            name=self.name,
            source=f"keras.datasets.{self.name}",
        )


@dataclass(frozen=True, kw_only=True)
class FolderDataset(Dataset):
    """Pictures in a folder a class, resized to `size` by `size`; `test`: the share held out without a folder test/."""

    kind: Literal["folder"]
    path: ExistingPath
    size: Side
    color: bool
    test: Share

    def read(self) -> Arrays:
        """Return the pictures of all classes."""
        from mnist_exp.learning.image_folder import read_folder

        return read_folder(self)


SOURCES = (MnistDataset, NpzDataset, IdxDataset, KerasDataset, FolderDataset)


@dataclass(frozen=True, kw_only=True)
class OwnDataset(Dataset):
    """A function with `@mnist_exp.dataset` in the file that `code=` names; its arguments are the keys."""

    def read(self) -> Arrays:
        """Return what the function does: `(x_train, y_train), (x_test, y_test)`, as `keras.datasets` have it."""
        from mnist_exp.learning.own_code import call

        code = in_use()
        assert code is not None
        return _own_arrays(call("dataset", self, Dataset), self.kind, code.path)


def sources() -> list[type[Dataset]]:
    """Return all sources that can be chosen now."""
    return [*SOURCES, *own_choices("dataset", OwnDataset)]


def _own_arrays(returned: Any, name: str, source: str) -> Arrays:
    import numpy as np

    wanted = "must return ((x_train, y_train), (x_test, y_test)), NumPy arrays of numbers; labels may be text"
    match returned:
        case ((x_train, y_train), (x_test, y_test)):
            arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        case _:
            length = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
            raise InputError(f"dataset={name}: {wanted}; returned {type(returned).__name__}{length}")
    for part, array in arrays.items():
        kinds = "buif" if part.startswith("x") else "buifUS"  # labels may be text
        if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds or array.ndim == 0:
            found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"dataset={name}: {wanted}; {part} is {found}")
    return Arrays(**arrays, name=name, source=source)


_PARTS = ("x_train", "y_train", "x_test", "y_test")


def _read_npz(path: Path, source: str, config: NpzDataset | None = None) -> Arrays:
    """Return the four arrays of a file; of a file of the user's own, `config` has more, and they have to fit."""
    import numpy as np

    if path.is_dir():
        raise InputError(f"dataset.path={path}: is a folder; dataset=folder reads pictures in one, a folder a class")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(f"dataset.path={path}: is not a valid npz file; np.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := set(_PARTS) - set(file.files):
                raise InputError(
                    f"dataset.path={path}: must hold x_train, y_train, x_test and y_test; "
                    f"lacks {', '.join(sorted(missing))}"
                )
            if config is not None:
                with zipfile.ZipFile(path) as members:
                    headers = {part: _npy_header(members, part) for part in _PARTS}
                memory.check_arrays(config, f"dataset.path={path}", headers)
            arrays: dict[str, Any] = {part: file[part] for part in _PARTS}
            return Arrays(**arrays, name=path.stem, source=source, maximum=config.maximum if config else None)
    except DAMAGED as error:
        raise InputError(f"dataset.path={path}: is not a valid npz file ({error}); np.savez writes one") from error
    except InputError:
        raise
    except ValueError as error:  # an array of Python objects, for which NumPy recommends to load a pickle
        raise InputError(
            f"dataset.path={path}: must hold plain arrays of numbers, or labels of text, not objects; "
            "astype(str) makes text of them"
        ) from error


def _npy_header(members: zipfile.ZipFile, part: str) -> memory.Header:
    """Return the shape and the type of an array in a zip file, without its content."""
    import numpy as np

    if [name for name in members.namelist() if name.removesuffix(".npy") == part] != [f"{part}.npy"]:
        raise zipfile.BadZipFile(f"it has {part} twice, or not as {part}.npy")
    with members.open(f"{part}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if any(length < 0 for length in shape):
            raise zipfile.BadZipFile(f"{part} has shape {shape}")
        return memory.Header(shape, dtype)


def _read_idx_file(folder: Path, name: str, magic: int) -> "npt.NDArray[np.uint8]":
    """Read an IDX file: a big-endian magic number whose last byte counts the axes, their lengths, then the bytes."""
    import numpy as np

    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise InputError(f"dataset.path={folder}: has no file {name} or {name}.gz")
    axes = magic % 256
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 * (1 + axes))
            shape = struct.unpack_from(f">{axes}I", header.ljust(4 * (1 + axes), b"\0"), offset=4)
            # As many bytes as the header promises and one more, since a small file may unpack to any length.
            content = file.read(min(math.prod(shape), memory.memory() // 2) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is not a valid gzip file ({error})") from error
    found = int.from_bytes(header[:4], "big")
    if len(header) < 4 * (1 + axes) or found != magic:
        what = "images" if magic == _IDX_IMAGES else "labels"
        raise InputError(f"{path}: must be an IDX file of {what}, which starts with {magic}; starts with {found}")
    if len(content) != math.prod(shape):
        more = "more" if len(content) > math.prod(shape) else len(content)
        raise InputError(f"{path}: its header promises {math.prod(shape)} bytes of shape {shape}; it has {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
