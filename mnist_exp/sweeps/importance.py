"""How much of the objective's variance each key explains."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnist_exp.errors import printable
from mnist_exp.sweeps.formats import counted
from mnist_exp.tracking.job import Job, short_names, usable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FEWEST = 8  # jobs that a forest needs
_FOLDS, _TREES = 4, 50
_NAMED = 3  # keys in the sentence


@dataclass(frozen=True)
class Importance:
    """The share of the variance, from 0 to 1, by key, largest first, and what the remainder (`rest`) is, in words."""

    shares: Mapping[str, float]
    rest: str


def importance(jobs: Sequence[Job]) -> Importance | None:
    """Return the share of the finished jobs' variance that each key explains; `seed` is chance, and no key.

    In a full grid, with as many jobs for each combination, it is the main effect of an analysis of variance: the sum
    over the jobs of (mean of the jobs with the same value - mean of all)^2, divided by the sum of (objective - mean of
    all)^2. It describes these jobs alone: in n jobs that differ by chance, a key of k values explains (k - 1) / (n - 1)
    on average. Interactions are in the remainder.

    In a search or a grid with gaps, a random forest learns the objective from three quarters of the jobs and predicts
    the last quarter, in turn (L. Breiman, Random Forests, 2001). All keys explain 1 - squared errors / sum of squares,
    divided among them by how much the errors grow once a key's values are shuffled. An interaction counts for each of
    its keys; keys that vary together may get each other's credit. From few jobs the forest learns little.

    The result is None if fewer than two keys vary, all objectives are the same, or a forest has fewer than 8 jobs or
    predicts no better than the mean.
    """
    measured = sorted((tuple(sorted(job.values.items())), job.objective) for job in jobs if job.objective is not None)
    keys = sorted({key for values, _ in measured for key, _ in values} - {"seed"})
    columns = {key: [dict(values).get(key, "") for values, _ in measured] for key in keys}
    columns = {key: texts for key, texts in columns.items() if len(set(texts)) > 1}
    objectives = [objective for _, objective in measured]
    if len(columns) < 2 or math.isclose(min(objectives), max(objectives), rel_tol=1e-12):
        return None
    if _is_full_grid(columns):
        shares, rest = _main_effects(columns, objectives), "interactions and chance"
    elif len(objectives) >= _FEWEST:
        shares, rest = _by_forest(columns, objectives), "unexplained by a random forest"
    else:
        return None
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importance(dict(ordered), rest) if shares else None


def as_sentence(found: Importance, objective: str) -> str:
    """Say in a sentence which keys matter most.

    >>> as_sentence(Importance({"model.hidden": 0.81, "optimizer.learning_rate": 0.121}, "chance"), "val_loss")
    'Of the variance of val_loss, hidden explains 81 %, learning_rate 12 %; the rest is chance.'
    """
    names = short_names(found.shares)
    (first, largest), *others = list(found.shares.items())[:_NAMED]
    parts = [f"{names[first]} explains {largest:.0%}", *(f"{names[key]} {share:.0%}" for key, share in others)]
    if left := list(found.shares.values())[_NAMED:]:
        parts.append(f"{counted(len(left), 'other')} {sum(left):.0%}")
    text = f"Of the variance of {objective}, {', '.join(parts)}; the rest is {found.rest}."
    return printable(text.replace("%", " %"))


def as_numbers(texts: Sequence[str]) -> list[float] | None:
    """Return texts as numbers; None unless all are finite."""
    try:
        numbers = [usable(float(text)) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def spans_decades(numbers: Sequence[float]) -> bool:
    """Return whether numbers are so far apart that logarithms suit them better."""
    return min(numbers) > 0 and max(numbers) / min(numbers) >= 20


def _is_full_grid(columns: Mapping[str, Sequence[str]]) -> bool:
    """Return whether all combinations of the values are there, equally often."""
    counts = Counter(zip(*columns.values(), strict=True))
    return len(set(counts.values())) == 1 and len(counts) == math.prod(len(set(texts)) for texts in columns.values())


def _main_effects(columns: Mapping[str, Sequence[str]], objectives: Sequence[float]) -> dict[str, float]:
    import numpy as np

    y, shares = np.asarray(objectives), {}
    for key, texts in columns.items():
        _, value, counts = np.unique(texts, return_inverse=True, return_counts=True)
        means = np.bincount(value, y) / counts
        shares[key] = float((counts * (means - y.mean()) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return shares


def _by_forest(columns: Mapping[str, Sequence[str]], objectives: Sequence[float]) -> dict[str, float]:
    """Return the share of each key; nothing if the forest predicts no better than the mean."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    x, y = np.column_stack([_coded(texts) for texts in columns.values()]), np.asarray(objectives)
    errors, growth = 0.0, np.zeros(len(columns))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(x):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(x[train], y[train])
        errors += float(((forest.predict(x[test]) - y[test]) ** 2).sum())
        shuffled = permutation_importance(forest, x[test], y[test], scoring="neg_mean_squared_error", random_state=0)
        growth += len(test) * np.maximum(shuffled.importances_mean, 0)
    explained = 1 - errors / float(((y - y.mean()) ** 2).sum())
    if explained <= 0 or not growth.any():
        return {}
    return dict(zip(columns, (explained * growth / growth.sum()).tolist(), strict=True))


def _coded(texts: Sequence[str]) -> "npt.NDArray[np.float64]":
    """Return numbers, or their logarithms if they span decades; the alphabetical places of words."""
    import numpy as np

    numbers = as_numbers(texts)
    if numbers is None:
        return np.unique(texts, return_inverse=True)[1].astype(np.float64)
    return np.log(numbers) if spans_decades(numbers) else np.asarray(numbers)
