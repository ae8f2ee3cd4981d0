"""What a kept model knows of its data, beside its layers: the classes' names, and how pictures become its images.

A file model.keras is a zip file; this is a member of it that Keras does not look at.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_exp.errors import InputError
from mnist_exp.learning.datasets import Data, numbers
from mnist_exp.learning.sources import DAMAGED, is_class_name

_MEMBER = "mnist_exp.json"
_LONGEST = 10_000_000  # bytes, more than the names of the most classes have


@dataclass(frozen=True)
class Metadata:
    """`names`, `maximum` and `resized` are as in `learning.datasets.Source`."""

    names: tuple[str, ...]
    maximum: float
    resized: bool


def metadata(data: Data) -> dict[str, Any]:
    """Return what is not as MNIST has it; of MNIST nothing."""
    told: dict[str, Any] = {}
    if data.names != numbers(data.classes):
        told["classes"] = list(data.names)
    if data.maximum != 255:
        told["maximum"] = data.maximum
    if data.resized:
        told["resized"] = True
    return told


def write_metadata(path: Path, data: Data) -> None:
    """Let a file model.keras know of its data."""
    if told := metadata(data):
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(_MEMBER, json.dumps(told))


def read_metadata(path: Path, classes: int) -> Metadata:
    """Return what a file model.keras, which may come from others, knows of its data.

    Args:
        path: of the file.
        classes: how many outputs its model has.

    Raises:
        InputError: if it is damaged, or is not what `write_metadata` writes.
    """
    try:
        told = _read(path)
    except (ValueError, *DAMAGED) as error:
        raise InputError(f"{path}: its member {_MEMBER} cannot be read ({error})") from error
    names = told.get("classes", list(numbers(classes)))
    if not isinstance(names, list) or len(names) != classes or not all(map(_is_name, names)):
        raise InputError(f"{path}: its member {_MEMBER} must have {classes} names of classes, each some printable text")
    maximum = told.get("maximum", 255)
    if not isinstance(maximum, int | float) or isinstance(maximum, bool) or not 0 < maximum <= 65535:
        raise InputError(f"{path}: its member {_MEMBER} must have a maximum above 0, at most 65535")
    return Metadata(tuple(names), float(maximum), told.get("resized") is True)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        if _MEMBER not in file.namelist():
            return {}
        with file.open(_MEMBER) as member:  # a small one may unpack to any length
            content = member.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"has more than {_LONGEST} bytes")
    told = json.loads(content)
    if not isinstance(told, dict):
        raise ValueError("is no map")
    return told


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and is_class_name(name)
