"""The images of a source: checked, split and identified by a digest."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_exp.errors import InputError
from mnist_exp.learning.sources import Dataset

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


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
    arrays = config.read()
    name, source = arrays.name, arrays.source
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
