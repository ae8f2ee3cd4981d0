"""Let a trained model read pictures of digits: `python -m mnist_exp.predict`."""

import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mnist_exp import commands
from mnist_exp.config.code_file import read_code
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import is_of_tracking
from mnist_exp.errors import InputError, printable

_EXAMPLES = """\
  python -m mnist_exp.predict 3f2a1c... three.png four.jpg
  python -m mnist_exp.predict models:/digits@champion scans/*.png --plot seen.png
  python -m mnist_exp.predict outputs/2026-01-31/12-00-00-000000/model.keras three.png
  python -m mnist_exp.predict 3f2a1c... three.png tracking.uri=http://127.0.0.1:5000
"""


@dataclass(frozen=True)
class Prediction:
    """`seen`: what the model got, of the shape of its images, 0 to 255. `probability`: of `label`, 0 to 1."""

    path: Path
    seen: npt.NDArray[np.uint8]
    label: int
    probability: float


def main() -> None:
    """Print a line a picture: its name, label and probability; exit with 1 and one message after bad input."""
    about = "Load a run's model and print, for each picture of a digit, its name, label and probability."
    parser = commands.parser("predict", about, _EXAMPLES)
    parser.add_argument("model", help="a run's id (a sweep's: its best job), models:/NAME@ALIAS, or a file model.keras")
    parser.add_argument("pictures", nargs="+", help="picture files; and tracking.uri=ADDRESS for another store")
    parser.add_argument("--code", metavar="FILE", help="the Python file of your own that the model was trained with")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what the model saw, as .png, .pdf or .svg")
    given = parser.parse_intermixed_args()
    overrides = [text for text in given.pictures if is_of_tracking(text)]
    pictures = [Path(text) for text in given.pictures if text not in overrides]
    with commands.exit_on_errors():
        if given.plot is not None:
            commands.check_plot(given.plot)
        found = predict(given.model, pictures, overrides, given.code)
        names = [printable(str(prediction.path)) for prediction in found]
        width = max(map(len, names))
        for name, prediction in zip(names, found, strict=True):
            print(f"{name:{width}}  {prediction.label}  {prediction.probability:.3f}")
        if given.plot is not None:
            from mnist_exp import figures

            images = np.stack([prediction.seen for prediction in found])
            titles = [f"{prediction.label} ({prediction.probability:.0%})" for prediction in found]
            files = [prediction.path.name for prediction in found]
            figures.seen(images, titles, files).savefig(given.plot, dpi=120)
            print(f"What the model saw: {given.plot}")


def predict(
    model: str, pictures: Sequence[Path], overrides: Sequence[str] = (), code: str | None = None
) -> list[Prediction]:
    """Return the most probable class of each picture.

    Pictures of any size and colours are prepared as MNIST was made, for a model of greyscale images; for one of images
    in colour, they are resized.

    Args:
        model: a run's id, of a sweep for its best job; `models:/NAME@ALIAS`; or a file `model.keras`.
        pictures: files that Pillow reads.
        overrides: `tracking.uri=ADDRESS`, where it is not the default store.
        code: the Python file with the layers of the user's own that the model has; None if it has none.

    Raises:
        InputError: for a file that is no picture or shows nothing, or a model that is not there or cannot be trusted.
    """
    if not pictures:
        raise InputError("no picture is named; type its file, such as three.png")
    for path in pictures:  # before the model is loaded, which takes seconds
        _open(path).close()
    settings = compose(overrides).config.tracking
    own = read_code(code) if code is not None else None
    from mnist_exp import digits
    from mnist_exp.learning import saved_models
    from mnist_exp.tracking import reading, store
    from mnist_exp.tracking.tracker import stored

    with tempfile.TemporaryDirectory() as folder:
        if model.endswith(".keras"):
            path = Path(model)
        else:
            uri = stored(settings).uri
            with store.store_errors(uri):
                path = reading.fetch_model(uri, model, Path(folder))
        loaded = saved_models.load(path, own)
        for label in saved_models.needed_code(path):
            if own is not None and label != own.label:
                print(f"{code} is not what the model was trained with: {label} then, {own.digest} now", file=sys.stderr)
    height, width, *channels = loaded.input_shape[1:]
    prepare = digits.resized if channels == [3] else digits.prepare
    seen = []
    for path in pictures:
        try:
            seen.append(prepare(_open(path), height, width))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    images = np.stack(seen).reshape(-1, height, width, *channels)
    probabilities = loaded.predict(images, verbose=0)
    return [
        Prediction(path, image, int(row.argmax()), float(row.max()))
        for path, image, row in zip(pictures, seen, probabilities, strict=True)
    ]


# Of the formats that Pillow knows, those that people draw in; some others are programs, such as PostScript.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def _open(path: Path) -> Image.Image:
    """Open a picture, turned upright, of at most 89 million pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: must have at most {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # Pillow raises whatever foreign bytes make of it
        raise InputError(f"{path}: must be a picture in one of the formats {', '.join(_FORMATS)}") from error


if __name__ == "__main__":
    main()
