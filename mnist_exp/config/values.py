"""The values that keys of the configuration take: their types, and what is true of them. Imports nothing heavy."""

import re
from pathlib import Path
from typing import Annotated

from mnist_exp.config.conversion import KerasName, Rule

Count = Annotated[int, Rule(lambda n: 1 <= n < 2**31, "a whole number, at least 1")]
WholeNumber = Annotated[int, Rule(lambda n: 0 <= n < 2**31, "a whole number, at least 0")]
Seed = Annotated[int, Rule(lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")]
Share = Annotated[float, Rule(lambda x: 0 < x < 1, "a fraction between 0 and 1")]
DropoutRate = Annotated[float, Rule(lambda x: 0 <= x < 1, "a number from 0 up to, not including, 1")]
Counts = Annotated[list[Count], Rule(lambda ns: len(ns) > 0, "a list of at least one such number")]
Activation = Annotated[str, KerasName("activations")]
ExistingPath = Annotated[str, Rule(lambda path: _exists(path), "an existing file or folder")]
Maximum = Annotated[float, Rule(lambda x: 0 < x <= 65535, "a number above 0, at most 65535, such as 1, 255 or 65535")]
Side = Annotated[int, Rule(lambda n: 10 <= n <= 500, "a whole number from 10 to 500")]
ModelName = Annotated[
    str,
    Rule(
        lambda name: re.fullmatch(r"(?!\.\.|\.$)[\w.-]{1,100}", name) is not None,
        "a name of letters, digits, _ - and ., and no folder such as ..",
    ),
]
Text = Annotated[str, Rule(lambda text: bool(text.strip()) and text.isprintable(), "some text, on one line")]


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # a name too long, a folder that is closed, a home that nobody has
        return False
