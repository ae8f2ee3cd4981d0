"""The keys of `prune`, which are the arguments of Optuna's pruners. Imports nothing heavy."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mnist_exp.config.conversion import OneOf, Rule
from mnist_exp.config.values import Count, WholeNumber
from mnist_exp.errors import InputError

# Each key is explained in conf/prune/.

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
    """Stops a job whose best epoch so far is worse than the median of the others."""

    kind: Literal["median"]


@dataclass(frozen=True, kw_only=True)
class PercentilePruning(_Shares):
    """Stops a job whose best epoch so far is not among the best `percentile` in 100 of the others."""

    kind: Literal["percentile"]
    percentile: Annotated[float, Rule(lambda x: 0 <= x <= 100, "a number from 0 to 100")]


@dataclass(frozen=True, kw_only=True)
class ThresholdPruning(_Steps):
    """Stops a job whose objective leaves a range."""

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
    """Stops a job that is worse than its own best for more than `patience` epochs, if the wrapped rule does too."""

    kind: Literal["patient"]
    patience: WholeNumber
    min_delta: Annotated[float, Rule(lambda x: 0 <= x < math.inf, "a number, at least 0")]
    wrapped_pruner: Annotated[PercentilePruning | None, OneOf(lambda: (None, PercentilePruning))]


Pruning = MedianPruning | PercentilePruning | ThresholdPruning | PatientPruning
