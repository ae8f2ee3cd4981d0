"""The picture of a sweep: how its objective depends on what varies."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.figures import plain


def objective_by_parameter(jobs: Sequence[tuple[Mapping[str, str], float]], objective: str) -> Figure:
    """Draw the objective against each parameter that varies; of two in a grid, a heat map of the means.

    Args:
        jobs: what varies, by name, and the objective of each.
        objective: its name.
    """
    names = list(dict.fromkeys(name for values, _ in jobs for name in values))
    varying = [name for name in names if name != "seed"]
    if len(varying) == 2:
        cells = {(values.get(varying[0], ""), values.get(varying[1], "")) for values, _ in jobs}
        rows, columns = (_ordered({cell[axis] for cell in cells}) for axis in (0, 1))
        if len(cells) == len(rows) * len(columns):
            return _heat_map(jobs, (varying[0], rows), (varying[1], columns), objective)
    shown = varying or names
    width = min(len(shown), 3)
    height = -(-len(shown) // width)
    figure = Figure(figsize=(4.5 * width, 3.8 * height), layout="constrained")
    grid = np.atleast_1d(figure.subplots(height, width)).reshape(-1)
    for axes, name in zip(grid, shown, strict=False):
        given = [(values[name], value) for values, value in jobs if name in values]
        numbers = [_number(text) for text, _ in given]
        places = [number for number in numbers if number is not None]
        measured = [value for _, value in given]
        if len(places) == len(given):
            axes.plot(places, measured, "o", color="cornflowerblue", alpha=0.7)
            if min(places) > 0 and max(places) / min(places) >= 20:
                axes.set_xscale("log")
        else:
            choices = _ordered({text for text, _ in given})
            axes.plot([choices.index(text) for text, _ in given], measured, "o", color="cornflowerblue", alpha=0.7)
            axes.set_xticks(range(len(choices)), [plain(choice) for choice in choices], fontsize=8)
            axes.set_xlim(-0.5, len(choices) - 0.5)
        axes.set(xlabel=name, ylabel=objective)
        axes.grid(alpha=0.4)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    return figure


def _heat_map(
    jobs: Sequence[tuple[Mapping[str, str], float]],
    vertical: tuple[str, list[str]],
    horizontal: tuple[str, list[str]],
    objective: str,
) -> Figure:
    (down, rows), (across, columns) = vertical, horizontal
    totals, counts = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    for values, value in jobs:
        place = rows.index(values.get(down, "")), columns.index(values.get(across, ""))
        totals[place] += value
        counts[place] += 1
    means = totals / counts
    size = 3 + 0.9 * len(columns), 2 + 0.6 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    axes: Axes = figure.subplots()
    picture = axes.imshow(means, cmap="viridis", aspect="auto")
    figure.colorbar(picture, ax=axes, label=objective)
    axes.set_xticks(range(len(columns)), [plain(column) for column in columns])
    axes.set_yticks(range(len(rows)), [plain(row) for row in rows])
    axes.set(xlabel=across, ylabel=down, title=objective)
    middle = (means.min() + means.max()) / 2
    for place in np.ndindex(*means.shape):
        colour = "black" if means[place] > middle else "white"
        axes.text(place[1], place[0], f"{means[place]:.4f}", ha="center", va="center", color=colour, fontsize=9)
    return figure


def _ordered(choices: set[str]) -> list[str]:
    """Sort numbers by size, then words by name."""
    return sorted(choices, key=lambda text: (_number(text) is None, _number(text) or 0.0, text))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
