"""Read arrays from files that may come from others: NumPy's npz and MNIST's IDX."""

import gzip
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_exp.config.files import open_file
from mnist_exp.data import memory
from mnist_exp.data.metadata import DAMAGED
from mnist_exp.errors import InputError
from mnist_exp.text import truncate

PARTS = ("x_train", "y_train", "x_test", "y_test")
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_SHAPE = "(N, height, width), or (N, height, width, channels) with 1 to 4 channels, of 10 to 500 pixels a side"


class Header(NamedTuple):
    """The shape and type of an array that is not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def check_arrays(
    where: str,
    arrays: Mapping[str, Header | npt.NDArray[Any]],
    limit: int | None,
    advice: str = "keep fewer or smaller images there",
) -> None:
    """Check four arrays' types and shapes, and that training fits into memory.

    Args:
        where: the file, which begins messages.
        arrays: `x_train`, `y_train`, `x_test` and `y_test`, or their headers.
        limit: the number of training images that are used; None for all. The engine's copy of them counts too, and the
            test images as floats.
        advice: ends the message if they take too much.

    Raises:
        InputError: which begins with `where` and, if they take too much, ends with `advice`.
    """
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype.kind not in "buif":
            raise InputError(f"{where}: x_{part} has {x.dtype}; must be whole numbers 0 to 255, or other plain numbers")
        count, *sides = x.shape or (0,)
        channels = sides[2:] or [1]
        if not (
            count and len(sides) in (2, 3) and 10 <= min(sides[:2]) <= max(sides[:2]) <= 500 and 0 < channels[0] < 5
        ):
            raise InputError(f"{where}: x_{part} has shape {x.shape}; must be {_SHAPE}")
        if len(y.shape) != 1 or y.dtype.kind not in "uiUS":
            raise InputError(
                f"{where}: y_{part} has {y.dtype} of shape {y.shape}; must be whole numbers, or text, of shape (N,), "
                "such as argmax(axis=1) of one-hot vectors, or astype(str) of objects"
            )
        if count != y.shape[0]:
            raise InputError(f"{where}: {count} images in x_{part}, {y.shape[0]} labels in y_{part}; must be equal")
    train, y_train, test, y_test = (arrays[part] for part in PARTS)
    if train.shape[1:] != test.shape[1:]:
        raise InputError(f"{where}: training images are {train.shape[1:]}, test images {test.shape[1:]}; must be equal")
    if (y_train.dtype.kind in "US") != (y_test.dtype.kind in "US"):
        raise InputError(f"{where}: y_train has {y_train.dtype}, y_test {y_test.dtype}; must be both text or numbers")
    kept, image = min(limit or train.shape[0], train.shape[0]), math.prod(train.shape[1:]) * train.dtype.itemsize
    takes = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
    takes += kept * image + 4 * math.prod(test.shape)
    fits = kept + (memory.memory() // 2 - takes) // image
    memory.check(
        f"{where}: {kept} training and {test.shape[0]} test images of {' x '.join(map(str, train.shape[1:]))} take",
        takes,
        f"set dataset.limit={fits}, or {advice}" if fits > 0 else advice,
    )


def read_npz(path: Path, limit: int | None) -> dict[str, Any]:
    """Return the four arrays of an npz file.

    Raises:
        InputError: if it is damaged, lacks an array, or `check_arrays` refuses its arrays.
    """
    key = f"dataset.path={path}"
    if os.path.isdir(path):  # noqa: PTH112, a name of any length
        raise InputError(
            f"{key}: must be a file; is a folder; dataset=folder reads pictures in one, one folder per class"
        )
    try:
        # A header may have syntax that Python warns of.
        with open_file(path, key) as opened, zipfile.ZipFile(opened) as file, warnings.catch_warnings(action="ignore"):
            names = [name.removesuffix(".npy") for name in file.namelist()]
            if wrong := [part for part in PARTS if names.count(part) != 1]:
                raise InputError(f"{key}: must hold {', '.join(PARTS)}, once each; lacks or repeats {', '.join(wrong)}")
            headers = {part: _npy_header(file, part) for part in PARTS}
            check_arrays(key, headers, limit)
            arrays = {}
            for part in PARTS:
                with file.open(f"{part}.npy") as member:
                    arrays[part] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except InputError:
        raise
    except (ValueError, *DAMAGED) as error:
        raise InputError(
            f"{key}: is not a valid npz file ({truncate(str(error), 200)}); np.savez writes one"
        ) from error


def _npy_header(file: zipfile.ZipFile, part: str) -> Header:
    """Read the shape and type of an array in a zip file."""
    try:
        with file.open(f"{part}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
    except Exception as error:  # a header is a Python literal, and its parser raises anything
        raise zipfile.BadZipFile(f"{part} has no header of an array") from error
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) >= 2**63:
        raise zipfile.BadZipFile(f"{part} has a shape that no array can have")
    return Header(shape, dtype)


def idx_files(folder: Path) -> list[Path]:
    """Return which of MNIST's four files, plain or .gz, a folder has."""
    return [path for name in _IDX for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def read_idx(folder: Path, limit: int | None) -> dict[str, Any]:
    """Return the arrays of MNIST's four files, plain or .gz.

    Raises:
        InputError: if one is missing or damaged, or `check_arrays` refuses their arrays.
    """
    key = f"dataset.path={folder}"
    if not folder.is_dir():
        raise InputError(f"{key}: must be a folder with the four IDX files")
    found = {path.name.removesuffix(".gz"): path for path in reversed(idx_files(folder))}
    if missing := [name for name in _IDX if name not in found]:
        raise InputError(f"{key}: has no file {missing[0]} or {missing[0]}.gz")
    paths = {part: found[name] for part, name in zip(PARTS, _IDX, strict=True)}
    shapes = {part: _idx_shape(path, 3 if part[0] == "x" else 1) for part, path in paths.items()}
    check_arrays(key, {part: Header(shape, np.dtype(np.uint8)) for part, shape in shapes.items()}, limit)
    return {part: _idx_array(path, shapes[part]) for part, path in paths.items()}


@contextmanager
def _decompress(path: Path) -> Iterator[gzip.GzipFile | BinaryIO]:
    with open_file(path) as opened:
        try:
            yield gzip.GzipFile(fileobj=opened) if path.suffix == ".gz" else opened
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: is not a valid gzip file ({error})") from error


def _idx_shape(path: Path, axes: int) -> tuple[int, ...]:
    """Read an IDX file's header.

    It is 0x0800 plus the number of axes, then their lengths, each big-endian in 4 bytes.
    """
    with _decompress(path) as file:
        header = file.read(4 * (1 + axes))
    starts, what = int.from_bytes(header[:4], "big"), "images" if axes == 3 else "labels"
    if len(header) < 4 * (1 + axes) or starts != 0x0800 + axes:
        raise InputError(
            f"{path}: must be an IDX file of {what}, which starts with {0x0800 + axes}; starts with {starts}"
        )
    return struct.unpack_from(f">{axes}I", header, offset=4)


def _idx_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    size = math.prod(shape)
    with _decompress(path) as file:
        file.read(4 * (1 + len(shape)))
        # No more than the header promises, nor than deflate can have packed, at most 1,032 bytes into one.
        content = file.read(min(size, 1100 * path.stat().st_size) + 1)
    if len(content) != size:
        more = "more" if len(content) > size else len(content)
        raise InputError(f"{path}: its header promises {size} bytes of shape {shape}; it has {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
