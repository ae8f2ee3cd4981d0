"""How much of the objective's variance each key explains."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from mnist_exp.text import printable
from mnist_exp.tracking.names import short_names
from mnist_exp.tracking.records import Record, usable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Numbers = npt.NDArray[np.float64]

_FEWEST, _MOST = 20, 1000  # jobs that a forest needs, and uses
_LEAST = 0.1  # of the variance that it must explain, or it has learned too little to tell keys apart
_FOLDS, _TREES = 4, 50
_SHUFFLES = 199
_LEVEL = 0.04  # not 0.05, since jobs of a search that learns from those before cannot be exchanged quite freely
_GROUPS = 3  # of the numbers of a key that has more, to tell whether anything matters
_COMBINATIONS = ""  # beside the keys


@dataclass(frozen=True)
class Importance:
    """The share of the variance, from 0 to 1, by key, largest first, and what the remainder (`rest`) is, in words."""

    shares: Mapping[str, float]
    rest: str

    @property
    def percents(self) -> list[int]:
        """The shares and the remainder in whole percent, 100 in all; the largest fractions are rounded up."""
        exact = [100 * share for share in (*self.shares.values(), max(1 - sum(self.shares.values()), 0.0))]
        whole = [math.floor(one) for one in exact]
        left = sorted(range(len(exact)), key=lambda place: whole[place] - exact[place])[: max(100 - sum(whole), 0)]
        return [one + (place in left) for place, one in enumerate(whole)]


def importance(jobs: Sequence[Record]) -> Importance | None:
    """Return the share of the finished jobs' variance that each key explains; `seed` is chance, and no key.

    In a full grid, with as many jobs for each combination, it is the main effect of an analysis of variance, without
    what chance adds (T. L. Kelley's epsilon squared, 1935), and at least 0. In a search or a grid with gaps, a random
    forest predicts quarters of the jobs from the others (L. Breiman, 2001), and what it explains is divided by how much
    its errors grow once a key's values are shuffled.

    The result is None where chance alone would do as well (see `_squares`), if fewer than two keys vary, all objectives
    are the same, or a forest has fewer than 20 jobs or explains less than a tenth.
    """
    import numpy as np

    measured = [(job.values, job.objective) for job in jobs if job.objective is not None]
    measured.sort(key=lambda one: (one[0].get("seed", ""), sorted(one[0].items()), one[1]))
    keys = sorted({key for values, _ in measured for key in values} - {"seed"})
    columns = {key: [values.get(key, "") for values, _ in measured] for key in keys}
    columns = {key: texts for key, texts in columns.items() if len(set(texts)) > 1}
    objectives = np.asarray([objective for _, objective in measured], np.float64)
    if len(columns) < 2 or math.isclose(objectives.min(), objectives.max(), rel_tol=1e-12):
        return None
    if _is_full_grid(columns):
        seeds = [values.get("seed", "") for values, _ in measured]
        paired = _is_full_grid({**columns, "seed": seeds})
        shares, rest = _main_effects(columns, objectives, len(set(seeds)) if paired else 1), "interactions and chance"
    elif len(measured) >= _FEWEST and _squares(columns, objectives):
        shares, rest = _by_forest(columns, objectives), "unexplained by a random forest"
    else:
        return None
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importance(dict(ordered), rest) if any(shares.values()) else None


def as_sentence(found: Importance, objective: str) -> str:
    """Say in a sentence which keys matter most.

    >>> as_sentence(Importance({"model.hidden": 0.81, "optimizer.learning_rate": 0.121}, "chance"), "val_loss")
    'Of the variance of val_loss, hidden explains 81 %, learning_rate 12 %; the rest is chance.'
    """
    *percents, _ = found.percents
    (first, largest), *others = zip(short_names(found.shares).values(), percents, strict=True)
    parts = [f"{first} explains {largest} %", *(f"{name} {percent} %" for name, percent in others)]
    return printable(f"Of the variance of {objective}, {', '.join(parts)}; the rest is {found.rest}.")


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


def _main_effects(columns: Mapping[str, Sequence[str]], y: "_Numbers", seeds: int) -> dict[str, float]:
    """Return the share of each key, without what chance adds; nothing where chance alone would do as well.

    `seeds`: into how many parts of the same combinations the jobs fall, in their order; what these differ in is chance.
    """
    if not (squares := _squares(columns, y, seeds)):
        return {}
    between, values = squares.pop(_COMBINATIONS), {key: len(set(texts)) for key, texts in columns.items()}
    total, within = float(((y - y.mean()) ** 2).sum()), y.reshape(seeds, -1)
    left = float(((within - within.mean(axis=1, keepdims=True)) ** 2).sum())
    free = len(y) - seeds - (math.prod(values.values()) - 1)
    if not free:  # each combination ran once
        between, free = sum(squares.values()), len(y) - 1 - sum(number - 1 for number in values.values())
    chance = max(left - between, 0.0) / free
    return {key: max(square - (values[key] - 1) * chance, 0.0) / total for key, square in squares.items()}


def _squares(columns: Mapping[str, Sequence[str]], y: "_Numbers", seeds: int | None = None) -> dict[str, float]:
    """Return the sums of squares by key, and of combinations; nothing where chance alone would do as well.

    All of them must sum to more than in 96 % of 199 deals of the objectives, each among the jobs of a seed. `seeds`:
    into how many parts of the same combinations the jobs fall; None for jobs that are no full grid, whose numbers are
    cut into thirds.
    """
    import numpy as np

    shown = columns if seeds else {key: _grouped(texts) for key, texts in columns.items()}
    shown = {**shown, _COMBINATIONS: list(map(repr, zip(*columns.values(), strict=True)))}
    groups = [np.unique(texts, return_inverse=True, return_counts=True)[1:] for texts in shown.values()]
    rng = np.random.default_rng(crc32(y.tobytes()))  # with one seed for all, the level is off
    parts = y.reshape(seeds or 1, -1)
    parts = parts - parts.mean(axis=1, keepdims=True)

    def squares(dealt: "_Numbers") -> list[float]:
        return [float((np.bincount(place, dealt.ravel()) ** 2 / counts).sum()) for place, counts in groups]

    found = squares(parts)
    least = sum(found) * (1 - 1e-9)
    as_large = 1 + sum(sum(squares(rng.permuted(parts, axis=1))) >= least for _ in range(_SHUFFLES))
    return dict(zip(shown, found, strict=True)) if as_large <= _LEVEL * (1 + _SHUFFLES) else {}


def _grouped(texts: Sequence[str]) -> Sequence[str]:
    """Return the thirds that numbers of more than three values are in; other texts as they are."""
    import numpy as np

    numbers = as_numbers(texts)
    if numbers is None or len(set(numbers)) <= _GROUPS:
        return texts
    ends = np.quantile(numbers, np.arange(1, _GROUPS) / _GROUPS)
    return [str(place) for place in np.searchsorted(ends, numbers)]


def _by_forest(columns: Mapping[str, Sequence[str]], y: "_Numbers") -> dict[str, float]:
    """Return the share of each key; nothing if the forest explains less than a tenth."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    kept = np.random.default_rng(0).permutation(len(y))[:_MOST]
    # Places among the sorted values are all that a tree needs.
    coded = [np.unique(as_numbers(texts) or texts, return_inverse=True)[1] for texts in columns.values()]
    x, y = np.column_stack(coded)[kept], y[kept]
    errors, growth = 0.0, np.zeros(len(columns))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(x):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(x[train], y[train])
        errors += float(((forest.predict(x[test]) - y[test]) ** 2).sum())
        shuffled = permutation_importance(forest, x[test], y[test], scoring="neg_mean_squared_error", random_state=0)
        growth += len(test) * np.maximum(shuffled.importances_mean, 0)
    explained = 1 - errors / float(((y - y.mean()) ** 2).sum())
    if explained < _LEAST or not growth.any():
        return {}
    return dict(zip(columns, (explained * growth / growth.sum()).tolist(), strict=True))
