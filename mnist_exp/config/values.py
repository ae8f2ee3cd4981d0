"""Types of values in the configuration, and the keys of `prune`."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mnist_exp.config.conversion import KerasName, OneOf, Rule
from mnist_exp.errors import InputError


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # a name too long, a closed folder, an unknown home
        return False


Count = Annotated[int, Rule(lambda n: 1 <= n < 2**31, "a whole number, at least 1")]
WholeNumber = Annotated[int, Rule(lambda n: 0 <= n < 2**31, "a whole number, at least 0")]
NotNegative = Annotated[float, Rule(lambda x: 0 <= x < math.inf, "a number, at least 0")]
Seed = Annotated[int, Rule(lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")]
Seconds = Annotated[float, Rule(lambda x: 0 < x < math.inf, "a number greater than 0, such as 30")]
Share = Annotated[float, Rule(lambda x: 0 < x < 1, "a fraction between 0 and 1")]
DropoutRate = Annotated[float, Rule(lambda x: 0 <= x < 1, "a number from 0 up to, not including, 1")]
Counts = Annotated[list[Count], Rule(lambda ns: len(ns) > 0, "a list of at least one such number")]
Activation = Annotated[str, KerasName("activations")]
ExistingPath = Annotated[str, Rule(_exists, "an existing file or folder")]
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

_Limit = Annotated[float, Rule(math.isfinite, "a number")]


@dataclass(frozen=True, kw_only=True)
class _Steps:
    n_warmup_steps: WholeNumber
    interval_steps: Count


@dataclass(frozen=True, kw_only=True)
class _Shares(_Steps):
    n_startup_trials: WholeNumber
    n_min_trials: Count


@dataclass(frozen=True, kw_only=True)
class MedianPruning(_Shares):
    """The arguments of Optuna's `MedianPruner`, which conf/prune/ explains."""

    kind: Literal["median"]


@dataclass(frozen=True, kw_only=True)
class PercentilePruning(_Shares):
    """Optuna's `PercentilePruner`."""

    kind: Literal["percentile"]
    percentile: Annotated[float, Rule(lambda x: 0 <= x <= 100, "a number from 0 to 100")]


@dataclass(frozen=True, kw_only=True)
class ThresholdPruning(_Steps):
    """Optuna's `ThresholdPruner`."""

    kind: Literal["threshold"]
    lower: _Limit | None
    upper: _Limit | None

    def __post_init__(self) -> None:
        if self.lower is None and self.upper is None:
            raise InputError("prune.lower: must be set, or prune.upper, such as prune.lower=0.5")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise InputError(f"prune.lower={self.lower:g}: must be at most prune.upper={self.upper:g}")


@dataclass(frozen=True, kw_only=True)
class PatientPruning:
    """Optuna's `PatientPruner`."""

    kind: Literal["patient"]
    patience: WholeNumber
    min_delta: NotNegative
    wrapped_pruner: Annotated[PercentilePruning | None, OneOf(lambda: (None, PercentilePruning))]


PruneSettings = MedianPruning | PercentilePruning | ThresholdPruning | PatientPruning
