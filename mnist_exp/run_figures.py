"""The figures of a run, drawn and saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import figures
from mnist_exp.learning.datasets import Data
from mnist_exp.learning.training import predict

if TYPE_CHECKING:
    import keras


def draw(history: Mapping[str, Sequence[float]], data: Data, model: "keras.Model", folder: Path) -> None:
    """Draw the curves of a training, and what its model makes of the test set, into `folder`."""
    folder.mkdir(exist_ok=True)
    predicted = predict(model, data.x_test)
    validation = "test (watched)" if data.watches_test_set else "validation"
    drawn = {
        "curves": figures.curves(history, validation),
        "predictions": figures.predictions(
            figures.pictures(data.x_test, data.maximum), data.y_test, predicted, data.names
        ),
        "confusion_matrix": figures.confusion_matrix(data.y_test, predicted, data.names),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
