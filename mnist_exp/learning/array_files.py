"""Read arrays from files that may come from others: NumPy's npz and MNIST's IDX."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp.errors import InputError
from mnist_exp.learning import memory
from mnist_exp.learning.metadata import DAMAGED

PARTS = ("x_train", "y_train", "x_test", "y_test")
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_npz(path: Path, config: memory.Limits) -> dict[str, Any]:
    """Return the four arrays of an npz file.

    Raises:
        InputError: if it is damaged, lacks an array, or `memory.check` refuses what it has.
    """
    if path.is_dir():
        raise InputError(f"dataset.path={path}: is a folder; dataset=folder reads pictures in one, a folder a class")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(f"dataset.path={path}: is not a valid npz file; np.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as file, zipfile.ZipFile(path) as members:
            if missing := set(PARTS) - set(file.files):
                raise InputError(
                    f"dataset.path={path}: must hold {', '.join(PARTS[:3])} and {PARTS[3]}; "
                    f"lacks {', '.join(sorted(missing))}"
                )
            memory.check(config, f"dataset.path={path}", {part: _npy_header(members, part) for part in PARTS})
            return {part: file[part] for part in PARTS}
    except DAMAGED as error:
        raise InputError(f"dataset.path={path}: is not a valid npz file ({error}); np.savez writes one") from error
    except InputError:
        raise
    except ValueError as error:  # an array of Python objects; NumPy's message advises to load a pickle
        raise InputError(
            f"dataset.path={path}: must hold plain arrays of numbers, or labels of text, not objects; "
            "astype(str) makes text of them"
        ) from error


def _npy_header(members: zipfile.ZipFile, part: str) -> memory.Header:
    """Read the shape and type of an array in a zip file."""
    if [name for name in members.namelist() if name.removesuffix(".npy") == part] != [f"{part}.npy"]:
        raise zipfile.BadZipFile(f"it has {part} twice, or not as {part}.npy")
    with members.open(f"{part}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if any(length < 0 for length in shape):
            raise zipfile.BadZipFile(f"{part} has shape {shape}")
        return memory.Header(shape, dtype)


def idx_files(folder: Path) -> list[Path]:
    """Return which of MNIST's four files, plain or .gz, a folder has."""
    return [path for name in _IDX for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def read_idx(folder: Path) -> dict[str, Any]:
    """Return the arrays of MNIST's four files, plain or .gz.

    Raises:
        InputError: if one is missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(f"dataset.path={folder}: must be a folder with the four IDX files")
    return {part: _read_idx_file(folder, name) for part, name in zip(PARTS, _IDX, strict=True)}


def _read_idx_file(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """Read an IDX file: 0x0800 plus the number of axes, their lengths, all big-endian in 4 bytes, then the values."""
    path = next((path for path in idx_files(folder) if path.name.removesuffix(".gz") == name), None)
    if path is None:
        raise InputError(f"dataset.path={folder}: has no file {name} or {name}.gz")
    what, axes = ("images", 3) if "images" in name else ("labels", 1)
    magic = 0x0800 + axes
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 * (1 + axes))
            shape = struct.unpack_from(f">{axes}I", header.ljust(4 * (1 + axes), b"\0"), offset=4)
            # A small file may unpack to any length, so read one byte more than the header promises and no further.
            content = file.read(min(math.prod(shape), memory.memory() // 2) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is not a valid gzip file ({error})") from error
    starts = int.from_bytes(header[:4], "big")
    if len(header) < 4 * (1 + axes) or starts != magic:
        raise InputError(f"{path}: must be an IDX file of {what}, which starts with {magic}; starts with {starts}")
    if len(content) != math.prod(shape):
        more = "more" if len(content) > math.prod(shape) else len(content)
        raise InputError(f"{path}: its header promises {math.prod(shape)} bytes of shape {shape}; it has {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
