"""Draw a run's figures, and list its model's answers in predictions.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.config.files import write_text
from mnist_exp.data.datasets import Data, Labels
from mnist_exp.figures import MARGINS, VALIDATION, ImageGrid, curves, escape_label, predictions, save, to_uint8
from mnist_exp.text import truncate
from mnist_exp.tracking.names import no_formula

if TYPE_CHECKING:
    import keras

_MISTAKES, _CLASSES = 40, 20  # drawn at most
_MAX_NAME_CHARS = 12


def write_results(history: Mapping[str, Sequence[float]], data: Data, model: "keras.Model", folder: Path) -> None:
    """Write `predictions.csv` and the figures of `draw_run` into a run's folder.

    Args:
        history: the values of each epoch by metric, epoch 1 first.
        data: with the test images that are predicted.
        model: takes raw images (N, ...), and returns probabilities (N, classes).
        folder: of the run.
    """
    from mnist_exp.training.training import predict  # imports Keras

    probabilities = predict(model, data.x_test)
    text = predictions_csv(data.y_test, probabilities, data.names, data.test_files)
    write_text(folder / "predictions.csv", text)
    save(draw_run(history, data, probabilities), folder / "figures")


def predictions_csv(
    labels: Labels, probabilities: npt.NDArray[np.float32], names: Sequence[str], files: Sequence[str] = ()
) -> str:
    """Return CSV with each test image's index, class, predicted class and probability.

    Args:
        labels: (N,) true labels.
        probabilities: (N, classes).
        names: the classes' names, by label.
        files: the N images' names, which get a column; empty for images that have none.
    """
    safe = [no_formula(name) for name in names]
    predicted, surest = probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", "probability", *(["file"] if files else [])])
    writer.writerows(
        [index, safe[label], safe[guess], f"{probability:.6f}", *map(no_formula, files[index : index + 1])]
        for index, (label, guess, probability) in enumerate(zip(labels.tolist(), predicted, surest, strict=True))
    )
    return text.getvalue()


def draw_run(
    history: Mapping[str, Sequence[float]], data: Data, probabilities: npt.NDArray[np.float32]
) -> dict[str, Figure | ImageGrid]:
    """Return a run's figures by name, with `mistakes` only if its model makes some.

    Args:
        history: values by metric, one an epoch.
        data: has the test images.
        probabilities: (N, classes), for the test images.
    """
    images, labels, predicted = to_uint8(data.x_test, data.maximum), data.y_test, probabilities.argmax(axis=1)
    drawn: dict[str, Figure | ImageGrid] = {
        "curves": curves(history, "test (watched)" if data.watches_test_set else "validation"),
        "predictions": predictions(images, labels, predicted, data.names),
        "confusion_matrix": confusion_matrix(labels, predicted, data.names),
        "classes": classes(labels, predicted, data.names),
    }
    if (predicted != labels).any():
        drawn["mistakes"] = mistakes(images, labels, probabilities, data.names, data.test_files)
    return drawn


def mistakes(
    images: npt.NDArray[Any],
    labels: Labels,
    probabilities: npt.NDArray[np.float32],
    names: Sequence[str],
    files: Sequence[str] = (),
) -> ImageGrid:
    """Return the 40 surest mistakes, the surest first.

    Each has its probability, true class and the end of the file's name.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to 255.
        labels: (N,) true labels; one at least is not the predicted one.
        probabilities: (N, classes).
        names: the classes' names, by label.
        files: the N images' names; empty for images that have none.
    """
    predicted, surest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-surest[wrong], kind="stable")][:_MISTAKES]
    captions = [
        f"{truncate(names[predicted[index]], 10)} {surest[index]:.3f}\n({truncate(names[labels[index]], 10)})"
        + "".join(f"\n{_end(file)}" for file in files[index : index + 1])
        for index in shown
    ]
    which = f"The {len(shown)} surest of {len(wrong)} mistakes" if len(shown) < len(wrong) else "All mistakes"
    title = f"{which} on {len(labels)} test images, with their probability (true label in brackets)"
    return ImageGrid(images[shown], captions, title, columns=10)


def _end(file: str) -> str:
    """Return the end of a file's name, in which numbered files differ."""
    name = file.rpartition("/")[2]
    return truncate(name if len(name) <= _MAX_NAME_CHARS else f"…{name[1 - _MAX_NAME_CHARS :]}", _MAX_NAME_CHARS)


def classes(labels: Labels, predicted: Labels, names: Sequence[str]) -> Figure:
    """Draw the accuracy of each class, the worst first, 20 at most.

    Args:
        labels: (N,), the true ones.
        predicted: (N,).
        names: of the classes, by label.
    """
    counts = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels[predicted == labels], minlength=len(names))
    shares = right / np.maximum(counts, 1)
    tested = np.flatnonzero(counts)
    shown = tested[np.argsort(shares[tested], kind="stable")][:_CLASSES]
    texts = [escape_label(names[label], 16) for label in shown]
    height, left = 0.9 + 0.28 * len(shown), 0.3 + 0.095 * max(map(len, texts))  # inches
    figure = Figure(figsize=(7, height))
    margins = {"left": left / 7, "right": 0.81, "bottom": 0.5 / height, "top": 1 - 0.4 / height}
    axes: Axes = figure.subplots(gridspec_kw=margins)
    axes.barh(range(len(shown)), shares[shown], color=VALIDATION)
    for place, label in enumerate(shown):
        axes.text(1.015, place, f"{shares[label]:.1%} of {counts[label]}", va="center")
    accuracy = float((labels == predicted).mean())
    axes.axvline(accuracy, color="black", linewidth=1, linestyle=":")
    which = "each class" if len(shown) == len(tested) else f"the worst {len(shown)} of {len(tested)} classes"
    axes.set(title=f"Test set: accuracy of {which}", xlim=(0, 1))
    axes.set_yticks(range(len(shown)), texts)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"accuracy (dotted: of all test images, {accuracy:.2%})")
    return figure


def confusion_matrix(labels: Labels, predicted: Labels, names: Sequence[str]) -> Figure:
    """Draw the confusion matrix, coloured by the share of each true label.

    Args:
        labels: the true classes (N,), from 0.
        predicted: the same of the model.
        names: of the classes, in order.
    """
    size, texts = len(names), [escape_label(name, 16) for name in names]
    counts = np.bincount(labels * size + predicted, minlength=size**2).reshape(size, size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wide = size <= 20 and max(map(len, texts)) > 3  # a constrained layout finds room for names
    figure = Figure(figsize=(7.5, 6.8), layout="constrained") if wide else Figure(figsize=(6.5, 5.8))
    axes: Axes = figure.subplots(gridspec_kw=None if wide else MARGINS | {"left": 0.1, "right": 1.0})
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true label")
    accuracy = float((labels == predicted).mean())
    axes.set(xlabel="predicted", ylabel="true", title=f"Test set: {accuracy:.2%} right")
    if size <= 20:
        axes.set_xticks(range(size), texts, rotation=90 if wide else 0)
        axes.set_yticks(range(size), texts)
        style: dict[str, Any] = {"ha": "center", "va": "center", "size": max(8, 16 - size)}
        for true, guess in np.argwhere(counts):
            colour = "white" if shares[true, guess] > 0.5 else "black"
            axes.text(guess, true, str(counts[true, guess]), color=colour, **style)
    return figure
