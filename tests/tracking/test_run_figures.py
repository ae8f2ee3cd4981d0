"""predictions.csv: what a model makes of each test image."""

import csv
import io

import numpy as np
import pytest

from mnist_exp.tracking.run_figures import mistakes, predictions_csv

pytestmark = pytest.mark.fast


def test_predictions_name_classes_and_files_safely() -> None:
    files = ["=cat/$x$_01.png", "dog/a\n\x1b[2J\udc80.png", "dog/" + "long " * 40 + "0017.png"]
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], np.float32)
    lines = list(csv.DictReader(io.StringIO(predictions_csv(labels, probabilities, ["=cat", "dog"], files))))
    assert lines[0] == {
        "index": "0", "label": "'=cat", "predicted": "dog", "probability": "0.900000", "file": "'=cat/$x$_01.png",
    }  # fmt: skip
    assert lines[1]["file"] == "dog/a??[2J?.png"
    assert "file" not in predictions_csv(labels, probabilities, ["=cat", "dog"])
    assert lines[2]["file"] == files[2]
    sheet = mistakes(np.zeros((3, 28, 28), np.uint8), labels, probabilities, ["=cat", "dog"], files)
    assert sheet.captions == [
        "dog 0.900\n(=cat)\n$x$_01.png",
        "=cat 0.800\n(dog)\na??[2J?.png",
        "=cat 0.700\n(dog)\n…ng 0017.png",
    ]
