"""Write and read the meaning of labels and pixels, in model.keras and npz files.

Keras and NumPy ignore this member.
"""

import json
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_exp.errors import InputError
from mnist_exp.text import truncate

# A damaged zip file makes zipfile, NumPy and Keras raise these.
DAMAGED = (
    *(OSError, EOFError, KeyError, RuntimeError, TypeError, MemoryError, SystemError),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)
_MEMBER = "mnist_exp.json"
_MAX_BYTES = 10_000_000  # the names of all classes that there may be have fewer


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The meaning of labels and pixels.

    Attributes:
        names: the classes' names, in the order of their labels; empty if they are numbers.
        maximum: the value of a white pixel; None for integers from 0 to 255.
        resized: whether the images are pictures that were only resized, as a model's input must then be.
    """

    names: tuple[str, ...] = ()
    maximum: float | None = None
    resized: bool = False

    def class_names(self, classes: int, where: str | Path) -> tuple[str, ...]:
        """Return the classes' names, or their numbers.

        Raises:
            InputError: if there are more or fewer names than classes; `where` begins the message.
        """
        names = self.names or numbers(classes)
        if len(names) != classes:
            raise InputError(f"{where}: names {len(names)} classes; must name {classes}, as many as it has")
        return names


def numbers(classes: int) -> tuple[str, ...]:
    """Return the numbers of classes, from 0, as names."""
    return tuple(map(str, range(classes)))


def is_class_name(name: object) -> bool:
    """Return whether a class may have this name, which must be text on one line."""
    return isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name) <= 255


def check_class_name(name: str, where: str) -> None:
    """Raise InputError, which begins with `where`, unless a class may have this name."""
    if not is_class_name(name):
        raise InputError(
            f"{where}: a class is named {truncate(name, 40)!r}; must be some printable text of at most 255 characters"
        )


def write_metadata(path: Path, values: dict[str, Any]) -> None:
    """Add the result of `Data.metadata`, unless empty, to a model.keras or npz file."""
    if values:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(_MEMBER, json.dumps(values))


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of a file that may come from others.

    Raises:
        InputError: if the file is damaged, or a value is of a wrong type.
    """
    where = f"{path}: its member {_MEMBER}"
    try:
        values = _read(path)
    except (ValueError, *DAMAGED) as error:
        raise InputError(f"{where} cannot be read ({error})") from error
    names, maximum = values.get("classes", []), values.get("maximum")
    if not isinstance(names, list) or not all(map(is_class_name, names)):
        raise InputError(f"{where} must have a list of the classes' names, each some printable text")
    if maximum is not None and (type(maximum) not in (int, float) or not 0 < maximum <= 65535):
        raise InputError(f"{where} must have a maximum above 0, at most 65535")
    return Metadata(names=tuple(names), maximum=maximum and float(maximum), resized=values.get("resized") is True)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        if _MEMBER not in file.namelist():
            return {}
        with file.open(_MEMBER) as member:  # a small member may unpack to any length
            content = member.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"has more than {_MAX_BYTES} bytes")
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("is no map")
    return values
