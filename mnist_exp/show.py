"""Look at the data of an experiment: `python -m mnist_exp.show`."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_exp import commands
from mnist_exp.config.backend import choose_backend
from mnist_exp.config.composition import compose
from mnist_exp.config.files import replacing
from mnist_exp.data.array_files import PARTS
from mnist_exp.data.datasets import Data, read
from mnist_exp.data.metadata import write_metadata
from mnist_exp.errors import InputError
from mnist_exp.text import printable, say, wrap_text
from mnist_exp.training.split import split

if TYPE_CHECKING:
    from mnist_exp.training.preprocessing import Preprocessor

_EXAMPLES = """\
  python -m mnist_exp.show --index 7
  python -m mnist_exp.show dataset=keras dataset.name=fashion_mnist
  python -m mnist_exp.show experiment=best
  python -m mnist_exp.show --save mnist_raw.npz
"""
_LABELS_A_LINE = 10  # labels in a line


def main() -> None:
    """Print and draw the data of an experiment.

    Exit with 1 and one message after bad input.
    """
    about = "Print and draw the data: its arrays, one image, and what the model gets for it."
    parser = commands.parser("show", about, _EXAMPLES)
    parser.add_argument("overrides", nargs="*", help="what to change, as for a run: dataset=npz dataset.path=FILE")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="read presets of your own from this folder")
    about_index = "the training image to show, from 0, counted before any is held out"
    parser.add_argument("--index", type=int, default=0, metavar="N", help=about_index)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the arrays to a new npz file, for dataset=npz")
    about_output = "folder for pictures; default: %(default)s"
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("outputs/show"), help=about_output)
    given = parser.parse_intermixed_args()
    with commands.exit_on_errors():
        _show(given)


def _show(given: argparse.Namespace) -> None:
    if number := next(filter(str.isdecimal, given.overrides), ""):
        raise InputError(f"{number}: no KEY=VALUE; --index {number} shows the image of that number")
    config = compose(given.overrides, given.config_dir).config
    choose_backend(config.backend)
    data = read(config.dataset)
    held_out = split(data, config.dataset)
    index, save = given.index, given.save
    if not 0 <= index < len(data.x_train):
        raise InputError(f"--index {index}: must be from 0 to {len(data.x_train) - 1}, the last training image")
    drawn = [given.output / f"{name}.png" for name in (f"image-{index}", "samples")]
    for path in drawn:
        commands.check_drawn(path, f"--output {given.output}: {path.name}")
    if save is not None:
        _save(data, save)
    say(f"{data.name} from {data.source}, digest {data.digest}")
    print(_arrays(held_out))
    pixels, label = data.x_train[index], int(data.y_train[index])
    name = "" if data.names[label] == str(label) else f" ({printable(data.names[label])})"
    print(f"\nTraining image {index}, label {label}{name}:")
    print(_numbers(pixels, shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize))
    from mnist_exp import figures
    from mnist_exp.training import models  # imports TensorFlow, after the data is printed
    from mnist_exp.training.preprocessing import fit_preprocessor

    preprocessor = fit_preprocessor(config.preprocessing, held_out)
    print(_describe(preprocessor, pixels, label))
    models.set_seed(config.seed)
    augment = models.augmentation_model(config.preprocessing.augment, pixels.shape, preprocessor.raw)
    image = figures.image(figures.to_uint8(pixels[None], data.maximum)[0], data.names[label])
    samples = figures.samples(data.x_train, data.y_train, data.names, augment, data.maximum)
    try:
        figures.save({drawn[0].stem: image, drawn[1].stem: samples}, given.output)
    except OSError as error:
        raise InputError(f"--output {given.output}: cannot be written ({error})") from error
    say(f"Pictures: {', '.join(map(str, drawn))}")
    if save is not None:
        say(f"Arrays in {save}; read them with dataset=npz dataset.path={save}")


def _describe(preprocessor: "Preprocessor", pixels: npt.NDArray[np.generic], label: int) -> str:
    """Describe an image and its label as the model gets them."""
    image = np.asarray(preprocessor.images(pixels[None]))[0]
    height, width = pixels.shape[:2]
    middle = image.reshape(height, width, -1)[height // 2, :, 0]
    values = wrap_text(" ".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in middle))
    channel = " in the first channel" if pixels.shape[2:] not in ((), (1,)) else ""
    return (
        f"\nThe model gets {image.dtype} values of shape {image.shape}, from {image.min():.4g} to {image.max():.4g}.\n"
        f"Row {height // 2} of the image{channel} becomes:\n{values}\n"
        f"The label becomes: {np.asarray(preprocessor.labels(np.array([label])))[0]}"
    )


def _arrays(data: Data) -> str:
    """Return a table of arrays, the classes' names, and the count of each label."""
    sets = {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
    if not data.watches_test_set:
        sets["validation"] = (data.x_validation, data.y_validation)
    lines = [f"{'':14}{'shape':22}{'type':8}values"]
    for name, arrays in sets.items():
        for axis, values in zip("xy", arrays, strict=True):
            lines.append(f"{f'{axis}_{name}':14}{values.shape!s:22}{values.dtype!s:8}{values.min()} to {values.max()}")
    named = [f"label {label}: {printable(name)}" for label, name in enumerate(data.names) if name != str(label)]
    if named:
        lines += ["", *named]
    counts = {f"y_{name}": np.bincount(y, minlength=data.classes) for name, (_, y) in sets.items()}
    lines.append("")
    for first in range(0, data.classes, _LABELS_A_LINE):
        for name, row in {"label": np.arange(data.classes), **counts}.items():
            lines.append(f"{name:13}" + "".join(f" {count:>5}" for count in row[first : first + _LABELS_A_LINE]))
    return "\n".join(lines)


def _numbers(pixels: npt.NDArray[np.generic], most: int) -> str:
    """Return an image as numbers, in columns as wide as they need.

    Columns of zeros at the left and the right are left out where a line would have more than `most` characters.

    >>> print(_numbers(np.array([[0, 7, 255], [0, 12, 3]], np.uint8), 8))
    0  7 255
    0 12   3
    >>> print(_numbers(np.array([[0, 7, 255], [0, 12, 3]], np.uint8), 7))
     7 255
    12   3
    (columns 1 to 2 of 0 to 2; the others are all 0)
    """
    channels = np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), 2, 0)
    lines = []
    for number, channel in enumerate(channels):
        if len(channels) > 1:
            lines.append(f"channel {number}:")
        texts = np.char.mod("%g", channel)
        widths = np.char.str_len(texts).max(axis=0)
        first, last = 0, len(widths) - 1
        inked = np.flatnonzero(channel.any(axis=0))
        if widths.sum() + last > most and inked.size:
            first, last = inked[0], inked[-1]
        lines += [" ".join(row) for row in np.char.rjust(texts, widths)[:, first : last + 1]]
        if last - first + 1 < len(widths):
            lines.append(f"(columns {first} to {last} of 0 to {len(widths) - 1}; the others are all 0)")
    return "\n".join(lines)


def _save(data: Data, path: Path) -> None:
    if path.suffix != ".npz" or os.path.lexists(path) or not os.path.isdir(path.absolute().parent):  # noqa: PTH112
        raise InputError(f"--save {path}: must be a new file that ends with .npz, in a folder that exists")
    arrays: dict[str, Any] = {part: getattr(data, part) for part in PARTS}
    for part, names in zip(("train", "test"), data.file_names or (), strict=False):
        arrays[f"files_{part}"] = np.array(names)
    try:
        with replacing(path) as new:
            np.savez_compressed(new, **arrays)
            write_metadata(new, data.metadata())
    except OSError as error:
        raise InputError(f"--save {path}: cannot be written ({error.strerror or error})") from error


if __name__ == "__main__":
    main()
