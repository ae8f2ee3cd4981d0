"""Draw a sweep: curves, the objective by key, and the importance of each key."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist_exp.figures import axis_label, epoch_ticks, escape_label
from mnist_exp.sweeps.formats import format_values, mean, pluralize, shorten
from mnist_exp.sweeps.importance import Importance, as_numbers, spans_decades
from mnist_exp.text import printable
from mnist_exp.tracking.names import short_names
from mnist_exp.tracking.records import usable

_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8")  # without C7, which is grey
_NAMED = len(_COLOURS)
_LABEL, _TICK, _TICK_LINE = 120, 60, 34  # characters
_MAX_POINTS = 400  # more points of a curve could not be seen
_FEW, _MANY = 8, 1000  # up to which each value gets a tick; from which SVG holds points as a picture
Curves = tuple[str, str, Sequence[Sequence[float]]]
_Measured = Sequence[tuple[Mapping[str, str], float]]


def validation_curves(rows: Sequence[Curves], metric: str) -> Figure:
    """Draw each row's mean of a metric over epochs, in a band from least to greatest.

    The first eight rows are in colour and named, with the number of their jobs; all others are thin and grey, and may
    leave the picture, since one that diverged would flatten all. The mean in an epoch is that of the jobs that have
    reached it.

    Args:
        rows: at least one, best first: the place, the varied values, and each job's value in each epoch.
        metric: its name.
    """
    names = shorten((printable(name) for _, name, _ in rows[:_NAMED]), _LABEL)
    texts = (f"{place}  {names[printable(name)]}, n={len(jobs)}" for place, name, jobs in rows[:_NAMED])
    labels = [escape_label(text.replace("  , ", "  "), 2 * _LABEL) for text in texts]
    columns = 2 if max(map(len, labels)) <= _LABEL / 2 else 1
    figure = Figure(figsize=(9, 5 + 0.19 * (1 + len(labels) / columns)), layout="constrained")
    axes: Axes = figure.subplots()
    bands = [_band(jobs) for *_, jobs in rows]
    for place, (epochs, middle, low, high) in reversed(list(enumerate(bands))):
        colour, width = (_COLOURS[place], 1.6) if place < _NAMED else ("lightgrey", 0.8)
        axes.plot(epochs, middle, color=colour, linewidth=width, marker="o" if len(epochs) == 1 else "")
        if place < _NAMED:
            edge = 1.5 if len(epochs) == 1 else 0  # since one epoch has no area
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15 + edge / 5, linewidth=edge)
    coloured = np.concatenate([band[1:].ravel() for band in bands[:_NAMED]])
    if len(rows) > _NAMED and np.isfinite(coloured).any():
        low, high = np.nanmin(coloured), np.nanmax(coloured)
        height = (high - low) or abs(high) / 10 or 1.0
        seen = np.concatenate([coloured, *(band[1].clip(low - height, high + height) for band in bands)])
        axes.set_ylim(np.nanmin(seen) - height / 25, np.nanmax(seen) + height / 25)
    all_jobs = [job for *_, jobs in rows for job in jobs]
    epoch_ticks(axes, max(map(len, all_jobs)))
    axes.set(
        title=f"{axis_label(metric)} of {pluralize(len(all_jobs), 'job')}", xlabel="epoch", ylabel=axis_label(metric)
    )
    axes.grid(alpha=0.4)
    notes = ["the line is the mean, the band from the smallest to the largest"] if len(all_jobs) > len(rows) else []
    notes += [f"the first {_NAMED} of {len(rows)} are in colour"] if len(rows) > _NAMED else []
    figure.legend(
        axes.get_lines()[: -_NAMED - 1 : -1],
        labels,
        loc="outside lower left",
        ncols=columns,
        fontsize=8,
        title="; ".join(notes),
        title_fontsize=8,
        alignment="left",
    )
    return figure


def _band(jobs: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Return at most 400 epochs, with the jobs' mean, smallest and largest value.

    The shape is (4, epochs); values that cannot be drawn are NaN.
    """
    last = max(map(len, jobs))
    epochs = np.unique(np.linspace(1, last, min(last, _MAX_POINTS)).round())
    reached = [[usable(values[epoch - 1]) for values in jobs if len(values) >= epoch] for epoch in epochs.astype(int)]
    band = np.array([epochs, *([kind(values) for values in reached] for kind in (mean, min, max))])
    return np.where(np.isfinite(band), band, np.nan)


def objective_by_parameter(jobs: _Measured, objective: str) -> Figure:
    """Draw the objective of each job against each key that varies.

    Two keys of a grid give a heat map of the means.
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
        axes.set(xlabel=axis_label(name), ylabel=axis_label(objective))
        axes.grid(alpha=0.4)
    return figure


def _points(axes: Axes, given: Sequence[tuple[str, float]]) -> None:
    """Draw a point for each job, with a mean for each word or number if they are few."""
    texts, measured = [text for text, _ in given], [value for _, value in given]
    choices, numbers = _sort_values(set(texts)), as_numbers(texts)
    style: dict[str, Any] = {"color": "cornflowerblue", "alpha": 0.6, "rasterized": len(given) > _MANY}
    if numbers is not None and len(choices) > _FEW:
        axes.plot(numbers, measured, "o", **style)
        if spans_decades(numbers):
            axes.set_xscale("log")
        return
    axes.plot([choices.index(text) for text in texts], measured, "o", **style)
    if len(choices) < len(given):
        means = [fmean(value for text, value in given if text == choice) for choice in choices]
        axes.plot(range(len(choices)), means, "_", color="black", markersize=16, markeredgewidth=2, label="mean")
        axes.legend(fontsize=8)
    _name_ticks(axes, choices, 50 // len(choices))
    axes.set_xlim(-0.5, len(choices) - 0.5)


def _name_ticks(axes: Axes, choices: Sequence[str], room: int) -> None:
    """Name values below the x axis, turned if a line is longer than `room` characters."""
    labels = _tick_labels(choices)
    longest = max(len(line) for label in labels for line in label.split("\n"))
    turned: dict[str, Any] = {"rotation": 30 if len(labels) <= 12 else 90, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(choices)), labels, fontsize=8, **(turned if longest > room else {}))


def _tick_labels(choices: Sequence[str]) -> list[str]:
    shown = format_values(choices)
    brief = shorten(map(printable, shown.values()), _TICK)
    return [fill(brief[printable(shown[choice])], _TICK_LINE).replace("$", r"\$") for choice in choices]


def _heat_map(cells: Mapping[tuple[str, str], Sequence[float]], down: str, across: str, objective: str) -> Figure:
    """Draw the mean, number of jobs and deviation in each cell."""
    rows, columns = (_sort_values({cell[axis] for cell in cells}) for axis in (0, 1))
    means = np.array([[fmean(cells[row, column]) for column in columns] for row in rows])
    figure = Figure(figsize=(3.5 + 0.95 * len(columns), 2.2 + 0.6 * len(rows)), layout="constrained")
    axes: Axes = figure.subplots()
    title = "mean ± standard deviation" if any(len(values) > 1 for values in cells.values()) else ""
    picture = axes.imshow(means, cmap="viridis", aspect="auto", interpolation="none")
    figure.colorbar(picture, ax=axes, label=axis_label(objective))
    _name_ticks(axes, columns, 14)
    axes.set_yticks(range(len(rows)), _tick_labels(rows), fontsize=8)
    axes.set(xlabel=axis_label(across), ylabel=axis_label(down), title=title)
    middle = (means.min() + means.max()) / 2
    for (y, x), value in np.ndenumerate(means):
        values = cells[rows[y], columns[x]]
        spread = f"± {stdev(values):.4f}, " if len(values) > 1 else ""
        colour = "black" if value > middle else "white"
        for text, side, size in ((f"{value:.4f}", "bottom", 9), (f"{spread}n={len(values)}", "top", 7)):
            axes.text(x, y, text, ha="center", va=side, color=colour, fontsize=size)
    return figure


def importance_bars(found: Importance) -> Figure:
    """Draw the share of each key, and the remainder in grey."""
    shares, labels = list(found.shares.values()), list(map(axis_label, short_names(found.shares).values()))
    if found.rest:
        shares.append(max(1 - sum(shares), 0.0))
        labels.append(found.rest)
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes: Axes = figure.subplots()
    colours = ["cornflowerblue"] * len(found.shares) + ["lightgrey"]
    bars = axes.barh(range(len(shares)), shares, color=colours)
    axes.bar_label(bars, [f"{percent}%" for percent in found.percents[: len(shares)]], padding=3)
    axes.set_yticks(range(len(shares)), labels)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlim=(0, 1.08), title=f"What explains {axis_label(found.whole)}")
    return figure


def _sort_values(choices: set[str]) -> list[str]:
    """Sort numbers by size, then words by name."""
    return sorted(choices, key=lambda text: (as_numbers([text]) or [np.inf], text))
