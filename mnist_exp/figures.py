"""Pictures of a run: data in, matplotlib Figure out. Nothing here reads files or knows MLflow.

Figures are made without pyplot, whose start-up costs more than drawing them.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # says once a machine that it makes a cache

_TRAINING, _VALIDATION, _WRONG = "black", "cornflowerblue", "crimson"


def curves(history: Mapping[str, Sequence[float]], validation_name: str) -> Figure:
    """Loss and the first metric over epochs, side by side; the baseline's colours.

    Args:
        history: one value an epoch, for `loss`, a metric, and both with `val_`; without a metric, the loss alone.
        validation_name: what the `val_` values were measured on, for the legend.
    """
    names = [name for name in history if f"val_{name}" in history][:2]
    names.sort(key=lambda name: name != "loss")
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) <= 30 else None
        axes.plot(epochs, history[name], color=_TRAINING, label="training", marker=marker, markersize=3)
        axes.plot(epochs, history[f"val_{name}"], color=_VALIDATION, label=validation_name, marker=marker, markersize=3)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs) == 1:
            axes.set_xticks([1])
        axes.grid(alpha=0.4)
        axes.legend()
    return figure


def predictions(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> Figure:
    """The first 96 test images with their predicted label; a wrong one is framed, its true label in brackets.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to 255.
        labels: (N,) true labels.
        predicted: (N,) predicted labels.
    """
    columns = 12
    shown = min(96, len(images))
    rows = -(-shown // columns)
    height, width = images.shape[1:3]
    channels = images.shape[3:] if images.shape[3:] != (1,) else ()
    cell_height, cell_width = round(height * 1.45), round(width * 1.15)
    sheet = np.full((rows * cell_height, columns * cell_width, *channels), 255, np.uint8)
    figure = Figure(figsize=(columns * 0.75, rows * 0.75 * cell_height / cell_width + 0.4), layout="constrained")
    axes: Axes = figure.subplots()
    for index in range(shown):
        top, left = index // columns * cell_height, index % columns * cell_width
        image = images[index].reshape(height, width, *channels)
        # Greyscale sets are bright on black, as MNIST; ink on paper is easier to read.
        sheet[top : top + height, left : left + width] = image if channels else 255 - image
        wrong = predicted[index] != labels[index]
        text = f"{predicted[index]} ({labels[index]})" if wrong else str(predicted[index])
        axes.text(
            left + width / 2,
            top + height + (cell_height - height) / 2,
            text,
            color=_WRONG if wrong else "black",
            fontsize=9,
            fontweight="bold" if wrong else "normal",
            ha="center",
            va="center",
        )
        if wrong:
            corners = ([left, left + width, left + width, left, left], [top, top, top + height, top + height, top])
            axes.plot(*corners, color=_WRONG, linewidth=1.5)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    wrong_count = int((predicted[:shown] != labels[:shown]).sum())
    axes.set_title(f"First {shown} test images and their predictions; {wrong_count} wrong (true label in brackets)")
    axes.axis("off")
    return figure


def confusion_matrix(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Figure:
    """How often each true label was predicted as which, coloured by its share of the true label; with counts.

    Args:
        labels: (N,) true labels.
        predicted: (N,) predicted labels.
        classes: the number of labels.
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.5, 5.8), layout="constrained")
    axes: Axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true label")
    accuracy = float((labels == predicted).mean())
    axes.set(xlabel="predicted", ylabel="true", title=f"Test set: {accuracy:.2%} right")
    if classes <= 20:
        axes.set(xticks=range(classes), yticks=range(classes))
        for true, predicted_as in np.ndindex(classes, classes):
            if counts[true, predicted_as]:
                colour = "white" if shares[true, predicted_as] > 0.5 else "black"
                axes.text(
                    predicted_as,
                    true,
                    str(counts[true, predicted_as]),
                    ha="center",
                    va="center",
                    color=colour,
                    size=max(8, 16 - classes),
                )
    return figure
