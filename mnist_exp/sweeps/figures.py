"""The pictures of a sweep: its curves, how its objective depends on what varies, and what matters most."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist_exp.errors import printable
from mnist_exp.figures import epoch_ticks, plain
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.differences import shortened, shown_values
from mnist_exp.sweeps.formats import counted
from mnist_exp.sweeps.importance import Importance, as_numbers, spans_decades
from mnist_exp.tracking.job import short_names

_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8")  # of the rows that are named; C7 is grey
_LABEL, _TICK, _TICK_LINE = 120, 60, 34  # characters
_FEW = 8  # values of a parameter, each of which gets a tick
_Measured = Sequence[tuple[Mapping[str, str], float]]


def validation_curves(rows: Sequence[Curve], metric: str) -> Figure:
    """Draw a metric over epochs, a line a row: the mean of its jobs, in a band from the smallest to the largest.

    The first eight rows are in colour and named, with the number of their jobs; all others are thin and grey. Where
    jobs have different numbers of epochs, the mean is of those that have reached the epoch.

    Args:
        rows: at least one, best first.
        metric: its name.
    """
    named = rows[: len(_COLOURS)]
    short = shortened((printable(row.label) for row in named), _LABEL)
    labels = [
        _plain(f"{row.place}  {', '.join(filter(None, [short[printable(row.label)], f'n={row.jobs}']))}")
        for row in named
    ]
    columns = 2 if max(map(len, labels)) <= _LABEL / 2 else 1
    figure = Figure(figsize=(9, 5 + 0.19 * (1 + len(named) / columns)), layout="constrained")
    axes: Axes = figure.subplots()
    for place, row in reversed(list(enumerate(rows))):
        epochs, style = range(1, len(row.mean) + 1), "o" if len(row.mean) == 1 else "-"
        if place >= len(named):
            axes.plot(epochs, row.mean, style, color="lightgrey", linewidth=0.8)
            continue
        axes.plot(epochs, row.mean, style, color=_COLOURS[place], label=labels[place], linewidth=1.6)
        if len(row.mean) == 1:
            axes.vlines(epochs, row.low, row.high, color=_COLOURS[place], alpha=0.5)
        elif row.jobs > 1:
            axes.fill_between(epochs, row.low, row.high, color=_COLOURS[place], alpha=0.15, linewidth=0)
    epoch_ticks(axes, max(len(row.mean) for row in rows))
    jobs = sum(row.jobs for row in rows)
    axes.set_title(f"{plain(metric)} of {counted(jobs, 'job')}")
    said = ["the line is the mean, the band from the smallest to the largest"] if jobs > len(rows) else []
    said += [f"the first {len(named)} of {len(rows)} are in colour"] if len(rows) > len(named) else []
    axes.set(xlabel="epoch", ylabel=plain(metric))
    axes.grid(alpha=0.4)
    handles, _ = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels,
        loc="outside lower left",
        ncols=columns,
        fontsize=8,
        title="; ".join(said),
        title_fontsize=8,
        alignment="left",
    )
    return figure


def objective_by_parameter(jobs: _Measured, objective: str) -> Figure:
    """Draw the objective against each parameter that varies; of two in a grid, a heat map of the means.

    Args:
        jobs: what varies, by name, and the objective of each.
        objective: its name.
    """
    names = list(dict.fromkeys(name for values, _ in jobs for name in values))
    varying = [name for name in names if name != "seed"]
    if len(varying) == 2:
        down, across = varying
        cells: dict[tuple[str, str], list[float]] = {}
        for values, value in jobs:
            cells.setdefault((values.get(down, ""), values.get(across, "")), []).append(value)
        if len(cells) == len({row for row, _ in cells}) * len({column for _, column in cells}):
            return _heat_map(cells, down, across, objective)
    shown = varying or names
    width = min(len(shown), 3)
    height = -(-len(shown) // width)
    figure = Figure(figsize=(4.5 * width, 3.8 * height), layout="constrained")
    for place, name in enumerate(shown, start=1):
        axes = figure.add_subplot(height, width, place)
        _points(axes, [(values[name], value) for values, value in jobs if name in values])
        axes.set(xlabel=plain(name), ylabel=plain(objective))
        axes.grid(alpha=0.4)
    return figure


def _points(axes: Axes, given: Sequence[tuple[str, float]]) -> None:
    """Draw a point a job; of words and of few numbers, the values are side by side, each with its mean."""
    texts, measured = [text for text, _ in given], [value for _, value in given]
    choices, numbers = _ordered(set(texts)), as_numbers(texts)
    if numbers is not None and len(choices) > _FEW:
        axes.plot(numbers, measured, "o", color="cornflowerblue", alpha=0.7)
        if spans_decades(numbers):
            axes.set_xscale("log")
        return
    axes.plot([choices.index(text) for text in texts], measured, "o", color="cornflowerblue", alpha=0.5)
    if len(choices) < len(given):
        means = [fmean(value for text, value in given if text == choice) for choice in choices]
        axes.plot(range(len(choices)), means, "_", color="black", markersize=16, markeredgewidth=2, label="mean")
        axes.legend(fontsize=8)
    _name_ticks(axes, choices, 50 // len(choices))
    axes.set_xlim(-0.5, len(choices) - 0.5)


def _name_ticks(axes: Axes, choices: Sequence[str], room: int) -> None:
    """Write what differs in values below the x axis, turned where one has more characters than `room`."""
    labels = _tick_labels(choices)
    longest = max(len(line) for label in labels for line in label.split("\n"))
    turned: dict[str, Any] = {"rotation": 30 if len(labels) <= 12 else 90, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(choices)), labels, fontsize=8, **(turned if longest > room else {}))


def _tick_labels(choices: Sequence[str]) -> list[str]:
    shown = shown_values(choices)
    short = shortened(map(printable, shown.values()), _TICK)
    return [_plain(fill(short[printable(shown[choice])], _TICK_LINE)) for choice in choices]


def _heat_map(cells: Mapping[tuple[str, str], Sequence[float]], down: str, across: str, objective: str) -> Figure:
    """Draw the mean of each cell, with its deviation, where it has several jobs, and their number n."""
    rows, columns = (_ordered({cell[axis] for cell in cells}) for axis in (0, 1))
    means = np.array([[fmean(cells[row, column]) for column in columns] for row in rows])
    figure = Figure(figsize=(3.5 + 0.95 * len(columns), 2.2 + 0.6 * len(rows)), layout="constrained")
    axes: Axes = figure.subplots()
    title = "mean ± standard deviation" if any(len(values) > 1 for values in cells.values()) else ""
    picture = axes.imshow(means, cmap="viridis", aspect="auto")
    figure.colorbar(picture, ax=axes, label=plain(objective))
    _name_ticks(axes, columns, 14)
    axes.set_yticks(range(len(rows)), _tick_labels(rows), fontsize=8)
    axes.set(xlabel=plain(across), ylabel=plain(down), title=title)
    middle = (means.min() + means.max()) / 2
    for place in np.ndindex(*means.shape):
        values = cells[rows[place[0]], columns[place[1]]]
        spread = f"± {stdev(values):.4f}, " if len(values) > 1 else ""
        colour = "black" if means[place] > middle else "white"
        for text, side, size in ((f"{means[place]:.4f}", "bottom", 9), (f"{spread}n={len(values)}", "top", 7)):
            axes.text(place[1], place[0], text, ha="center", va=side, color=colour, fontsize=size)
    return figure


def importance_bars(found: Importance, objective: str) -> Figure:
    """Draw the share of the variance that each key explains, largest first, and the remainder in grey."""
    shares = [*found.shares.values(), max(1 - sum(found.shares.values()), 0.0)]
    labels = [*map(plain, short_names(found.shares).values()), found.rest]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes: Axes = figure.subplots()
    colours = ["cornflowerblue"] * len(found.shares) + ["lightgrey"]
    bars = axes.barh(range(len(shares)), shares, color=colours)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
    axes.set_yticks(range(len(shares)), labels)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlim=(0, 1.08), title=f"What explains the variance of {plain(objective)}")
    return figure


def _ordered(choices: set[str]) -> list[str]:
    """Sort numbers by size, then words by name."""
    return sorted(choices, key=lambda text: (as_numbers([text]) or [np.inf], text))


def _plain(text: str) -> str:
    """Return a text of any length in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
