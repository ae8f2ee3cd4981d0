"""The user's own file that `code=` names: its text, and the names that configuration may use. Imports nothing heavy.

Only a file that was typed gets here (`composition.user_choices`); `training/own_code.py` imports it.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mnist_exp.config.files import read_text
from mnist_exp.errors import InputError

PACKAGE = "mnist_exp_code"  # the package of the modules that such files become
# The functions that `@mnist_exp.model` and `@mnist_exp.dataset` registered, by group and name.
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {"model": {}, "dataset": {}}


class Key(NamedTuple):
    """The argument of a function, as a key in YAML; `default` may be `REQUIRED`."""

    type: Any
    default: Any


class OwnClass(NamedTuple):
    """A class: its arguments with their defaults, and whether it is a callback that acts on batches."""

    signature: Mapping[str, Any]
    on_batches: bool


@dataclass(frozen=True)
class Names:
    """The names that a file registers, as plain values.

    `classes`: by kind, as in `keras_names.ALLOWED`, and name. `functions`: by group, `model` or `dataset`, and name,
    with their keys. `unregistered`: the other names that it defines. `backend`: of Keras, when the file was imported.
    """

    classes: Mapping[str, Mapping[str, OwnClass]]
    functions: Mapping[str, Mapping[str, Mapping[str, Key]]]
    unregistered: frozenset[str]
    backend: str


@dataclass(frozen=True)
class CodeFile:
    """The user's own file: its path as typed, and its text, which goes to the processes of a sweep's jobs.

    `names` are known once it is imported.
    """

    path: str
    text: str
    names: Names = field(default=Names({}, {}, frozenset(), ""), compare=False, repr=False)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The file's name and digest."""
        return f"{Path(self.path).name} {self.digest}"

    @property
    def module(self) -> str:
        """The module that the file becomes, by which a saved model names its classes."""
        stem = re.sub(r"\W", "_", Path(self.path).stem)
        return f"{PACKAGE}.{stem}_{self.digest}"


# Returns a file with its names, imported with a backend, and for a sweep with one thread.
ImportCode = Callable[[CodeFile, str, bool], CodeFile]


def read_code(path: str) -> CodeFile:
    """Read a file; raise InputError if it is no Python file, or cannot be read."""
    if Path(path).suffix != ".py":
        raise InputError(f"code={path}: must be a Python file, such as code=mine.py")
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # an unknown home
        raise InputError(f"code={path}: cannot be read ({error})") from error
    return CodeFile(path, read_text(file, f"code={path}", encoding="utf-8-sig", may_be_empty=False))


# One at a time, as Keras has one registry in a process.
_in_use: CodeFile | None = None


def use(code: CodeFile | None) -> None:
    """Let configuration use the names of this file from now on."""
    global _in_use
    _in_use = code


def in_use() -> CodeFile | None:
    """Return the file whose names configuration may use."""
    return _in_use


def own_classes(kind: str) -> Mapping[str, OwnClass]:
    """Return the classes of a kind in the file in use."""
    if _in_use is None:
        return {}
    return _in_use.names.classes.get("layers" if kind == "augmentations" else kind, {})


def own_choices(group: Literal["model", "dataset"], base: type) -> list[Any]:
    """Return a subclass of the dataclass `base` for each function of a group, to check its keys."""
    functions = _in_use.names.functions.get(group, {}) if _in_use is not None else {}
    return [
        _dataclass_of(name, base, tuple((key, one.type) for key, one in keys.items()))
        for name, keys in functions.items()
    ]


@cache  # so that configurations can be equal
def _dataclass_of(name: str, base: type, keys: tuple[tuple[str, Any], ...]) -> Any:
    return make_dataclass(name, [("kind", Literal[name]), *keys], bases=(base,), frozen=True, kw_only=True)


def unregistered(name: object) -> str:
    """Return the end of a message if the file in use defines this name without registering it, else ""."""
    if _in_use is None or name not in _in_use.names.unregistered:
        return ""
    return f"; {_in_use.path} defines it, but without @keras.saving.register_keras_serializable() above it"
