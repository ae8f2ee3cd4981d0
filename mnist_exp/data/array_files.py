"""Read arrays from files that may come from others: NumPy's npz and MNIST's IDX."""

import gzip
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_exp.config.files import open_file
from mnist_exp.data import memory
from mnist_exp.data.metadata import DAMAGED
from mnist_exp.errors import InputError
from mnist_exp.text import cut

PARTS = ("x_train", "y_train", "x_test", "y_test")
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_npz(path: Path, config: memory.Limits) -> dict[str, Any]:
    """Return the four arrays of an npz file.

    Raises:
        InputError: if it is damaged, lacks an array, or `memory.check` refuses what it has.
    """
    key = f"dataset.path={path}"
    if os.path.isdir(path):  # noqa: PTH112, a name of any length
        raise InputError(
            f"{key}: must be a file; is a folder; dataset=folder reads pictures in one, one folder per class"
        )
    try:
        with (
            open_file(path, key) as opened,
            zipfile.ZipFile(opened) as file,
            warnings.catch_warnings(action="ignore"),
        ):  # headers warn of their syntax
            names = [name.removesuffix(".npy") for name in file.namelist()]
            if missing := set(PARTS).difference(names):
                raise InputError(
                    f"{key}: must hold {', '.join(PARTS[:3])} and {PARTS[3]}; lacks {', '.join(sorted(missing))}"
                )
            if twice := [part for part in PARTS if names.count(part) > 1]:
                raise zipfile.BadZipFile(f"it has {twice[0]} twice")
            headers = {part: _npy_header(file, part) for part in PARTS}
            if any(header.dtype.hasobject for header in headers.values()):
                raise InputError(
                    f"{key}: must hold plain arrays of numbers, or labels of text, not objects; astype(str) makes text "
                    "of them"
                )
            memory.check(config, key, headers)
            return {part: _npy_array(file, part) for part in PARTS}
    except InputError:
        raise
    except (ValueError, *DAMAGED) as error:
        raise InputError(f"{key}: is not a valid npz file ({cut(str(error), 200)}); np.savez writes one") from error


def _npy_header(file: zipfile.ZipFile, part: str) -> memory.Header:
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
    return memory.Header(shape, dtype)


def _npy_array(file: zipfile.ZipFile, part: str) -> npt.NDArray[Any]:
    with file.open(f"{part}.npy") as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def idx_files(folder: Path) -> list[Path]:
    """Return which of MNIST's four files, plain or .gz, a folder has."""
    return [path for name in _IDX for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def read_idx(folder: Path, config: memory.Limits) -> dict[str, Any]:
    """Return the arrays of MNIST's four files, plain or .gz.

    Raises:
        InputError: if one is missing or damaged, or `memory.check` refuses what they have.
    """
    key = f"dataset.path={folder}"
    if not folder.is_dir():
        raise InputError(f"{key}: must be a folder with the four IDX files")
    found = {path.name.removesuffix(".gz"): path for path in reversed(idx_files(folder))}
    if missing := [name for name in _IDX if name not in found]:
        raise InputError(f"{key}: has no file {missing[0]} or {missing[0]}.gz")
    paths = {part: found[name] for part, name in zip(PARTS, _IDX, strict=True)}
    shapes = {part: _idx_shape(path, 3 if part[0] == "x" else 1) for part, path in paths.items()}
    memory.check(config, key, {part: memory.Header(shape, np.dtype(np.uint8)) for part, shape in shapes.items()})
    return {part: _idx_array(path, shapes[part]) for part, path in paths.items()}


@contextmanager
def _unpacked(path: Path) -> Iterator[gzip.GzipFile | BinaryIO]:
    with open_file(path) as opened:
        try:
            yield gzip.GzipFile(fileobj=opened) if path.suffix == ".gz" else opened
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: is not a valid gzip file ({error})") from error


def _idx_shape(path: Path, axes: int) -> tuple[int, ...]:
    """Read an IDX file's header: 0x0800 plus the number of axes, then their lengths, all big-endian in 4 bytes."""
    with _unpacked(path) as file:
        header = file.read(4 * (1 + axes))
    starts, what = int.from_bytes(header[:4], "big"), "images" if axes == 3 else "labels"
    if len(header) < 4 * (1 + axes) or starts != 0x0800 + axes:
        raise InputError(
            f"{path}: must be an IDX file of {what}, which starts with {0x0800 + axes}; starts with {starts}"
        )
    shape = struct.unpack_from(f">{axes}I", header, offset=4)
    if 0 in shape:
        raise InputError(f"{path}: its header promises no {what}, but shape {shape}")
    return shape


def _idx_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    size = math.prod(shape)
    with _unpacked(path) as file:
        file.read(4 * (1 + len(shape)))
        # No more than the header promises, nor than deflate can have packed, at most 1,032 bytes into one.
        content = file.read(min(size, 1100 * path.stat().st_size) + 1)
    if len(content) != size:
        more = "more" if len(content) > size else len(content)
        raise InputError(f"{path}: its header promises {size} bytes of shape {shape}; it has {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
