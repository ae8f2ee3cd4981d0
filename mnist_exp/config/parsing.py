"""Parse overrides in Hydra's grammar, and count their values."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from mnist_exp.config import CONF
from mnist_exp.config.guesses import respell
from mnist_exp.errors import InputError

_MAX_CHARS = 30_000  # all overrides together: Hydra reads them several times, at up to a second each
_MAX_NAME_CHARS = 250  # a key or choice: Hydra looks for a file of that name
_OPTIONAL = ("experiment", "sweep", "prune")  # groups of which ~GROUP leaves the choice out


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides, in which `glob(*)` stands for the choices that `loader` finds.

    Raises:
        InputError: for one that cannot be read, is too long, or chooses from a group without a name.
    """
    if sum(map(len, overrides)) > _MAX_CHARS:
        key = max(overrides, key=len).partition("=")[0]
        raise InputError(f"{key}: is too long; all overrides together may have {_MAX_CHARS:,} characters")
    return [
        replace(_parse(text, () if "=" in text else tuple(overrides[place : place + 2])), config_loader=loader)
        for place, text in enumerate(overrides, start=1)
    ]


@lru_cache(maxsize=1024)
def _parse(text: str, following: tuple[str, ...] = ()) -> Override:
    if len(text.partition("=")[0]) > _MAX_NAME_CHARS:
        raise InputError(f"{text}: no key has more than {_MAX_NAME_CHARS} characters; write KEY=VALUE")
    try:
        with warnings.catch_warnings(action="ignore"):  # Hydra 1.4's about extend_list(), which 1.3 has not
            [parsed] = OverridesParser.create().parse_overrides([text])
        if not parsed.key_or_group or parsed.type.name == "EXTEND_LIST":
            raise ValueError("no key, or a function that 1.3 has not")
    # ValueError: Python reads no number of more than 4,300 digits.
    except (HydraException, RecursionError, ValueError) as error:
        parts = text.split(" ")
        if len(parts) > 1 and all(re.match(r"[\w./]+=.", part) for part in parts):
            raise InputError(f"{text}: has {len(parts)} overrides in one text; give each a text of its own") from error
        if meant := respell(text, following):
            raise InputError(f"{text}: cannot be read; did you mean {meant}?") from error
        if "=" not in text:
            how = "without spaces, such as training.epochs=3; a text with spaces needs quotes: tracking.note='my run'"
        elif text.endswith(","):  # a shell split it at a space
            how = "with no space after a comma: -m model.hidden=16,32 or 'model.hidden=[128,64]'"
        else:
            how = """such as 'model.hidden=[128,64]'; other texts need two quotes: 'tracking.note="1st (of 3)"'"""
        raise InputError(f"{text or repr(text)}: cannot be read; write KEY=VALUE, {how}") from error
    _check_choice(parsed)
    return parsed


def to_hydra(overrides: Sequence[Override]) -> list[str]:
    """Return overrides for Hydra, with ++ if `checks.check` judges key and value.

    Hydra itself judges groups, its own settings, and removed keys.
    """
    return [
        f"++{text.lstrip('+')}" if _is_value(override) else text
        for override in overrides
        if (text := override.input_line or "")
    ]


def _is_value(override: Override) -> bool:
    key = override.key_or_group
    if override.is_delete() or override.package is not None or re.match(r"hydra\b", key) or "/" in key:
        return False
    return isinstance(override.value(), dict) or not (CONF / key).is_dir()


def _check_choice(override: Override) -> None:
    """Raise InputError for a group's override without a name, such as model=5.

    A map sets keys of the group.
    """
    group, value = override.key_or_group, override.value()
    of_hydra = group.startswith("hydra/")
    if not (of_hydra or (CONF / group).is_dir()):
        return

    def is_choice(given: Any) -> bool:
        if isinstance(given, QuotedString):
            given = given.text
        return len(given) <= _MAX_NAME_CHARS if isinstance(given, str) else bool(given) and isinstance(given, dict)

    several = value.list if isinstance(value, ChoiceSweep) else value if of_hydra or group == "experiment" else None
    named = all(map(is_choice, several)) if isinstance(several, list) else is_choice(value)
    if override.is_delete():
        named = group in _OPTIONAL
    if not named and not isinstance(value, Glob):
        example = "hydra/launcher=joblib" if of_hydra else "model=cnn"
        raise InputError(f"{override.input_line}: must be GROUP=CHOICE, such as {example}; --help lists all")


def count(override: Override) -> float:
    """Return how many values a choice or a range has, which for a range is computed.

    Raises:
        InputError: for a range without an end, or with a step of 0.
    """
    value = override.value()
    if not isinstance(value, RangeSweep):
        return len(list(override.sweep_iterator()))
    with localcontext(Context(traps=[])):  # inf, nan and a division by 0 raise nothing
        start, stop, step = (Decimal(end or 0) for end in (value.start, value.stop, value.step))
        steps = ((stop - start) / step).to_integral_value(ROUND_CEILING)
    if not steps.is_finite():
        raise InputError(
            f"{override.input_line}: must be range(FROM, TO, STEP), finite numbers, with a step that is not 0"
        )
    return max(0.0, float(steps))
