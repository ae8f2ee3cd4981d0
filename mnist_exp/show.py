"""Look at the data of an experiment: `python -m mnist_exp.show`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.errors import InputError, printable
from mnist_exp.learning import datasets
from mnist_exp.learning.engine import choose_backend, import_own

if TYPE_CHECKING:
    from mnist_exp.learning.preprocessing import Preprocessor

_EXAMPLES = """\
  python -m mnist_exp.show --index 7
  python -m mnist_exp.show dataset=keras dataset.name=fashion_mnist
  python -m mnist_exp.show experiment=best
  python -m mnist_exp.show --save mnist_raw.npz
"""


def main() -> None:
    """Print and draw the data of an experiment; exit with 1 and one message after bad input."""
    about = "Print and draw the data of an experiment: its arrays, one image, and what the model gets for it."
    parser = commands.parser("show", about, _EXAMPLES)
    parser.add_argument("overrides", nargs="*", help="what to change, as for a run: dataset=npz dataset.path=FILE")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="read presets of your own from this folder")
    parser.add_argument(
        "--index",
        type=int,
        default=0,
        metavar="N",
        help="the training image to show, from 0, counted before any is held out",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the arrays to a new npz file, for dataset=npz")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("outputs/show"),
        help="folder for pictures; default: %(default)s",
    )
    given = parser.parse_intermixed_args()
    with commands.exit_on_errors():
        show(given.overrides, given.config_dir, given.index, given.save, given.output)


def show(overrides: Sequence[str], config_dir: Path | None, index: int, save: Path | None, output: Path) -> None:
    """Print the arrays' shapes, types, ranges and label counts, one image, and what the model will get for it; draw it.

    Args:
        overrides: as for a run.
        config_dir: a folder with presets of one's own; None for none.
        index: of a training image, as it stands in the dataset, before any is held out.
        save: a new npz file for all arrays; None for none.
        output: the folder for the two pictures.

    Raises:
        InputError: for a configuration or data that cannot be used, no such image, or a file that cannot be written.
    """
    config = compose(overrides, config_dir, import_own).config
    choose_backend(config.backend)
    source = datasets.read(config.dataset)
    data = datasets.split(source, config.dataset)
    if not 0 <= index < len(source.x_train):
        raise InputError(f"--index {index}: must be from 0 to {len(source.x_train) - 1}, the last training image")
    if save is not None:
        _save(source, save)
    print(printable(f"{source.name} from {source.source}, digest {source.digest}"))
    print(_arrays(data))
    pixels, label = source.x_train[index], int(source.y_train[index])
    name = "" if source.names[label] == str(label) else f" ({printable(source.names[label])})"
    print(f"\nTraining image {index}, label {label}{name}:")
    print(_numbers(pixels))
    from mnist_exp.learning import models  # brings TensorFlow, so only once the data is printed
    from mnist_exp.learning.preprocessing import fit_preprocessor

    preprocessor = fit_preprocessor(config.preprocessing, data)
    print(_prepared(preprocessor, pixels, label))
    models.set_seed(config.seed)
    augment = models.augmentation(config.preprocessing.augment, pixels.shape, preprocessor.raw)
    _draw(source, index, augment, output)
    if save is not None:
        scale = "" if source.maximum == 255 else f" dataset.maximum={source.maximum:g}"
        print(f"Arrays in {save}; read them with dataset=npz dataset.path={save}{scale}")


def _prepared(preprocessor: "Preprocessor", pixels: npt.NDArray[np.generic], label: int) -> str:
    """Describe what the model gets for an image: shape, type and range, its middle row, and its label."""
    image = np.asarray(preprocessor.images(pixels[None]))[0]
    height, width = pixels.shape[:2]
    middle = image.reshape(height, width, -1)[height // 2, :, 0]
    values = fill(" ".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in middle), width=100)
    channel = " in the first channel" if pixels.shape[2:] not in ((), (1,)) else ""
    return (
        f"\nThe model gets {image.dtype} values of shape {image.shape}, from {image.min():.4g} to {image.max():.4g}. "
        f"Row {height // 2} of the image{channel} becomes:\n{values}\n"
        f"The label becomes: {np.asarray(preprocessor.labels(np.array([label])))[0]}"
    )


def _arrays(data: datasets.Data) -> str:
    """Return a table of the sets, and one of how often each label occurs."""
    sets = {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
    if not data.watches_test_set:
        sets["validation"] = (data.x_validation, data.y_validation)
    lines = [f"{'':14}{'shape':22}{'type':8}values"]
    for name, (x, y) in sets.items():
        for array, values in ((f"x_{name}", x), (f"y_{name}", y)):
            lines.append(f"{array:14}{values.shape!s:22}{values.dtype!s:8}{values.min()} to {values.max()}")
    named = [(label, name) for label, name in enumerate(data.names) if name != str(label)]
    if named:
        lines += ["", *(f"label {label}: {printable(name)}" for label, name in named[:_NAMED])]
    if len(named) > _NAMED:
        lines.append(f"and {len(named) - _NAMED} more")
    lines.append("")
    for first in range(0, data.classes, _LABELS_IN_A_LINE):
        labels = range(first, min(first + _LABELS_IN_A_LINE, data.classes))
        lines.append(f"{'label':14}" + "".join(f"{label:>7}" for label in labels))
        for name, (_, y) in sets.items():
            counts = np.bincount(y, minlength=data.classes)
            lines.append(f"{f'y_{name}':14}" + "".join(f"{counts[label]:>7}" for label in labels))
    return "\n".join(lines)


_LABELS_IN_A_LINE = 10
_NAMED = 100  # that are listed


def _numbers(pixels: npt.NDArray[np.generic]) -> str:
    """Return an image as numbers, a line a row; columns as wide as their largest number, so that MNIST's fits.

    >>> print(_numbers(np.array([[0, 7, 255], [0, 12, 3]], np.uint8)))
    0  7 255
    0 12   3
    """
    channels = pixels.reshape(*pixels.shape[:2], -1)
    blocks = []
    for channel in range(channels.shape[2]):
        rows: list[list[Any]] = channels[:, :, channel].tolist()
        widths = [max(len(f"{row[column]:g}") for row in rows) for column in range(len(rows[0]))]
        lines = [" ".join(f"{value:g}".rjust(width) for value, width in zip(row, widths, strict=True)) for row in rows]
        blocks.append("\n".join([f"channel {channel}:", *lines] if channels.shape[2] > 1 else lines))
    return "\n".join(blocks)


def _save(source: datasets.Source, path: Path) -> None:
    if path.suffix != ".npz" or path.exists() or not path.absolute().parent.is_dir():
        raise InputError(f"--save {path}: must be a new file that ends with .npz, in a folder that exists")
    y_train, y_test = source.y_train, source.y_test
    if source.names != datasets.numbers(source.classes):
        y_train, y_test = np.array(source.names)[y_train], np.array(source.names)[y_test]
    try:
        np.savez_compressed(path, x_train=source.x_train, y_train=y_train, x_test=source.x_test, y_test=y_test)
    except BaseException as error:
        path.unlink(missing_ok=True)  # half a file
        if isinstance(error, OSError):
            raise InputError(f"--save {path}: cannot be written ({error})") from error
        raise


def _draw(source: datasets.Source, index: int, augment: Callable[[npt.NDArray[Any]], Any] | None, folder: Path) -> None:
    from mnist_exp import figures

    pixels, label = figures.pictures(source.x_train[index : index + 1], source.maximum)[0], source.y_train[index]
    pictures = {
        f"image-{index}": figures.image(pixels, source.names[label]),
        "samples": figures.samples(source.x_train, source.y_train, source.names, augment, source.maximum),
    }
    try:
        figures.save(pictures, folder)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error})") from error
    print(f"Pictures: {', '.join(str(folder / f'{name}.png') for name in pictures)}")


if __name__ == "__main__":
    main()
