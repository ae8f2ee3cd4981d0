"""Pictures: data in, matplotlib Figure out. Nothing here reads a file or knows MLflow.

Figures are made without pyplot, whose start-up costs more than drawing them.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.errors import printable

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # announces its cache once on each machine

# For the figures that each run draws: a constrained layout, which finds its own margins, draws twice.
MARGINS = {"right": 0.98, "bottom": 0.12, "top": 0.91, "wspace": 0.18}
_TRAINING, VALIDATION, _WRONG = "black", "cornflowerblue", "crimson"


def save(drawn: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as NAME.png into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        write(figure, folder / f"{name}.png")


def write(figure: Figure, to: Path | IO[str], **options: Any) -> None:
    """Write a figure; letters that no font of matplotlib's has become boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(to, dpi=120, **options)


def curves(history: Mapping[str, Sequence[float]], validation_name: str) -> Figure:
    """Draw loss and the first metric over epochs, side by side, in the baseline's colours; and a rate that changes.

    Args:
        history: one value an epoch, for `loss`, a metric, and both with `val_`; without a metric, the loss alone.
            `learning_rate` is there only where it changes.
        validation_name: what the `val_` values were measured on, for the legend.
    """
    names = [name for name in history if f"val_{name}" in history][:2]
    names.sort(key=lambda name: name != "loss")
    names += [name for name in history if name == "learning_rate"]
    figure = Figure(figsize=(5 * len(names), 4))
    grid = figure.subplots(1, len(names), gridspec_kw=MARGINS | {"left": 0.6 / (5 * len(names))})
    for axes, name in zip(np.atleast_1d(grid), names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) <= 30 else None
        axes.plot(epochs, history[name], color=_TRAINING, label="training", marker=marker, markersize=3)
        if (validated := history.get(f"val_{name}")) is not None:
            axes.plot(epochs, validated, color=VALIDATION, label=validation_name, marker=marker, markersize=3)
            axes.legend()
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        epoch_ticks(axes, len(epochs))
        axes.grid(alpha=0.4)
    return figure


def epoch_ticks(axes: Axes, epochs: int) -> None:
    """Give each of up to 20 epochs a tick, 1 to `epochs`; of more, the first and round ones."""
    round_ones = MaxNLocator(10, integer=True).tick_values(1, epochs)
    axes.set_xticks(range(1, epochs + 1) if epochs <= 20 else [1, *(one for one in round_ones if 1 < one <= epochs)])
    axes.tick_params("x", labelsize=8 if epochs > 12 else 10)


def plain(text: str) -> str:
    """Return a label of bearable length, in which matplotlib finds no formula."""
    return short(" ".join(text.split()), 60)


def short(name: str, most: int) -> str:
    """Return a text in at most so many characters."""
    shown = printable(name)
    return (shown if len(shown) <= most else f"{shown[: most - 1]}…").replace("$", r"\$")


def pictures(images: npt.NDArray[np.generic], maximum: float = 255.0) -> npt.NDArray[np.uint8]:
    """Return raw images as they are shown: bytes, grey or in three colours.

    Two channels become the first of them, four the first three.

    Args:
        images: (..., height, width) or (..., height, width, channels), 0 to `maximum`.
        maximum: the value of a white pixel.
    """
    channels = {2: 1, 4: 3}.get(images.shape[-1]) if images.ndim > 3 else None
    shown = images if channels is None else images[..., :channels]
    if shown.dtype == np.uint8 and maximum == 255:
        return shown.astype(np.uint8, copy=False)
    scaled: npt.NDArray[np.float32] = np.asarray(shown, np.float32) * np.float32(255 / maximum)
    return np.rint(scaled).astype(np.uint8)


def image(pixels: npt.NDArray[np.uint8], label: int | str) -> Figure:
    """Draw one image enlarged, a square for each pixel, with its label in the lower right corner.

    Args:
        pixels: (height, width) or (height, width, channels), 0 to 255.
        label: its label, or its name.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes: Axes = figure.subplots()
    _show(axes, _on_paper(pixels, pixels))
    name = short(str(label), 24)
    size = 40 if len(name) <= 3 else 28 - len(name) / 2
    axes.text(0.97, 0.03, name, fontsize=size, color=VALIDATION, ha="right", va="bottom", transform=axes.transAxes)
    axes.set(xlabel=f"{pixels.shape[1]} pixels", ylabel=f"{pixels.shape[0]} pixels")
    return figure


def samples(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    augment: Callable[[npt.NDArray[Any]], Any] | None = None,
    maximum: float = 255.0,
) -> Figure:
    """Draw the first images of up to 20 classes, a row for each class; beside each image its augmented form, if any.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to `maximum`.
        labels: (N,) their labels.
        names: of the classes.
        augment: changes images as training does; None for none.
        maximum: the value of a white pixel.
    """
    shown, each = min(len(names), 20), 10 if augment is None else 5
    chosen = [np.flatnonzero(labels == label)[:each] for label in range(shown)]
    picked = images[np.concatenate(chosen)]
    plain_ones = pictures(picked, maximum)
    kinds = [_on_paper(plain_ones, plain_ones)]
    if augment is not None:
        augmented = pictures(np.clip(np.asarray(augment(picked)), 0, maximum), maximum)
        kinds.append(_on_paper(augmented, plain_ones))
    height, width, *channels = kinds[0].shape[1:]
    sheet = np.full((shown, height, each, len(kinds), width, *channels), 255, np.uint8)
    places = [(label, column) for label, found in enumerate(chosen) for column in range(len(found))]
    for (label, column), side_by_side in zip(places, np.stack(kinds, axis=2), strict=True):
        sheet[label, :, column] = side_by_side
    columns = each * len(kinds)
    figure = Figure(figsize=(0.6 * columns + 1, 0.6 * shown * height / width + 0.8), layout="constrained")
    axes: Axes = figure.subplots()
    rows = sheet.reshape(shown * height, columns * width, *channels)
    _show(axes, rows)
    axes.set_yticks([height * (label + 0.5) - 0.5 for label in range(shown)], [short(one, 16) for one in names[:shown]])
    axes.tick_params(length=0)
    axes.set(xticks=[], ylabel="label")
    classes_shown = "each class" if shown == len(names) else f"the first {shown} of {len(names)} classes"
    beside = "" if augment is None else ",\nto the right of each as it may be augmented for training"
    axes.set_title(f"Training images of {classes_shown}{beside}", fontsize=11)
    for column in range(len(kinds), columns, len(kinds)) if augment is not None else ():
        axes.axvline(column * width - 0.5, color=VALIDATION, linewidth=1)
    return figure


def seen(images: npt.NDArray[Any], titles: Sequence[str], names: Sequence[str]) -> Figure:
    """Draw images as a model saw them, bright on black, each with a title above and a name below.

    Args:
        images: as `pictures` returns them.
        titles: N texts.
        names: N texts.
    """
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2 * columns, 2.5 * rows), layout="constrained")
    for place, (image, title, name) in enumerate(zip(images, titles, names, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _show(axes, image)
        axes.set_title(short(title, 24), fontsize=11)
        axes.set_xlabel(plain(name), fontsize=8)
        axes.set(xticks=[], yticks=[])
    return figure


def _show(axes: Axes, pixels: npt.NDArray[Any]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _on_paper(images: npt.NDArray[Any], before: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return grey images that are bright on black, as MNIST's, as ink on paper, which is easier to read; others as is.

    A last axis of length 1 is left out.

    Args:
        images: (..., height, width) or (..., height, width, 1 or 3), 0 to 255.
        before: the same images before they were augmented; they are on black if most pixels of their edges are 0.
    """
    if images.shape[-1] == 3:
        return images
    grey, plain_ones = (one[..., 0] if one.shape[-1] == 1 else one for one in (images, before))
    edges = (plain_ones[..., 0, :], plain_ones[..., -1, :], plain_ones[..., 0], plain_ones[..., -1])
    on_black = np.median(np.concatenate([edge.reshape(-1) for edge in edges])) == 0
    return np.asarray(255 - grey if on_black else grey)


def predictions(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    names: Sequence[str],
) -> Figure:
    """Draw the first 96 test images with their predicted label; a wrong one is framed, its true label in brackets.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to 255.
        labels: (N,) true labels.
        predicted: (N,) predicted labels.
        names: of the classes.
    """
    shown, captions = min(96, len(images)), []
    wrong = predicted[:shown] != labels[:shown]
    for index in range(shown):
        text, true = (short(names[label], 12) for label in (predicted[index], labels[index]))
        if wrong[index]:
            text = f"{text} ({true})" if len(text) + len(true) < 8 else f"{text}\n({true})"
        captions.append(text)
    title = f"First {shown} test images and their predictions; {wrong.sum()} wrong (true label in brackets)"
    return sheet(images[:shown], captions, title, columns=12, framed=wrong)


def sheet(
    images: npt.NDArray[Any],
    captions: Sequence[str],
    title: str,
    *,
    columns: int,
    framed: npt.NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw images in rows, each with a caption of one or two lines below it.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to 255.
        captions: N texts.
        title: of the whole.
        columns: images in a row.
        framed: (N,) whether an image has a frame, and its caption the same colour; None for none.
    """
    rows = -(-len(images) // columns)
    papers = _on_paper(images, images)
    height, width, *channels = papers.shape[1:]
    inches, cell_width = 9 / columns, round(width * 1.15)
    cell_height = height + round(0.3 * cell_width / inches)  # 0.3 inches for two lines
    pixels = np.full((rows * cell_height, columns * cell_width, *channels), 255, np.uint8)
    tall = rows * inches * cell_height / cell_width + 0.4
    figure = Figure(figsize=(9, tall))
    axes: Axes = figure.subplots(gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.35 / tall})
    for index, text in enumerate(captions):
        top, left = index // columns * cell_height, index % columns * cell_width
        pixels[top : top + height, left : left + width] = papers[index]
        marked = framed is not None and framed[index]
        axes.text(
            left + width / 2,
            top + height + (cell_height - height) / 2,
            text,
            color=_WRONG if marked else "black",
            fontsize=min(9, 107 * inches / max(map(len, text.split("\n")))),  # as wide as an image
            fontweight="bold" if marked else "normal",
            ha="center",
            va="center",
        )
        if marked:
            corners = ([left, left + width, left + width, left, left], [top, top, top + height, top + height, top])
            axes.plot(*corners, color=_WRONG, linewidth=1.5)
    _show(axes, pixels)
    axes.set_title(title)
    axes.axis("off")
    return figure
