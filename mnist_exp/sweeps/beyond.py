"""Where to look next: whether the best value of a number is the last of its list, and what would go on.

Imports nothing heavy.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from mnist_exp.config.schema import Config, check, objective_direction
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.importance import as_numbers
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.job import Job, count_images, short_names, shown_value

_FEWEST = 3  # values: of two, one is the largest and the other the smallest, and nothing says how a list goes on
_NAMED = 2  # keys
_DIGITS = 10  # that a sum of typed numbers keeps
_SERIES = (
    [float(f"{digit}e{power}") for power in range(-60, 60) for digit in (1, 3)],
    [float(f"{digit}e{power}") for power in range(-60, 60) for digit in (1, 2, 5)],
    [2.0**power for power in range(-200, 200)],
)


def beyond_the_lists(rows: Sequence[Row], jobs: Sequence[Job], sweep: Sweep) -> str:
    """Say which values of the best row are the largest or smallest that were tried, and which would go on.

    It is said of numbers, but for seeds and data, of which at least three were tried, even if they failed, and if no
    row with another value may be as good. Where each row is a single run, the objective must rise from value to value,
    whatever the other keys are, over four values or in two such lines: by chance it does so in at most 8 % of sweeps.

    Args:
        rows: best first, and compared.
        jobs: all of the sweep.
        sweep: each value is in one of its configurations, unless there are hundreds.
    """
    found = []
    for key, text in rows[0].values.items() if rows and rows[0].is_whole else ():
        typed = [(config, value) for config in sweep.configs if (value := _number(config, key)) is not None]
        tried = as_numbers([job.values.get(key, "") for job in jobs])
        if key == "seed" or key.startswith("dataset.") or not typed or tried is None:
            continue
        numbers = sorted({*tried, *(float(value) for _, value in typed)})
        largest = float(text) == numbers[-1]
        outwards = numbers if largest else numbers[::-1]
        if len(numbers) < _FEWEST or float(text) != outwards[-1]:
            continue
        if not _is_ahead(rows, key, outwards, 1 if objective_direction(sweep.config) == "maximize" else -1):
            continue
        most = count_images(rows[0].jobs[0].data, "training") or math.inf
        whole = all(isinstance(value, int) for _, value in typed)
        further = dict.fromkeys(round(one) if whole else one for one in _further(outwards))
        fits = [one for one in further if key != "training.batch_size" or one <= most]
        if texts := [f"{one:.{_DIGITS}g}" for one in fits if _is_allowed(typed[0][0], key, one)]:
            found.append((key, "largest" if largest else "smallest", texts))
    return _sentence(rows[0].values, found[:_NAMED]) if found else ""


def _sentence(best: Mapping[str, str], found: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    names = short_names(best)
    (first, side, texts), *others = found
    text = f"The best {names[first]}, {shown_value(best[first])}, is the {side} that was tried"
    text += "".join(f", and the best {names[key]}, {shown_value(best[key])}, the {side}" for key, side, _ in others)
    on = " and ".join(f"{names[key]}={','.join(texts)}" for key, _, texts in found) if others else " and ".join(texts)
    return printable(f"{text}; {on} would go on.")


def _is_ahead(rows: Sequence[Row], key: str, outwards: Sequence[float], sign: int) -> bool:
    """Return whether no row may be as good as the first that has not its value of a key, the last of `outwards`."""
    others = [row for row in rows if float(row.values[key]) != outwards[-1]]
    if any(row.comparison is not None for row in rows):
        return bool(others) and not any(row.is_open or (row.comparison is None and row.is_whole) for row in others)
    lines: dict[tuple[tuple[str, str], ...], dict[float, float]] = defaultdict(dict)
    for row in rows:
        fixed = tuple(sorted(item for item in row.values.items() if item[0] not in {key, "seed"}))
        lines[fixed][float(row.values[key])] = sign * row.mean
    steps = [step for line in lines.values() for step in pairwise(line.get(one, math.nan) for one in outwards)]
    return all(one < other for one, other in steps) and (len(lines) > 1 or len(outwards) > _FEWEST)


def _further(numbers: Sequence[float]) -> list[float]:
    """Return the two numbers that go on, without those that leave the numbers from 0, or in small steps those below 1.

    >>> _further([0.003, 0.01, 0.03]), _further([16, 32, 64]), _further([0.3, 0.2, 0.1]), _further([0.5, 0.7, 0.9])
    ([0.1, 0.3], [128.0, 256.0], [0.0], [])
    """
    longer = list(numbers)
    for _ in range(2):
        following = _following(longer)
        is_zero = abs(following) < abs(longer[-1]) / 10**_DIGITS
        longer.append(0.0 if is_zero else float(f"{following:.{_DIGITS}g}"))
        goes_on = (longer[-1] > longer[-2]) == (numbers[-1] > numbers[0]) and longer[-1] != longer[-2]
        if not goes_on or min(numbers) >= 0 > longer[-1] or max(numbers) < 1 <= longer[-1] < 2 * longer[-2]:
            return longer[len(numbers) : -1]
    return longer[-2:]


def _following(numbers: Sequence[float]) -> float:
    """Return the next number of a list in equal steps, in equal ratios, or of a series that people type."""
    steps = [other - one for one, other in pairwise(numbers)]
    if len(numbers) >= _FEWEST and _spread(steps) < 1 + 1e-6:
        return numbers[-1] + steps[-1]
    if numbers[0] == 0:
        return _following(numbers[1:])
    if min(numbers) <= 0:
        return numbers[-1] + steps[-1]
    ratios = [other / one for one, other in pairwise(numbers)]
    if _spread(ratios) < 1 + 1e-6:
        return numbers[-1] * ratios[-1]
    for series in _SERIES:
        if set(numbers) <= set(series):
            return series[series.index(numbers[-1]) + (1 if steps[-1] > 0 else -1)]
    if _spread([math.log(ratio) for ratio in ratios]) < _spread(steps):
        return float(f"{numbers[-1] * ratios[-1]:.2g}")
    return numbers[-1] + steps[-1]


def _spread(numbers: Sequence[float]) -> float:
    sizes = [abs(number) for number in numbers]
    return max(sizes) / min(sizes) if min(sizes) else math.inf


def _number(config: Config, key: str) -> float | None:
    """Return the number at a key; None for anything else, and numbers out of all proportion."""
    node: Any = config
    for part in key.split("."):
        node = (node if isinstance(node, Mapping) else getattr(node, "__dict__", {})).get(part)
    is_number = isinstance(node, int | float) and not isinstance(node, bool) and -1e50 < node < 1e50
    return node if is_number else None


def _is_allowed(config: Config, key: str, value: float) -> bool:
    values: dict[str, Any] = asdict(config) | {"code": config.code and config.code.path}
    *path, last = key.split(".")
    node = values
    for part in path:
        node = node[part]
    node[last] = value
    try:
        check(values, config.code)
    except InputError:
        return False
    return True
