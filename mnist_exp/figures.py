"""Draw figures with matplotlib.

Importing pyplot takes longer than drawing, so it is left out.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mnist_exp.config.files import replacing
from mnist_exp.text import truncate

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # announces its cache once

# Each run draws its figures with these; a constrained layout, which finds its own, draws twice.
MARGINS = {"right": 0.98, "bottom": 0.12, "top": 0.91, "wspace": 0.18}
_TRAINING, VALIDATION, _WRONG = "black", "cornflowerblue", "crimson"
_CREATOR = ("Creator", "mnist_exp")  # metadata, by which `check_plot` knows a file that may be replaced


def save(drawn: Mapping[str, "Figure | ImageGrid"], folder: Path) -> None:
    """Write each figure as NAME.png into `folder`.

    Quick packing costs a tenth more bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        with replacing(folder / f"{name}.png") as new:
            if isinstance(figure, ImageGrid):
                text = PngInfo()
                text.add_text(*_CREATOR)
                figure.draw().save(new, compress_level=1, pnginfo=text)
            else:
                write(figure, new, pil_kwargs={"compress_level": 1})


def write(figure: Figure, to: Path | IO[str], **options: Any) -> None:
    """Write a figure, with boxes for letters that matplotlib's fonts lack.

    Letters are not fitted to pixels, which would take a sixth of the time.
    """
    options = {"metadata": dict([_CREATOR])} | options
    with warnings.catch_warnings(), matplotlib.rc_context({"text.hinting": "none"}):
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(to, dpi=120, **options)


def curves(history: Mapping[str, Sequence[float]], validation_name: str) -> Figure:
    """Draw the loss, the first metric, and a changing learning rate over epochs.

    `history` has a value per epoch for each; those with `val_` are measured on the data that `validation_name` names.
    """
    names = [name for name in history if f"val_{name}" in history][:2]
    names.sort(key=lambda name: name != "loss")
    names += ["learning_rate"] * ("learning_rate" in history)
    figure = Figure(figsize=(5 * len(names), 4))
    grid = figure.subplots(1, len(names), gridspec_kw=MARGINS | {"left": 0.6 / (5 * len(names))})
    for axes, name in zip(np.atleast_1d(grid), names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) <= 30 else None
        axes.plot(epochs, history[name], color=_TRAINING, label="training", marker=marker, markersize=3)
        if (validated := history.get(f"val_{name}")) is not None:
            axes.plot(epochs, validated, color=VALIDATION, label=validation_name, marker=marker, markersize=3)
            axes.legend()
        axes.set(title=axis_label(name.replace("_", " ")), xlabel="epoch")
        epoch_ticks(axes, len(epochs))
        axes.grid(alpha=0.4)
    return figure


def epoch_ticks(axes: Axes, epochs: int) -> None:
    """Give each of up to 20 epochs a tick, else the first and round ones."""
    round_ones = MaxNLocator(10, integer=True).tick_values(1, epochs)
    axes.set_xticks(range(1, epochs + 1) if epochs <= 20 else [1, *(tick for tick in round_ones if 1 < tick <= epochs)])
    axes.tick_params("x", labelsize=8 if epochs > 12 else 10)


def axis_label(text: str) -> str:
    """Return a label in at most 60 characters, without line breaks and formulas."""
    return escape_label(" ".join(text.split()), 60)


def escape_label(name: str, most: int) -> str:
    """Cut a label to `most` characters, and escape formulas of matplotlib."""
    return truncate(name, most).replace("$", r"\$")


def to_uint8(images: npt.NDArray[np.generic], maximum: float = 255.0) -> npt.NDArray[np.uint8]:
    """Return raw images of 0 to `maximum` as bytes.

    Images are (..., height, width) or (N, height, width, channels). Of two channels the first is kept, of four the
    first three.
    """
    channels = {2: 1, 4: 3}.get(images.shape[-1]) if images.ndim > 3 else None
    shown = images if channels is None else images[..., :channels]
    if shown.dtype == np.uint8 and maximum == 255:
        return shown.astype(np.uint8, copy=False)
    scaled: npt.NDArray[np.float32] = np.asarray(shown, np.float32) * np.float32(255 / maximum)
    return np.rint(scaled).astype(np.uint8)


def image(pixels: npt.NDArray[np.uint8], label: int | str) -> Figure:
    """Draw one image, enlarged, with its label in a corner.

    It is (height, width) or (height, width, channels), 0 to 255.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes: Axes = figure.subplots()
    _show(axes, _invert(pixels))
    name = escape_label(str(label), 24)
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
    """Draw the first images of up to 20 classes, beside any augmented forms.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to `maximum`.
        labels: (N,), from 0.
        names: of the classes, in order.
        augment: returns an augmented form of some images.
        maximum: of a pixel, white.
    """
    shown, each = min(len(names), 20), 10 if augment is None else 5
    chosen = [np.flatnonzero(labels == label)[:each] for label in range(shown)]
    picked = images[np.concatenate(chosen)]
    raw = to_uint8(picked, maximum)
    kinds = [_invert(raw)]
    if augment is not None:
        augmented = to_uint8(np.clip(np.asarray(augment(picked)), 0, maximum), maximum)
        kinds.append(_invert(augmented, raw))
    height, width, *channels = kinds[0].shape[1:]
    columns = each * len(kinds)
    sheet = np.full((shown, each, height, len(kinds) * width, *channels), 255, np.uint8)
    sheet[np.arange(each) < [[len(found)] for found in chosen]] = np.concatenate(kinds, axis=2)
    figure = Figure(figsize=(0.6 * columns + 1, 0.6 * shown * height / width + 0.8), layout="constrained")
    axes: Axes = figure.subplots()
    _show(axes, sheet.swapaxes(1, 2).reshape(shown * height, columns * width, *channels))
    axes.set_yticks(height * (np.arange(shown) + 0.5) - 0.5, [escape_label(name, 16) for name in names[:shown]])
    axes.tick_params(length=0)
    axes.set(xticks=[], ylabel="label")
    classes_shown = "each class" if shown == len(names) else f"the first {shown} of {len(names)} classes"
    beside = "" if augment is None else ",\nto the right of each as it may be augmented for training"
    axes.set_title(f"Training images of {classes_shown}{beside}", fontsize=11)
    if augment is not None:
        for column in range(2, columns, 2):
            axes.axvline(column * width - 0.5, color=VALIDATION, linewidth=1)
    return figure


def draw_predictions(images: npt.NDArray[Any], titles: Sequence[str], names: Sequence[str]) -> Figure:
    """Draw images as a model saw them, each with a title and a name.

    Args:
        images: (N, height, width) or (N, height, width, channels), uint8.
        titles: N, such as "7 (98 %)".
        names: N, such as the names of files.
    """
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2 * columns, 2.5 * rows), layout="constrained")
    for place, (image, title, name) in enumerate(zip(images, titles, names, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _show(axes, image)
        axes.set_title(escape_label(title, 24), fontsize=11)
        axes.set_xlabel(axis_label(name), fontsize=8)
        axes.set(xticks=[], yticks=[])
    return figure


def _show(axes: Axes, pixels: npt.NDArray[Any]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _invert(images: npt.NDArray[Any], before: npt.NDArray[Any] | None = None) -> npt.NDArray[np.uint8]:
    """Invert grey images on black, as MNIST's, for ink on paper reads better.

    They are on black if most pixels at the edges were 0 `before` they were augmented. Images may have a last axis of
    length 3, for colours, which are left as they are, or 1, which is dropped.
    """
    if images.shape[-1] == 3:
        return images
    pair = (images, images if before is None else before)
    grey, raw = (array[..., 0] if array.shape[-1] == 1 else array for array in pair)
    edges = (raw[..., 0, :], raw[..., -1, :], raw[..., 0], raw[..., -1])
    on_black = np.median(np.concatenate([edge.reshape(-1) for edge in edges])) == 0
    return np.asarray(255 - grey if on_black else grey)


def predictions(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    names: Sequence[str],
) -> "ImageGrid":
    """Draw the first 96 test images with their predicted labels.

    Wrong ones are framed, and have the true label in brackets.

    Args:
        images: (N, height, width) or (N, height, width, channels), 0 to 255.
        labels: (N,), the true ones.
        predicted: (N,).
        names: of the classes, by label.
    """
    images, captions = images[:96], []
    wrong = (predicted[:96] != labels[:96]).tolist()
    for index in range(len(images)):
        text, true = (truncate(names[label], 12) for label in (predicted[index], labels[index]))
        if wrong[index]:
            text = f"{text} ({true})" if len(text) + len(true) < 8 else f"{text}\n({true})"
        captions.append(text)
    title = f"First {len(images)} test images and their predictions; {sum(wrong)} wrong (true label in brackets)"
    return ImageGrid(images, captions, title, columns=12, framed=wrong)


@dataclass(frozen=True)
class ImageGrid:
    """Images in rows, each with one to three lines of caption.

    `framed` ones are marked in red.
    `images` are (N, height, width) or (N, height, width, channels), 0 to 255.
    """

    images: npt.NDArray[Any]
    captions: Sequence[str]
    title: str
    columns: int
    framed: Sequence[bool] = ()

    def draw(self) -> Image.Image:
        """Return a picture 1,080 pixels wide.

        It takes a fifth of the time that matplotlib needs for as many texts.
        """
        papers, cell = _invert(self.images).astype(np.uint8, copy=False), 1080 // self.columns
        width = round(cell / 1.15)
        height = max(1, round(width * papers.shape[1] / papers.shape[2]))
        below = 18 * max(2, *(text.count("\n") + 1 for text in self.captions))
        rows = -(-len(papers) // self.columns)
        picture = Image.new("RGB", (1080, 42 + rows * (height + below)), "white")
        pen = ImageDraw.Draw(picture)
        pen.text((540, 21), self.title, "black", _font(20), "mm")
        framed = self.framed or [False] * len(papers)
        for index, (pixels, text, marked) in enumerate(zip(papers, self.captions, framed, strict=True)):
            left = index % self.columns * cell + (cell - width) // 2
            top = 42 + index // self.columns * (height + below)
            shown = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
            picture.paste(shown, (left, top))
            colour = _WRONG if marked else "black"
            longest = max(1, *map(len, text.split("\n")))
            font = _font(min(15, int(1.48 * cell / longest)), bold=marked)  # the text is as wide as an image
            middle = (left + width / 2, top + height + below / 2)
            pen.text(middle, text, colour, font, "mm", align="center")
            if marked:
                pen.rectangle((left, top, left + width, top + height), outline=_WRONG, width=2)
        return picture


@cache
def _font(pixels: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font, in which letters that it lacks are boxes."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)
