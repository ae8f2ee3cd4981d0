"""Names of runs, and of the keys and values that vary."""

import json
import math
import re
from collections.abc import Iterable, Mapping

from mnist_exp.text import printable


def no_formula(text: str) -> str:
    """Return a text on one line that no spreadsheet takes for a formula.

    >>> no_formula("=1+1"), no_formula("-1.5e-3")
    ("'=1+1", '-1.5e-3')
    """
    text = printable(text)
    is_number = re.fullmatch(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", text)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} and not is_number else text


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Map each key to its last part, or to all of it where that is ambiguous.

    >>> short_names(["model.hidden", "seed", "dataset.seed"])
    {'model.hidden': 'hidden', 'seed': 'seed', 'dataset.seed': 'dataset.seed'}
    """
    keys = list(keys)
    lasts = [key.replace("/", ".").rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Map each id to its first eight characters, or more to distinguish all.

    >>> short_ids(["3f2a1c22d5e64f7f", "a7c5b2a13f2a1c22"])
    {'3f2a1c22d5e64f7f': '3f2a1c22', 'a7c5b2a13f2a1c22': 'a7c5b2a1'}
    """
    whole, length = dict.fromkeys(ids), 8
    while len({name[:length] for name in whole}) < len(whole):
        length += 1
    return {name: name[:length] for name in whole}


def job_name(values: Mapping[str, str], keys: Iterable[str]) -> str:
    """Return a job's name, made of the values that vary in its sweep.

    >>> job_name({"model.hidden": "32", "model.activation": "relu"}, ["model.hidden", "model.activation"])
    'hidden=32 activation=relu'
    """
    names = short_names(keys)
    return printable(" ".join(f"{names.get(key, key)}={show_value(value)}" for key, value in values.items()))


def parse_value(text: str) -> str | float | bool | None:
    """Return a recorded value as a number, boolean or None, or else its text.

    Infinity and NaN stay texts.

    >>> [parse_value(text) for text in ("16", "1e-5", "True", "null", "[16, 32]", "016", "1e999")]
    [16, 1e-05, True, None, '[16, 32]', '016', '1e999']
    """
    try:
        value = json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
    is_plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else text


def show_value(value: str) -> str:
    """Return a value as it is typed, and a long number with four digits."""
    if value in {"True", "False"}:
        return value.lower()
    try:
        return f"{float(value):.4g}" if len(value) > 10 else value
    except ValueError:
        return value
