"""Images are read from a source, checked, and identified by a digest."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp.data import memory
from mnist_exp.data.metadata import check_class_name, numbers
from mnist_exp.data.sources import Arrays, Dataset
from mnist_exp.errors import InputError
from mnist_exp.text import cut

Images = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SMALLEST, LARGEST = 10, 500  # pixels a side of an image
MOST_CLASSES = 10000


@dataclass(frozen=True, kw_only=True)
class Data(Arrays):
    """Raw images (N, height, width) or (N, height, width, channels), 0 to `maximum`, and labels (N,), from 0.

    `digest` identifies all images and labels, however they were stored, and `test_digest` those of the test set. The
    validation set is held out of the training images, or is the test set itself (`watches_test_set`).
    """

    maximum: float
    digest: str
    test_digest: str
    x_validation: Images
    y_validation: Labels
    watches_test_set: bool

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    @property
    def test_files(self) -> tuple[str, ...]:
        """Return the names of the test images' files, relative to their folder; none if they come from arrays."""
        return self.file_names[1] if self.file_names is not None else ()

    def metadata(self) -> dict[str, Any]:
        """Return how labels and pixels differ from MNIST's, as plain values."""
        values: dict[str, Any] = {}
        if self.names != numbers(self.classes):
            values["classes"] = list(self.names)
        if self.maximum != 255 or self.x_train.dtype != np.uint8:
            values["maximum"] = self.maximum
        if self.resized:
            values["resized"] = True
        return values


def read(config: Dataset) -> Data:
    """Read a dataset with its first `limit` training images; its validation set is the test set.

    Raises:
        InputError: if a file cannot be read, the arrays have a wrong shape, size, type or range or do not fit each
            other, a class is not in both sets, or training would take more than half of the memory.
    """
    arrays = config.read()
    source, limit = arrays.source, config.limit
    memory.check(config, source, {"x_train": arrays.x_train, "x_test": arrays.x_test})
    x_train, x_test = (_checked_images(part, config, arrays) for part in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"{source}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}; must be equal"
        )
    if x_train.dtype != x_test.dtype:  # integers and floats of the same range
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
    y_train, y_test, names = _numbered(arrays)
    return Data(
        x_train=x_train[:limit],
        y_train=y_train[:limit],
        x_test=x_test,
        y_test=y_test,
        x_validation=x_test,
        y_validation=y_test,
        watches_test_set=True,
        names=names,
        maximum=arrays.maximum or 255.0,
        resized=arrays.resized,
        name=arrays.name,
        source=source,
        file_names=arrays.file_names and (arrays.file_names[0][:limit], arrays.file_names[1]),
        digest=_digest(names, x_train, y_train, x_test, y_test),
        test_digest=_digest(names, x_test, y_test),
    )


def _checked_images(part: str, config: Dataset, arrays: Arrays) -> Images:
    """Check the images of `part`, and return them as uint8, uint16 or float32."""
    x: npt.NDArray[Any] = getattr(arrays, part)
    where = f"{arrays.source}: {part} has"
    if x.shape[:1] == (0,):
        raise InputError(f"{where} no images")
    if x.dtype.kind not in "buif":
        raise InputError(f"{where} {x.dtype}; must be whole numbers 0 to 255, or other plain numbers")
    _check_shape(x, where, part)
    least, most, white = float(x.min()), float(x.max()), arrays.maximum
    found = f"{where} {x.dtype} from {x.min()} to {x.max()}"
    if white is None:
        if x.dtype.kind not in "ui" or not 0 <= least <= most <= 255:
            raise InputError(f"{found}; must be whole numbers 0 to 255{_how_to_scale(least, most, config)}")
    elif not 0 <= least <= most <= white:
        raise InputError(f"{found}; with dataset.maximum={white:g} it must be from 0 to {white:g}, and no NaN")
    kept: npt.DTypeLike = np.float32 if x.dtype.kind == "f" else np.uint16 if (white or 255) > 255 else np.uint8
    return x.astype(kept, copy=False)


def _check_shape(x: npt.NDArray[np.generic], where: str, part: str) -> None:
    if x.ndim == 4 and x.shape[3] > 4 and x.shape[1] <= 4:
        raise InputError(f"{where} shape {x.shape}; the channels come last: np.moveaxis({part}, 1, -1)")
    if x.ndim == 4 and x.shape[3] > 4:
        raise InputError(f"{where} {x.shape[3]} channels; must have 1 to 4, such as {part}[..., :3]")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise InputError(
            f"{where} shape {x.shape}; must be (N, height, width), or (N, height, width, channels) with 1 to 4 channels"
        )
    height, width = x.shape[1:3]
    if min(height, width) < SMALLEST:
        fits = "pad them with np.pad, or enlarge them"
    elif max(height, width) > LARGEST:
        step = -(-max(height, width) // LARGEST)
        fits = f"crop them, or keep every pixel of {step}, such as {part}[:, ::{step}, ::{step}]"
    else:
        return
    raise InputError(f"{where} images of {height} x {width}; must be {SMALLEST} to {LARGEST} pixels a side; {fits}")


def _how_to_scale(least: float, most: float, config: Dataset) -> str:
    """Return the end of a message, which says how to bring such values to 0 to 255."""
    if not (least >= 0 and most <= 65535):  # or NaN
        return "; replace NaN, and shift and scale the others"
    white = 1 if most <= 1 else 255 if most <= 255 else 65535
    if hasattr(config, "maximum"):
        return f"; or type the value of a white pixel, here dataset.maximum={white}"
    return f"; such as np.rint(x * {255 / white:.6g}).astype(np.uint8)"


def _numbered(arrays: Arrays) -> tuple[Labels, Labels, tuple[str, ...]]:
    """Return the labels of both sets, from 0, and the classes' names."""
    source = arrays.source
    y_train, y_test = (_checked_labels(arrays, part) for part in ("train", "test"))
    if y_train.dtype.kind != y_test.dtype.kind:
        kinds = f"y_train has {arrays.y_train.dtype}, y_test {arrays.y_test.dtype}"
        raise InputError(f"{source}: {kinds}; must be both text or numbers")
    labels: Any = np.concatenate([y_train, y_test])
    if not arrays.names or labels.dtype.kind == "U":  # labels such as 1 to 26 become 0 to 25
        present, labels = np.unique(labels, return_inverse=True)
        names = tuple(map(str, present.tolist()))
    else:
        names = arrays.class_names(int(labels.max()) + 1, source)
    if len(names) > MOST_CLASSES:
        raise InputError(f"{source}: has {len(names)} different labels; must be at most {MOST_CLASSES}")
    for name in names:
        check_class_name(name, source)
    train, test = np.split(labels.astype(np.int64), [len(y_train)])
    _check_classes(set(train.tolist()), set(test.tolist()), names, source)
    return train, test, names


def _checked_labels(arrays: Arrays, part: str) -> npt.NDArray[np.generic]:
    """Check the labels of `part`, and return them as int64 or text."""
    images, y = len(getattr(arrays, f"x_{part}")), np.asarray(getattr(arrays, f"y_{part}"))
    where = f"{arrays.source}: y_{part}"
    if y.ndim != 1 or y.dtype.kind not in "uiUS":
        raise InputError(
            f"{where} has {y.dtype} of shape {y.shape}; must be whole numbers, or text, of shape (N,)"
            f"{'; argmax(axis=1) makes them of one-hot vectors' if y.ndim == 2 else ''}"
        )
    if images != len(y):
        raise InputError(f"{arrays.source}: {images} images in x_{part}, {len(y)} labels in y_{part}; must be equal")
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where} has labels that are no text in UTF-8 ({error.reason})") from error
    if y.min() < 0 or y.max() >= MOST_CLASSES:
        raise InputError(f"{where} goes from {y.min()} to {y.max()}; labels count from 0 to at most {MOST_CLASSES - 1}")
    return y.astype(np.int64)


def _check_classes(train: set[int], test: set[int], names: tuple[str, ...], source: str) -> None:
    """Check that there are at least two classes, each in both sets."""
    if len(train | test) < 2:
        raise InputError(f"{source}: all images are of class {names[train.pop()]}; there must be at least two classes")
    for missing, part in ((test - train, "training"), (train - test, "test")):
        if missing:
            some = ", ".join(cut(names[label], 40) for label in sorted(missing)[:5])
            more = f" and {len(missing) - 5} others" if len(missing) > 5 else ""
            raise InputError(
                f"{source}: the {part} set has no image of class {some}{more}; add some, or take the class out of the "
                "other set"
            )


def _digest(names: tuple[str, ...], *arrays: npt.NDArray[np.generic]) -> str:
    """Return 32 digits of the SHA-256 of names, shapes and contents; MLflow takes at most 36."""
    total = hashlib.sha256()
    if names != numbers(len(names)):
        total.update(repr(names).encode())
    for array in arrays:
        kind = "" if array.dtype in (np.uint8, np.int64) else str(array.dtype)
        total.update(f"{array.shape!r}{kind}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]
