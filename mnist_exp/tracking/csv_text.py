"""Text for CSV files: what a run's model makes of each test image. Imports nothing heavy."""

import csv
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_exp.errors import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mnist_exp.learning.datasets import Labels


def no_formula(text: str) -> str:
    """Return a text on one line, with an apostrophe before it if a spreadsheet would take it for a formula.

    >>> no_formula("=1+1"), no_formula("-1.5e-3")
    ("'=1+1", '-1.5e-3')
    """
    text = printable(text)
    is_number = re.fullmatch(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", text)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} and not is_number else text


def of_predictions(labels: "Labels", probabilities: "npt.NDArray[np.float32]", names: Sequence[str]) -> str:
    """Return a line a test image: its index from 0, its class, the predicted one, and how probable that is.

    Args:
        labels: (N,) true labels.
        probabilities: (N, classes), written with six decimals.
        names: of the classes.
    """
    safe = [no_formula(name) for name in names]
    predicted, surest = probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", "probability"])
    writer.writerows(
        [index, safe[label], safe[guess], f"{probability:.6f}"]
        for index, (label, guess, probability) in enumerate(zip(labels.tolist(), predicted, surest, strict=True))
    )
    return text.getvalue()
