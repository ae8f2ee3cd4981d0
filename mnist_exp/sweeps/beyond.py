"""Where to look next: whether the best value of a number is the last of its list, and what would go on.

Imports nothing heavy.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from mnist_exp.config.checks import check
from mnist_exp.config.overrides import flatten
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.importance import as_numbers
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.names import short_names, shown_value, typed_value
from mnist_exp.tracking.records import Record

_FEWEST = 3  # values: of two, each is an end
_SERIES = (
    [float(f"{digit}e{power}") for power in range(-60, 60) for digit in (1, 3)],
    [float(f"{digit}e{power}") for power in range(-60, 60) for digit in (1, 2, 5)],
    [2.0**power for power in range(-200, 200)],
)


def beyond_the_lists(rows: Sequence[Row], jobs: Sequence[Record], sweep: Sweep) -> str:
    """Say which numbers of the best row are the largest or smallest that were tried, and which would go on.

    Nothing is said of seeds and data, nor if a row with another value may be as good. `rows`: best first, and compared.
    """
    if not rows or not rows[0].is_whole:
        return ""
    names, said = short_names(rows[0].values), []
    listed = [*(job.values for job in jobs), *(flatten(asdict(config)) for config in sweep.configs)]
    most = rows[0].jobs[0].images("training") or math.inf
    for key, best in rows[0].values.items():
        tried = as_numbers([values.get(key, "") for values in listed])
        others = [row for row in rows if row.values[key] != best]
        may_be_as_good = [row for row in others if row.is_open or row.comparison is None]
        if key == "seed" or key.startswith("dataset.") or tried is None or not others or may_be_as_good:
            continue
        is_largest = float(best) == max(tried)
        outwards = sorted(set(tried), reverse=not is_largest)
        if len(outwards) < _FEWEST or float(best) != outwards[-1]:
            continue
        fits = [f"{one:.10g}" for one in _further(outwards) if key != "training.batch_size" or one <= most]
        if on := " and ".join(text for text in fits if _is_allowed(sweep.config, key, text)):
            end = "largest" if is_largest else "smallest"
            said.append(f"The best {names[key]}, {shown_value(best)}, is the {end} that was tried; {on} would go on.")
    return " ".join(said)


def _further(numbers: Sequence[float]) -> list[float]:
    """Return two numbers that go on, in equal steps or ratios, or in a series that people type; none for other lists.

    >>> _further([0.003, 0.01, 0.03]), _further([64, 32, 16]), _further([5, 10, 15]), _further([4, 5, 20])
    ([0.1, 0.3], [8.0, 4.0], [20, 25], [])
    """
    steps = [other - one for one, other in pairwise(numbers)]
    if _are_equal(steps):
        return [round(numbers[-1] + times * steps[-1], 12) for times in (1, 2)]
    numbers = numbers[numbers[0] == 0 :]
    if min(numbers) < 0:
        return []
    if _are_equal(ratios := [other / one for one, other in pairwise(numbers)]):
        return [numbers[-1] * ratios[-1], numbers[-1] * ratios[-1] ** 2]
    for series in _SERIES:
        if set(numbers) <= set(series):
            place, step = series.index(numbers[-1]), 1 if steps[-1] > 0 else -1
            return [series[place + step], series[place + 2 * step]]
    return []


def _are_equal(numbers: Sequence[float]) -> bool:
    return all(math.isclose(number, numbers[0], rel_tol=1e-6) for number in numbers)


def _is_allowed(config: Config, key: str, text: str) -> bool:
    values: dict[str, Any] = asdict(config) | {"code": config.code and config.code.path}
    *path, last = key.split(".")
    node = values
    for part in path:
        node = node[part]
    node[last] = typed_value(text)
    try:
        check(values, config.code)
    except InputError:
        return False
    return True
