"""Where images come from: each kind of dataset as arrays, checked, split and identified by a digest."""

import gzip
import hashlib
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_exp.config.schema import Dataset, IdxDataset, KerasDataset, MnistDataset, NpzDataset
from mnist_exp.errors import InputError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_MNIST = Path(__file__).resolve().parents[1] / "data" / "mnist.npz"
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # the magic numbers of the MNIST page: unsigned bytes, 3 axes and 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """Raw images of shape (N, height, width) or (N, height, width, channels), 0 to 255, and labels (N,) from 0.

    `classes` is the largest label of all plus one. `digest` identifies all images and labels of the source, however
    they were stored.
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    classes: int
    name: str
    source: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Data(Source):
    """A source with what is watched while training: held-out training images, or the test set itself
    (`watches_test_set`)."""

    x_validation: Images
    y_validation: Labels
    watches_test_set: bool


@dataclass(frozen=True)
class _Arrays:
    x_train: npt.NDArray[np.generic]
    y_train: npt.NDArray[np.generic]
    x_test: npt.NDArray[np.generic]
    y_test: npt.NDArray[np.generic]


def load(config: Dataset) -> Data:
    """Read the images that `config` names, take the first `limit`, and hold out the validation set.

    Raises:
        InputError: as `read` and `split` do.
    """
    return split(read(config), config)


def read(config: Dataset) -> Source:
    """Read the images that `config` names; of the training images the first `limit`.

    Raises:
        InputError: for a file that is missing, truncated or mislabelled, arrays of the wrong shape or type, or labels
            and images of different lengths.
    """
    arrays, name, source = _read(config)
    x_train, y_train = _checked(arrays.x_train, arrays.y_train, "train", source)
    x_test, y_test = _checked(arrays.x_test, arrays.y_test, "test", source)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"{source}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}; must be equal"
        )
    digest, classes = _digest(x_train, y_train, x_test, y_test), int(max(y_train.max(), y_test.max())) + 1
    return Source(
        x_train=x_train[: config.limit],
        y_train=y_train[: config.limit],
        x_test=x_test,
        y_test=y_test,
        classes=classes,
        name=name,
        source=source,
        digest=digest,
    )


def split(source: Source, config: Dataset) -> Data:
    """Hold out the validation set that `config` asks for.

    Raises:
        InputError: for a validation set that leaves no training images.
    """
    if config.validation == "test":
        return Data(**vars(source), x_validation=source.x_test, y_validation=source.y_test, watches_test_set=True)
    held_out, kept = _split(len(source.x_train), config)
    return Data(
        **vars(source) | {"x_train": source.x_train[kept], "y_train": source.y_train[kept]},
        x_validation=source.x_train[held_out],
        y_validation=source.y_train[held_out],
        watches_test_set=False,
    )


def _read(config: Dataset) -> tuple[_Arrays, str, str]:
    """Return the arrays, a short name for the dataset, and where it came from."""
    match config:
        case MnistDataset():
            return _read_npz(_MNIST), "mnist", "mnist_exp/data/mnist.npz"
        case NpzDataset():
            path = Path(config.path).expanduser()
            return _read_npz(path), path.stem, str(path)
        case IdxDataset():
            path = Path(config.path).expanduser()
            return _read_idx(path), path.resolve().name, str(path)
        case KerasDataset():
            return _read_keras(config.name), config.name, f"keras.datasets.{config.name}"
    raise TypeError(f"no reader for {type(config).__name__}")


def _read_npz(path: Path) -> _Arrays:
    if not zipfile.is_zipfile(path):
        raise InputError(f"dataset.path={path}: is not a valid npz file; np.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {"x_train", "y_train", "x_test", "y_test"} - set(file.files)
            if missing:
                raise InputError(
                    f"dataset.path={path}: must hold x_train, y_train, x_test and y_test; lacks {', '.join(missing)}"
                )
            return _Arrays(file["x_train"], file["y_train"], file["x_test"], file["y_test"])
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"dataset.path={path}: is not a valid npz file ({error}); np.savez writes one") from error
    except InputError:
        raise
    except ValueError as error:  # an array of Python objects, for which NumPy recommends to load a pickle
        raise InputError(f"dataset.path={path}: must hold plain arrays of numbers") from error


def _read_idx(folder: Path) -> _Arrays:
    if not folder.is_dir():
        raise InputError(f"dataset.path={folder}: must be a folder with the four IDX files")
    return _Arrays(
        _read_idx_file(folder, "train-images-idx3-ubyte", _IDX_IMAGES),
        _read_idx_file(folder, "train-labels-idx1-ubyte", _IDX_LABELS),
        _read_idx_file(folder, "t10k-images-idx3-ubyte", _IDX_IMAGES),
        _read_idx_file(folder, "t10k-labels-idx1-ubyte", _IDX_LABELS),
    )


def _read_idx_file(folder: Path, name: str, magic: int) -> Images:
    """Read an IDX file: a big-endian magic number whose last byte counts the axes, their lengths, then the bytes."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise InputError(f"dataset.path={folder}: has no file {name} or {name}.gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is not a valid gzip file ({error})") from error
    axes = magic % 256
    found = int.from_bytes(content[:4], "big")
    if len(content) < 4 * (1 + axes) or found != magic:
        what = "images" if magic == _IDX_IMAGES else "labels"
        raise InputError(f"{path}: must be an IDX file of {what}, which starts with {magic}; starts with {found}")
    shape = struct.unpack_from(f">{axes}I", content, offset=4)
    pixels = np.frombuffer(content, dtype=np.uint8, offset=4 * (1 + axes))
    if len(pixels) != math.prod(shape):
        raise InputError(f"{path}: its header promises {math.prod(shape)} bytes of shape {shape}; it has {len(pixels)}")
    return pixels.reshape(shape)


def _read_keras(name: str) -> _Arrays:
    from mnist_exp.learning.keras_backend import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # urllib, tarfile and Keras raise whatever a broken network or download makes of it
        raise InputError(
            f"dataset.name={name}: Keras could not download it ({error}); it needs a network once. "
            "dataset=mnist needs none; dataset=npz and dataset=idx read files that you have"
        ) from error
    return _Arrays(x_train, y_train.reshape(len(y_train)), x_test, y_test.reshape(len(y_test)))


def _checked(x: npt.NDArray[np.generic], y: npt.NDArray[np.generic], part: str, source: str) -> tuple[Images, Labels]:
    if len(x) == 0:
        raise InputError(f"{source}: x_{part} has no images")
    if x.ndim not in (3, 4) or 0 in x.shape or x.shape[3:] not in ((), (1,), (3,)):
        raise InputError(
            f"{source}: x_{part} has shape {x.shape}; must be (N, height, width), or (N, height, width, channels) with "
            "1 or 3 channels"
        )
    if not np.issubdtype(x.dtype, np.integer) or x.min() < 0 or x.max() > 255:
        raise InputError(
            f"{source}: x_{part} has {x.dtype} from {x.min()} to {x.max()}; must be whole numbers 0 to 255"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{source}: y_{part} has {y.dtype} of shape {y.shape}; must be whole numbers of shape (N,)")
    if len(x) != len(y):
        raise InputError(f"{source}: {len(x)} images in x_{part}, {len(y)} labels in y_{part}; must be equal")
    labels = y.astype(np.int64)
    if labels.min() < 0 or labels.max() > 9999:
        raise InputError(f"{source}: y_{part} goes from {y.min()} to {y.max()}; labels count from 0 to at most 9999")
    return x.astype(np.uint8, copy=False), labels


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    """32 hexadecimal digits of a SHA-256 over shapes and contents; MLflow takes at most 36."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(repr(array.shape).encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]


def _split(count: int, config: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the indices of the validation set and of what is left, each in order; drawn by `config.seed`."""
    share = config.validation
    assert not isinstance(share, str)
    size = share if isinstance(share, int) else round(share * count)
    if not 0 < size < count:
        raise InputError(
            f"dataset.validation={share}: holds out {size} of {count} training images; must be 1 to {count - 1} images"
        )
    order = np.random.default_rng(config.seed).permutation(count)
    return np.sort(order[:size]), np.sort(order[size:])
