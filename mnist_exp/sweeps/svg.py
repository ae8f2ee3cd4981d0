"""Curves and bars as inline SVG, whose letters keep their size on a narrow screen. page.css has their colours."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnist_exp.errors import printable
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.formats import decimals

NAMED = 8  # curves in colour, as many as there are colours
DRAWN, _POINTS = 200, 120  # curves, and points of each: more would make the page larger, and could not be seen
_SIDE = 1000  # of the square that curves are drawn in, which the page stretches


@dataclass(frozen=True)
class _Frame:
    """What the axes span: epochs from 1, and values."""

    epochs: int
    low: float
    high: float

    def point(self, epoch: int, value: float) -> str:
        """Return the place of a value in an epoch; of one far outside, a place as far outside as is needed."""
        x = (epoch - 1) / (self.epochs - 1) if self.epochs > 1 else 0.5
        y = (self.high - value) / (self.high - self.low)
        return f"{round(_SIDE * x)} {round(_SIDE * min(max(y, -3), 4))}"


def escaped(text: str) -> str:
    r"""Return a text as HTML that shows it, whatever it says.

    >>> escaped("<b>wrong\x1b[2J")
    '&lt;b&gt;wrong?[2J'
    """
    return html.escape(printable(text))


def lines(curves: Sequence[Curve], metric: str) -> str:
    """Return a metric over epochs: the first curves in colour, grey behind them up to 200 in all, ticks and labels.

    Args:
        curves: best first; without a finite value among those in colour, nothing is returned.
        metric: its name.
    """
    named, others = curves[:NAMED], curves[NAMED:DRAWN]
    frame = _frame(named, others)
    if frame is None:
        return ""
    grey = [f'<path class="other" d="{_path(frame, one.mean)}">{_title(one)}</path>' for one in others]
    coloured = []
    for number, one in enumerate(named, start=1):
        line = _path(frame, one.mean)
        coloured.append(
            f'<g class="c{number}">{_title(one)}<path class="band" d="{_band(frame, one)}"/>'
            f'<path class="line" d="{line}"/><path class="reach" d="{line}"/></g>'
        )
    drawn = "".join([*reversed(grey), *reversed(coloured)])  # the best lies on top
    kind = "plot dots" if frame.epochs == 1 else "plot"
    return (
        f'<svg class="{kind}" role="img" aria-labelledby="curves-caption">{_axes(frame, metric)}'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" width="100%" height="100%">{drawn}</svg></svg>'
    )


def bars(shares: Mapping[str, float]) -> str:
    """Return a bar a parameter as SVG, the longest first.

    Args:
        shares: of the variance, by parameter, 0 to 1; what is not a number counts as 0.
    """
    clipped = {name: min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0 for name, share in shares.items()}
    bottom = 48 * len(clipped)
    drawn = [
        f'<line class="grid" x1="{tick}%" x2="{tick}%" y1="0" y2="{bottom}"/>'
        f'<text class="tick" x="{tick}%" y="{bottom + 20}" text-anchor="middle">{tick} %</text>'
        for tick in range(0, 101, 25)
    ]
    for place, (name, share) in enumerate(sorted(clipped.items(), key=lambda item: -item[1])):
        drawn.append(
            f'<text y="{48 * place + 18}">{_short(name)}<title>{escaped(name)}</title></text>'
            f'<rect class="bar" y="{48 * place + 25}" width="{100 * share:.1f}%" height="12" rx="2"/>'
            f'<text class="share" x="{100 * share:.1f}%" dx="8" y="{48 * place + 36}">{100 * share:.0f} %</text>'
        )
    return (
        f'<svg class="bars" height="{bottom + 28}" role="img" aria-labelledby="importance-caption">'
        f"{''.join(drawn)}</svg>"
    )


def _frame(named: Sequence[Curve], others: Sequence[Curve]) -> _Frame | None:
    """Return a frame around the named curves, higher for the others by up to its height: one that diverged would
    flatten all."""
    values = [value for one in named for part in (one.mean, one.low, one.high) for value in part if _is_drawn(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    height = (high - low) or abs(high) / 10 or 1.0
    values += [value for one in others for value in one.mean if _is_drawn(value)]
    low, high = max(min(values), low - height), min(max(values), high + height)
    margin = (high - low) / 25 or height / 2
    return _Frame(max(len(one.mean) for one in (*named, *others)), low - margin, high + margin)


def _is_drawn(value: float) -> bool:
    return abs(value) < 1e100  # no NaN is, either


def _path(frame: _Frame, values: Sequence[float]) -> str:
    """Return a path through the values, with a gap where one is not finite; `h0` makes a dot of what stands alone."""
    path, pen = [], "M"
    for index in _indices(len(values)):
        if _is_drawn(values[index]):
            path.append(f"{pen}{frame.point(index + 1, values[index])}{'h0' if pen == 'M' else ''}")
            pen = "L"
        else:
            pen = "M"
    return "".join(path)


def _band(frame: _Frame, curve: Curve) -> str:
    """Return the area between the lowest and the highest; empty where a value is not finite or there is no area."""
    if list(curve.low) == list(curve.high) or not all(map(_is_drawn, [*curve.low, *curve.high])):
        return ""
    there = [frame.point(index + 1, curve.high[index]) for index in _indices(len(curve.high))]
    back = [frame.point(index + 1, curve.low[index]) for index in reversed(_indices(len(curve.low)))]
    return f"M{'L'.join([*there, *back])}Z"


def _indices(count: int) -> Sequence[int]:
    """Return the places of the points that are drawn of so many, first and last among them."""
    return range(count) if count <= _POINTS else [round(i * (count - 1) / (_POINTS - 1)) for i in range(_POINTS)]


def _axes(frame: _Frame, metric: str) -> str:
    """Return grid, ticks and labels, placed in percent of the plot."""
    parts = [f'<text x="0" y="-14">{_short(metric)}</text>', '<text x="100%" y="100%" dy="42" class="end">epoch</text>']
    for label, value in _ticks(frame.low, frame.high):
        y = f"{100 * (frame.high - value) / (frame.high - frame.low):.2f}%"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="-10" y="{y}" dy="4">{label}</text>')
    for label, epoch in _ticks(1, frame.epochs, least=1.0):
        x = f"{100 * (epoch - 1) / (frame.epochs - 1) if frame.epochs > 1 else 50:.2f}%"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="100%" y2="101.5%"/>')
        parts.append(f'<text class="tick" x="{x}" y="100%" dy="22" text-anchor="middle">{label}</text>')
    return "".join([*parts, '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'])


def _ticks(low: float, high: float, least: float = 0.0) -> list[tuple[str, float]]:
    """Return at most seven round numbers between two, with their labels; they are apart by at least `least`.

    >>> [label for label, _ in _ticks(0.83, 0.97)], [label for label, _ in _ticks(1, 10, least=1.0)]
    (['0.85', '0.90', '0.95'], ['2', '4', '6', '8', '10'])
    """
    apart = max((high - low) / 6, least)
    power = 10.0 ** math.floor(math.log10(apart))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= apart * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f".{digits}f" if step > 1e-5 and abs(high) < 1e6 else ".4g"
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(f"{number * step:{form}}", number * step) for number in numbers]


def _title(curve: Curve) -> str:
    """Return what a line shows when a mouse rests on it."""
    return f"<title>{escaped(curve.name)}: {last(curve.mean)}, epoch {len(curve.mean)}</title>"


def last(values: Sequence[float]) -> str:
    """Return the last value of a curve, as tables show it; empty for none."""
    return decimals(values[-1]) if values else ""


def _short(text: str) -> str:
    """Return a text, in HTML, in at most 40 characters: SVG breaks no lines."""
    return escaped(text if len(text) <= 40 else f"{text[:39]}…")
