"""The one exception that stands for bad input, and the words that its messages are made of."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mnist_exp.config.redaction import without_secrets


class InputError(ValueError):
    """Bad input, in words for the person who typed it: the key, the value, and what would be right.

    The command line prints the message alone; any other exception is a bug and shows its traceback. The message holds
    no password, also where the value or another library's error has one.
    """

    def __init__(self, message: str) -> None:
        # A file's name may hold bytes that are no text, which could not be written down.
        super().__init__(without_secrets(message.encode("utf-8", "backslashreplace").decode()))


def printable(text: str) -> str:
    r"""Return a text on one line, without what would steer a terminal: others may have written a store or file.

    >>> printable("wrong\x1b[2J")
    'wrong?[2J'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Name the nearest of `choices`, as the end of a sentence; empty where none is near.

    Case, underscores and hyphens do not count.

    >>> did_you_mean("early_stoping", ["EarlyStopping", "ReduceLROnPlateau"])
    '; did you mean EarlyStopping?'
    >>> did_you_mean("zebra", ["EarlyStopping"])
    ''
    """
    plain = {choice.lower().replace("_", "").replace("-", ""): choice for choice in choices}
    near = get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=1)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def show(value: Any) -> str:
    """Return a value as it would be typed.

    >>> show({"Dense": {"units": 4}}), show(None), show(True)
    ('{Dense: {units: 4}}', 'null', 'true')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(map(show, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    return str(value)
