"""Let a trained model read pictures of digits: `python -m mnist_exp.predict`."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.files import open_file, replacing
from mnist_exp.config.overrides import is_tracking_override
from mnist_exp.config.own_code import read_code
from mnist_exp.config.schema import require_store
from mnist_exp.data import pictures
from mnist_exp.errors import InputError
from mnist_exp.text import printable, say, truncate

_EXAMPLES = """\
  python -m mnist_exp.predict RUN_ID three.png four.jpg
  python -m mnist_exp.predict models:/digits@champion pics/*.png --plot seen.png
  python -m mnist_exp.predict outputs/2026-01-31/12-00-00/model.keras three.png
  python -m mnist_exp.predict SWEEP_ID three.png tracking.uri=sqlite:///other.db
"""
_MODEL = "a run's id or its first characters (of a sweep: its best job), models:/NAME@ALIAS, or a file model.keras"


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of a picture, and the image that the model got, 0 to 255."""

    path: Path
    seen: npt.NDArray[np.uint8]
    label: int
    name: str
    probability: float


def main() -> None:
    """Print the file, class and probability of each picture.

    Exit with 1 and one message after bad input.
    """
    about = "Load a run's model and print, for each picture, its file, class and probability."
    parser = commands.parser("predict", about, _EXAMPLES)
    parser.add_argument("model", help=_MODEL)
    parser.add_argument("pictures", nargs="+", help="picture files; and tracking.uri=ADDRESS for another store")
    parser.add_argument("--code", metavar="FILE", help="the Python file of your own that the model was trained with")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what the model saw, as .png, .pdf or .svg")
    given = parser.parse_intermixed_args()
    overrides = [text for text in given.pictures if is_tracking_override(text)]
    files = [Path(text) for text in given.pictures if text not in overrides]
    with commands.exit_on_errors():
        if given.plot is not None:
            commands.check_plot(given.plot)
        found = predict(given.model, files, overrides, given.code)
        names = [printable(str(prediction.path)) for prediction in found]
        classes = [printable(prediction.name) for prediction in found]
        width, wide = (max(map(len, texts)) for texts in (names, classes))
        for name, text, prediction in zip(names, classes, found, strict=True):
            print(f"{name:{width}}  {text:{wide}}  {prediction.probability:.3f}")
        if given.plot is not None:
            from mnist_exp import figures

            shown = figures.to_uint8(np.stack([prediction.seen for prediction in found]))
            titles = [f"{text} ({label.probability:.0%})" for text, label in zip(classes, found, strict=True)]
            with replacing(given.plot) as new:
                figures.write(
                    figures.draw_predictions(shown, titles, [prediction.path.name for prediction in found]), new
                )
            say(f"What the model saw: {given.plot}")


def predict(
    model: str, files: Sequence[Path], overrides: Sequence[str] = (), code: str | None = None
) -> list[Prediction]:
    """Return the most probable class of each picture.

    Pictures of any size and colours are prepared like the model's training images: resized if these were pictures
    or are in colour, else as MNIST was made.

    Args:
        model: a run's id or its first characters; a sweep's id, for its best job; `models:/NAME@ALIAS`; or a file
            `model.keras`.
        files: pictures that Pillow reads.
        overrides: `tracking.uri=ADDRESS`, for another store than the default.
        code: the Python file with the user's own layers in the model, if any.

    Raises:
        InputError: for a file that is no picture or shows nothing, or a model that is missing or cannot be trusted.
    """
    if not files:
        raise InputError("no picture is named; type its file, such as three.png")
    with pictures.reading():
        for path in files:  # bad ones are refused before the model loads, which takes seconds
            pictures.open_picture(path).close()
    if model.endswith(".keras"):
        open_file(Path(model)).close()
    settings = compose(overrides).config.tracking
    own = read_code(code) if code is not None else None
    from mnist_exp.data.metadata import read_metadata
    from mnist_exp.tracking import logged_models, store

    with tempfile.TemporaryDirectory() as folder:
        if model.endswith(".keras"):
            path = Path(model)
        else:
            uri = require_store(settings).uri
            with store.store_errors(uri):
                path = logged_models.fetch_model(uri, model, Path(folder))
        from mnist_exp.config.keras_backend import REFUSALS, keras_reason
        from mnist_exp.training import saved_models  # Keras, once there is a model

        loaded = saved_models.load(path, own)
        known = read_metadata(path)
        classes = known.class_names(loaded.output_shape[-1], path)
        for label in saved_models.find_needed_code(path):
            if own is not None and label != own.label:
                say(f"{code} is not what the model was trained with: {label} then, {own.digest} now", sys.stderr)
    shape = loaded.input_shape[1:]
    with pictures.reading():
        seen = [_prepare(path, shape, resized=known.resized) for path in files]
    raw = np.stack(seen).reshape(-1, *shape) * ((known.maximum or 255) / 255)
    dtype = np.dtype(loaded.inputs[0].dtype)
    try:
        probabilities = loaded.predict((raw if dtype.kind == "f" else np.rint(raw)).astype(dtype), verbose=0)
    except REFUSALS as error:
        raise InputError(f"{model}: cannot be computed ({truncate(keras_reason(error), 300)})") from error
    return [
        Prediction(path, image, int(row.argmax()), classes[row.argmax()], float(row.max()))
        for path, image, row in zip(files, seen, probabilities, strict=True)
    ]


def _prepare(path: Path, shape: tuple[int, ...], *, resized: bool) -> npt.NDArray[np.uint8]:
    """Return a picture as an image of `shape`."""
    from mnist_exp import digits

    height, width, *channels = shape
    picture = pictures.open_picture(path)
    try:
        if resized or channels in ([2], [4]):
            return pictures.pixels(picture, height, width, *channels or [1])
        if channels == [3]:
            return digits.resize(picture, height, width)
        image = digits.to_mnist_format(picture, height, width)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if digits.holds_several(picture):
        say(f"{path}: seems to hold several digits, which are read as one", sys.stderr)
    return image


if __name__ == "__main__":
    main()
