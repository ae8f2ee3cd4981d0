"""Parse, write and flatten overrides, such as `model.hidden=16`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from os import PathLike
from typing import Any

from mnist_exp.errors import InputError, format_value
from mnist_exp.text import has_password


@dataclass(frozen=True)
class Override:
    """A typed override: `key` without + or ~, and `value`, the text after `=`."""

    text: str
    key: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Override":
        """Split a text that Hydra has parsed.

        >>> Override.parse("+training.callbacks={}").key, Override.parse("model.hidden=16,32").value
        ('training.callbacks', '16,32')
        """
        key, _, value = text.lstrip("+~").partition("=")
        return cls(text, key, value)

    def set_to(self, value: str) -> str:
        """Return the override with another value.

        >>> Override.parse("+model.hidden=16,32").set_to("16")
        '+model.hidden=16'
        """
        return f"{self.text.partition('=')[0]}={value}"

    def is_below(self, *parts: str) -> bool:
        """Whether the override sets one of these keys, or a key below it."""
        return self.key in parts or re.split(r"[./@]", self.key)[0] in parts


def to_overrides(given: object) -> list[str]:
    """Return an argument of `run` or `sweep` as overrides.

    >>> to_overrides("seed=1"), to_overrides({"model": "cnn", "model.filters": [8, 16], "model.dropout": 0.5})
    (['seed=1'], ["model='cnn'", 'model.filters=[8,16]', 'model.dropout=0.5'])

    Raises:
        InputError: unless it is a text, or a map of keys to plain values.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        return [f"{key}={_literal(value, str(key))}" for key, value in given.items()]
    raise InputError(f"{given!r}: must be a text such as 'model.hidden=64', or a map such as {{'model.hidden': 64}}")


def _literal(value: object, key: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Integral() if abs(int(value)) >= 10**300:
            raise InputError(f"{key}={format_value(value)}: must be a number of at most 300 digits")
        case Integral():
            return str(int(value))
        case Real():
            return str(float(value))
        case str() | PathLike():
            return quote(str(value))
        case list() | tuple():
            return f"[{','.join(_literal(item, key) for item in value)}]"
        case Mapping():
            return "{" + ",".join(f"{name}:{_literal(item, key)}" for name, item in value.items()) + "}"
    raise InputError(f"{key}={value!r}: must be a number, a text, true, false, None, or lists and maps of them")


def select_experiment(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides without those of `hydra`, `resume` and `tracking`."""
    return tuple(text for text in overrides if not Override.parse(text).is_below("tracking", "hydra", "resume"))


def is_tracking_override(argument: str) -> bool:
    """Whether an argument of a command is an override of `tracking`.

    >>> is_tracking_override("tracking.uri=sqlite:///mlflow.db"), is_tracking_override("tracking.png")
    (True, False)
    """
    return "=" in argument and Override.parse(argument).is_below("tracking")


def refuse_passwords(texts: Iterable[str]) -> None:
    """Raise InputError for an address with a password, and do not repeat it.

    A shell's history would keep it.
    """
    if any(map(has_password, texts)):
        raise InputError(
            "an address with a password is not typed; for a server, set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; for a database, set its own variable, such as "
            "PGPASSWORD; or set MLFLOW_TRACKING_URI to the whole address"
        )


def check_brace_expansion(arguments: Sequence[str]) -> None:
    """Raise InputError for a key twice in a row, as a shell makes of `hidden={16,32}`."""
    for argument, other in pairwise(arguments):
        key, _, value = argument.partition("=")
        is_replaced = value == "null" and other.startswith(f"{key}={{")  # Hydra would merge the two maps
        if value and other.startswith(f"{key}=") and argument != other and not is_replaced:
            raise InputError(
                f"{key}: is given twice in a row; keep one. If a shell made two of braces, type '{key}={{...}}' in "
                f"single quotes, or for a sweep -m {key}=A,B"
            )


def pick_values(keys: Sequence[str], overrides: Sequence[str]) -> dict[str, str]:
    """Return the values that overrides give to `keys`, in the order of `keys`."""
    values = {override.key: override.value for override in map(Override.parse, overrides)}
    return {key: values[key] for key in keys if key in values}


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of each leaf of nested maps, empty maps included."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif path:
        yield path, node


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested maps as one map from dotted keys to values as typed.

    >>> flatten({"model": {"hidden": [128, 64], "dropout": None}})
    {'model.hidden': '[128, 64]', 'model.dropout': 'null'}
    """
    return {".".join(path): format_value(value) for path, value in leaves(values)}


def quote(text: str) -> str:
    r"""Quote a text for Hydra.

    >>> print(quote("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
