"""Images are read from a source, checked, and identified by a digest."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp.data.array_files import PARTS, check_arrays
from mnist_exp.data.metadata import check_class_name, numbers
from mnist_exp.data.sources import Arrays, Dataset
from mnist_exp.errors import InputError
from mnist_exp.text import truncate

Images = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MAX_CLASSES = 10000


@dataclass(frozen=True, kw_only=True)
class Data(Arrays):
    """Raw images and labels of a dataset.

    Images are (N, height, width) or (N, height, width, channels), 0 to `maximum`, and labels (N,), from 0.
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
        """The test images' file names, relative to their folder, if there are files."""
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
    """Read a dataset with its first `limit` training images.

    Its validation set is the test set.

    Raises:
        InputError: if a file cannot be read, the arrays have a wrong shape, size, type or range or do not fit each
            other, a class is not in both sets, or training would take more than half of the memory.
    """
    arrays = config.read()
    source, limit = arrays.source, config.limit
    check_arrays(source, {part: getattr(arrays, part) for part in PARTS}, limit)
    x_train, x_test = (_check_images(part, arrays) for part in ("x_train", "x_test"))
    if x_train.dtype != x_test.dtype:  # integers and floats of the same range
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
    y_train, y_test, names = _encode_labels(arrays)
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


def _check_images(part: str, arrays: Arrays) -> Images:
    """Return the images of `part` as uint8, uint16 or float32, their range checked."""
    x: npt.NDArray[Any] = getattr(arrays, part)
    least, most, white = float(x.min()), float(x.max()), arrays.maximum or 255
    if arrays.maximum is None:
        wanted = "must be whole numbers 0 to 255; for others of an npz file, set dataset.maximum to the value of white"
    else:
        wanted = f"with dataset.maximum={white:g} it must be from 0 to {white:g}, and no NaN"
    if not 0 <= least <= most <= white or (arrays.maximum is None and x.dtype.kind not in "ui"):
        raise InputError(f"{arrays.source}: {part} has {x.dtype} from {x.min()} to {x.max()}; {wanted}")
    kept: npt.DTypeLike = np.float32 if x.dtype.kind == "f" else np.uint16 if white > 255 else np.uint8
    return x.astype(kept, copy=False)


def _encode_labels(arrays: Arrays) -> tuple[Labels, Labels, tuple[str, ...]]:
    """Return the labels of both sets, from 0, and the classes' names."""
    source = arrays.source
    train, test = _labels(arrays.y_train, f"{source}: y_train"), _labels(arrays.y_test, f"{source}: y_test")
    if arrays.names and isinstance(train[0], int):
        names = arrays.class_names(max(*train, *test) + 1, source)
    else:  # labels such as 1 to 26 become 0 to 25
        found = sorted({*train, *test})
        number = {label: index for index, label in enumerate(found)}
        train, test = [number[label] for label in train], [number[label] for label in test]
        names = tuple(map(str, found))
    if len(names) > MAX_CLASSES:
        raise InputError(f"{source}: has {len(names)} different labels; must be at most {MAX_CLASSES}")
    for name in names:
        check_class_name(name, source)
    _check_classes(set(train), set(test), names, source)
    return np.array(train, np.int64), np.array(test, np.int64), names


def _labels(y: npt.NDArray[Any], where: str) -> list[Any]:
    """Check labels, and return them as int or str."""
    if y.dtype.kind in "ui" and (y.min() < 0 or y.max() >= MAX_CLASSES):
        raise InputError(f"{where} goes from {y.min()} to {y.max()}; labels count from 0 to at most {MAX_CLASSES - 1}")
    try:
        labels: list[Any] = y.tolist()
        return [label.decode() for label in labels] if y.dtype.kind == "S" else labels
    except (ValueError, SystemError) as error:  # not UTF-8, or above U+10FFFF
        raise InputError(f"{where} has labels that are not valid Unicode text; write them anew") from error


def _check_classes(train: set[int], test: set[int], names: tuple[str, ...], source: str) -> None:
    """Check that there are at least two classes, each in both sets."""
    if len(train | test) < 2:
        raise InputError(f"{source}: all images are of class {names[train.pop()]}; there must be at least two classes")
    for missing, part in ((test - train, "training"), (train - test, "test")):
        if missing:
            some = ", ".join(truncate(names[label], 40) for label in sorted(missing)[:5])
            more = f" and {len(missing) - 5} others" if len(missing) > 5 else ""
            raise InputError(
                f"{source}: the {part} set has no image of class {some}{more}; add some, or take the class out of the "
                "other set"
            )


def _digest(names: tuple[str, ...], *arrays: npt.NDArray[np.generic]) -> str:
    """Return 32 digits of the SHA-256 of names, shapes and contents.

    MLflow takes at most 36.
    """
    total = hashlib.sha256()
    if names != numbers(len(names)):
        total.update(repr(names).encode())
    for array in arrays:
        kind = "" if array.dtype in (np.uint8, np.int64) else str(array.dtype)
        total.update(f"{array.shape!r}{kind}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]
