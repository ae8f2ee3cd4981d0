"""Measure how much each key of a sweep matters for its objective."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_exp.text import printable
from mnist_exp.tracking.names import short_names
from mnist_exp.tracking.records import Record, usable

_LEVEL = 0.05  # the F test that tells the keys of a grid from chance
_BEST = 0.25  # the share of jobs whose values Optuna compares with those of all
_MIN_JOBS = 20  # for Optuna, which advises at least 5 best ones


@dataclass(frozen=True)
class Importance:
    """How much each key matters.

    Attributes:
        shares: 0 to 1, by key, largest first.
        whole: the whole that is shared out, in words.
        rest: the rest beside the keys, in words; "" if they share all.
    """

    shares: Mapping[str, float]
    whole: str
    rest: str = ""

    @property
    def percents(self) -> list[int]:
        """The shares and the remainder in whole percent, 100 in all.

        The largest fractions are rounded up.
        """
        exact = [100 * share for share in (*self.shares.values(), max(1 - sum(self.shares.values()), 0.0))]
        whole = [math.floor(percent) for percent in exact]
        left = sorted(range(len(exact)), key=lambda place: whole[place] - exact[place])[: max(100 - sum(whole), 0)]
        return [percent + (place in left) for place, percent in enumerate(whole)]


def importance(jobs: Sequence[Record], objective: str, direction: str) -> Importance | None:
    """Return how much each key but `seed` matters for the finished jobs' objective.

    In a full grid, with as many jobs for each combination, a share is the main effect in an analysis of variance,
    without the part of chance (T. L. Kelley's epsilon squared, 1935). Other sweeps are left to Optuna.

    Args:
        jobs: of a sweep.
        objective: the metric.
        direction: "maximize" or "minimize".

    Returns:
        None if fewer than two keys vary, if all objectives are the same, if an F test cannot tell the keys of a grid
        from chance, or if another sweep has fewer than 20 jobs or Optuna is not installed.
    """
    import pandas as pd

    measured = sorted((sorted(job.values.items()), job.objective) for job in jobs if job.objective is not None)
    frame = pd.DataFrame([dict(values) for values, _ in measured], dtype=object).fillna("")
    y = pd.Series([value for _, value in measured], dtype=float)
    keys = [key for key in sorted(frame) if key != "seed" and frame[key].nunique() > 1]
    if len(keys) < 2 or math.isclose(y.min(), y.max(), rel_tol=1e-12):
        return None
    if _is_full_grid(frame[keys]):
        found = Importance(_main_effects(frame, keys, y), f"the variance of {objective}", "interactions and chance")
    elif len(y) >= _MIN_JOBS and importlib.util.find_spec("optuna"):
        found = Importance(_ask_optuna(frame[keys], y, direction), "what sets the best quarter of the jobs apart")
    else:
        return None
    return found if any(found.shares.values()) else None


def as_sentence(found: Importance) -> str:
    """Say in a sentence which keys matter most.

    >>> as_sentence(Importance({"model.hidden": 0.81, "optimizer.learning_rate": 0.121}, "the variance", "chance"))
    'Of the variance, hidden explains 81 %, learning_rate 12 %; the rest is chance.'
    """
    (first, largest), *others = zip(short_names(found.shares).values(), found.percents, strict=False)
    parts = [f"{first} explains {largest} %", *(f"{name} {percent} %" for name, percent in others)]
    rest = f"; the rest is {found.rest}" if found.rest else ""
    return printable(f"Of {found.whole}, {', '.join(parts)}{rest}.")


def as_numbers(texts: Sequence[str]) -> list[float] | None:
    """Return texts as numbers, or None unless all are finite."""
    try:
        numbers = [usable(float(text)) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def spans_decades(numbers: Sequence[float]) -> bool:
    """Return whether numbers are so far apart that logarithms suit them better."""
    return min(numbers) > 0 and max(numbers) / min(numbers) >= 20


def _is_full_grid(values: Any) -> bool:
    """Return whether a DataFrame has all combinations of the values, equally often."""
    counts = values.value_counts()
    return bool(counts.nunique() == 1 and len(counts) == values.nunique().prod())


def _main_effects(frame: Any, keys: Sequence[str], y: Any) -> dict[str, float]:
    """Return each key's share, or None if an F test finds only chance."""
    from scipy.special import betainc

    seeds = frame["seed"] if "seed" in frame and _is_full_grid(frame[[*keys, "seed"]]) else y * 0
    within = y - y.groupby(seeds).transform("mean")
    left, free = (within**2).sum(), len(y) - seeds.nunique()
    squares = {key: (within.groupby(frame[key]).transform("mean") ** 2).sum() for key in keys}
    degrees = {key: frame[key].nunique() - 1 for key in keys}
    cells = within.groupby([frame[key] for key in keys])
    if cells.ngroups < len(y):
        explained, used = (cells.transform("mean") ** 2).sum(), cells.ngroups - 1
    else:  # each combination ran once, and chance is in the interactions
        explained, used = sum(squares.values()), sum(degrees.values())
    free, error, total = free - used, max(left - explained, 0.0), ((y - y.mean()) ** 2).sum()
    if free < 2 or left < 1e-12 * total or betainc(free / 2, used / 2, error / (error + explained)) > _LEVEL:
        return {}
    shares = {key: max(float(squares[key] - degrees[key] * error / free), 0.0) / total for key in keys}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _ask_optuna(values: Any, y: Any, direction: str) -> dict[str, float]:
    """Return how much the best quarter's values differ from all (PED-ANOVA)."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    columns: dict[str, Sequence[Any]] = {}
    known: dict[str, BaseDistribution] = {}
    for key, texts in values.items():
        if (numbers := as_numbers(texts)) is None:
            columns[key], known[key] = texts, CategoricalDistribution(sorted(set(texts)))
        else:
            columns[key], known[key] = (
                numbers,
                FloatDistribution(min(numbers), max(numbers), log=spans_decades(numbers)),
            )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=optuna.study.StudyDirection[direction.upper()])
    for *row, objective in zip(*columns.values(), y, strict=True):
        job = optuna.trial.create_trial(params=dict(zip(known, row, strict=True)), distributions=known, value=objective)
        study.add_trial(job)
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BEST))
