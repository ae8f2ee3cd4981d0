"""The one exception for bad input, and how its messages are worded."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mnist_exp.config.redaction import without_secrets


class InputError(ValueError):
    """Bad input: the message names the key, the value, and what would be right.

    The command line prints only the message; any other exception is a bug and shows its traceback. Passwords in a value
    or in another library's error are removed from the message.
    """

    def __init__(self, message: str) -> None:
        # The name of a file may hold bytes that cannot be encoded.
        super().__init__(without_secrets(message.encode("utf-8", "backslashreplace").decode()))


def printable(text: str) -> str:
    r"""Return text from elsewhere on one line, without the characters that control a terminal.

    >>> printable("wrong\x1b[2J")
    'wrong?[2J'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of `choices`, or "" if none is near.

    Case, underscores and hyphens are ignored.

    >>> did_you_mean("early_stoping", ["EarlyStopping", "ReduceLROnPlateau"])
    '; did you mean EarlyStopping?'
    >>> did_you_mean("zebra", ["EarlyStopping"])
    ''
    """
    plain = {choice.lower().replace("_", "").replace("-", ""): choice for choice in choices}
    near = get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=1)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def show(value: Any) -> str:
    """Return a value as a user would type it.

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
