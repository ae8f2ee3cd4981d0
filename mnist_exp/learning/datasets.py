"""The images of a source: checked, split and identified by a digest."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_exp.errors import InputError, printable
from mnist_exp.learning import memory
from mnist_exp.learning.sources import MOST_CLASSES, Arrays, Dataset, FolderDataset, is_class_name

Images = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SMALLEST, LARGEST = 10, 500  # pixels a side of an image


@dataclass(frozen=True, kw_only=True)
class Source:
    """Raw images of shape (N, height, width) or (N, height, width, channels), 0 to `maximum`, and labels (N,) from 0.

    `names` has a name for each class, its number where it has none; `classes` is their number. `resized` is as in
    `Arrays`. `digest` identifies all images and labels of the source, however they were stored.
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    names: tuple[str, ...]
    maximum: float
    resized: bool
    name: str
    source: str
    digest: str

    @property
    def classes(self) -> int:
        """Return how many classes there are."""
        return len(self.names)


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
        InputError: for a file that is missing, truncated or mislabelled, arrays of the wrong shape, size, type or
            range, labels and images of different lengths, classes that are not in both sets, or more than half of the
            memory.
    """
    arrays = _read_folder(config) if isinstance(config, FolderDataset) else config.read()
    source = arrays.source
    # Beside what is read already, training makes copies.
    memory.check_arrays(config, source, {"x_train": arrays.x_train, "x_test": arrays.x_test})
    x_train = _checked_images(arrays.x_train, "x_train", source, config, arrays)
    x_test = _checked_images(arrays.x_test, "x_test", source, config, arrays)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"{source}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}; must be equal"
        )
    if x_train.dtype != x_test.dtype:  # whole numbers, and floats of the same range
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
    y_train, y_test, names = _numbered(arrays, source)
    return Source(
        x_train=x_train[: config.limit],
        y_train=y_train[: config.limit],
        x_test=x_test,
        y_test=y_test,
        names=names,
        maximum=255.0 if arrays.maximum is None else arrays.maximum,
        resized=arrays.resized,
        name=arrays.name,
        source=source,
        digest=_digest(names, x_train, y_train, x_test, y_test),
    )


def _read_folder(config: FolderDataset) -> Arrays:
    from mnist_exp.learning.image_folder import read_folder  # brings Pillow

    return read_folder(config)


def split(source: Source, config: Dataset) -> Data:
    """Hold out the validation set that `config` asks for, drawn by its `seed`, each part in order.

    Raises:
        InputError: for a validation set that leaves no training images.
    """
    if (share := config.validation) == "test":
        return Data(**vars(source), x_validation=source.x_test, y_validation=source.y_test, watches_test_set=True)
    count = len(source.x_train)
    size = share if isinstance(share, int) else round(share * count)
    if not 0 < size < count:
        raise InputError(
            f"dataset.validation={share}: holds out {size} of {count} training images; must be 1 to {count - 1} images"
        )
    order = np.random.default_rng(config.seed).permutation(count)
    held_out, kept = np.sort(order[:size]), np.sort(order[size:])
    return Data(
        **vars(source) | {"x_train": source.x_train[kept], "y_train": source.y_train[kept]},
        x_validation=source.x_train[held_out],
        y_validation=source.y_train[held_out],
        watches_test_set=False,
    )


def _checked_images(x: npt.NDArray[np.generic], part: str, source: str, config: Dataset, arrays: Arrays) -> Images:
    """Return images as they are kept: whole numbers of one byte or two, or floats of four."""
    if len(x) == 0:
        raise InputError(f"{source}: {part} has no images")
    _check_shape(x, f"{source}: {part} has", part)
    if x.dtype.kind not in "buif":
        raise InputError(f"{source}: {part} has {x.dtype}; must be whole numbers 0 to 255, or other plain numbers")
    least, most = x.min(), x.max()
    found = f"{source}: {part} has {x.dtype} from {least} to {most}"
    if arrays.maximum is None:
        if x.dtype.kind not in "ui" or not 0 <= int(least) <= int(most) <= 255:
            raise InputError(
                f"{found}; must be whole numbers 0 to 255{_how_to_scale(float(least), float(most), config)}"
            )
    elif not 0 <= float(least) <= float(most) <= arrays.maximum:
        key = f"dataset.maximum={arrays.maximum:g}" if hasattr(config, "maximum") else f"{arrays.maximum:g} as white"
        raise InputError(f"{found}; with {key} it must be from 0 to {arrays.maximum:g}, and no NaN")
    if x.dtype.kind == "f":
        return x.astype(np.float32, copy=False)
    if arrays.maximum is not None and arrays.maximum > 255:
        return x.astype(np.uint16, copy=False)
    return x.astype(np.uint8, copy=False)


def _check_shape(x: npt.NDArray[np.generic], found: str, part: str) -> None:
    if x.ndim == 4 and x.shape[3] > 4 and x.shape[1] <= 4:
        raise InputError(f"{found} shape {x.shape}; the channels come last: np.moveaxis({part}, 1, -1)")
    if x.ndim == 4 and x.shape[3] > 4:
        raise InputError(f"{found} {x.shape[3]} channels; must have 1 to 4, such as {part}[..., :3]")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise InputError(
            f"{found} shape {x.shape}; must be (N, height, width), or (N, height, width, channels) with 1 to 4 channels"
        )
    height, width = x.shape[1:3]
    if min(height, width) < SMALLEST:
        fits = "pad them with np.pad, or enlarge them"
    elif max(height, width) > LARGEST:
        step = -(-max(height, width) // LARGEST)
        fits = f"crop them, or keep every pixel of {step}, such as {part}[:, ::{step}, ::{step}]"
    else:
        return
    raise InputError(f"{found} images of {height} x {width}; must be {SMALLEST} to {LARGEST} pixels a side; {fits}")


def _how_to_scale(least: float, most: float, config: Dataset) -> str:
    """Say, as the end of a message, what makes values fit that are not whole numbers from 0 to 255."""
    if not (least >= 0 and most <= 65535):  # NaN too
        return "; replace NaN, and shift and scale the others"
    white = 1 if most <= 1 else 255 if most <= 255 else 65535
    if hasattr(config, "maximum"):
        return f"; or type the value of a white pixel, here dataset.maximum={white}"
    return f"; such as np.rint(x * {255 / white:.6g}).astype(np.uint8)"


def _checked_labels(y: npt.NDArray[np.generic], images: int, part: str, source: str) -> npt.NDArray[np.generic]:
    if y.ndim != 1 or y.dtype.kind not in "uiUS":
        raise InputError(
            f"{source}: y_{part} has {y.dtype} of shape {y.shape}; must be whole numbers, or text, of shape (N,)"
            f"{'; argmax(axis=1) makes them of one-hot vectors' if y.ndim == 2 else ''}"
        )
    if images != len(y):
        raise InputError(f"{source}: {images} images in x_{part}, {len(y)} labels in y_{part}; must be equal")
    if y.dtype.kind in "ui" and (y.min() < 0 or y.max() >= MOST_CLASSES):
        raise InputError(
            f"{source}: y_{part} goes from {y.min()} to {y.max()}; labels count from 0 to at most {MOST_CLASSES - 1}"
        )
    return y


def _numbered(arrays: Arrays, source: str) -> tuple[Labels, Labels, tuple[str, ...]]:
    """Return the labels as numbers, and the classes' names; of classes without one, their numbers."""
    y_train = _checked_labels(arrays.y_train, len(arrays.x_train), "train", source)
    y_test = _checked_labels(arrays.y_test, len(arrays.x_test), "test", source)
    if (y_train.dtype.kind in "US") != (y_test.dtype.kind in "US"):
        raise InputError(f"{source}: y_train has {y_train.dtype}, y_test {y_test.dtype}; must be both text or numbers")
    if y_train.dtype.kind in "US":
        found, counted = np.unique(np.concatenate([_text(y_train, source), _text(y_test, source)]), return_inverse=True)
        names = tuple(map(str, found))
        if len(names) > MOST_CLASSES:
            raise InputError(f"{source}: has {len(names)} different labels; must be at most {MOST_CLASSES}")
        train, test = np.split(counted.astype(np.int64), [len(y_train)])
    else:
        train, test = y_train.astype(np.int64), y_test.astype(np.int64)
        names = arrays.names or numbers(int(max(train.max(), test.max())) + 1)
        present = np.union1d(train, test)
        if len(present) < len(names) and arrays.names is None:  # such as 1 to 26; a class is what there are images of
            names = tuple(map(str, present))
            train, test = np.searchsorted(present, train), np.searchsorted(present, test)
    for name in names:
        if not is_class_name(name):
            shown = printable(name)[:40]
            raise InputError(
                f"{source}: a class is named {shown!r}; must be some printable text of at most 255 characters"
            )
    _check_classes(set(train.tolist()), set(test.tolist()), names, source)
    return train, test, names


def _text(labels: npt.NDArray[np.generic], source: str) -> npt.NDArray[np.str_]:
    if labels.dtype.kind == "U":
        return labels.astype(np.str_)
    try:
        return np.char.decode(labels.astype(np.bytes_), "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: has labels that are no text in UTF-8 ({error.reason})") from error


def _check_classes(train: set[int], test: set[int], names: tuple[str, ...], source: str) -> None:
    """Check that there are two classes or more, each in both sets."""
    if len(train | test) < 2:
        raise InputError(f"{source}: all images are of class {names[train.pop()]}; there must be at least two classes")
    for missing, part in ((test - train, "training"), (train - test, "test")):
        if missing:
            some = ", ".join(printable(names[label])[:40] for label in sorted(missing)[:5])
            more = f" and {len(missing) - 5} others" if len(missing) > 5 else ""
            raise InputError(
                f"{source}: the {part} set has no image of class {some}{more}; add some, or take the class out of the "
                "other set"
            )


def numbers(classes: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers."""
    return tuple(map(str, range(classes)))


def _digest(names: tuple[str, ...], *arrays: npt.NDArray[np.generic]) -> str:
    """32 hexadecimal digits of a SHA-256 over names, shapes and contents; MLflow takes at most 36."""
    total = hashlib.sha256()
    if names != numbers(len(names)):
        total.update(repr(names).encode())
    for array in arrays:
        kind = "" if array.dtype in (np.uint8, np.int64) else str(array.dtype)
        total.update(f"{array.shape!r}{kind}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]
