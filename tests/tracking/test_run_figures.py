"""predictions.csv: what a model makes of each test image."""

import csv
import io

import numpy as np
import pytest

from mnist_exp.tracking.run_figures import mistakes, predictions_csv

pytestmark = pytest.mark.fast


def test_each_image_has_a_line_with_names_that_are_no_formula() -> None:
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1]], np.float32)
    first, second = csv.DictReader(io.StringIO(predictions_csv(np.array([1, 1]), probabilities, ["=1+1", "a, b"])))
    assert first == {"index": "0", "label": "a, b", "predicted": "a, b", "probability": "0.750000"}
    assert second == {"index": "1", "label": "a, b", "predicted": "'=1+1", "probability": "0.900000"}


def test_pictures_are_named_by_their_files_whatever_those_are_called() -> None:
    files = ["=cat/$x$_01.png", "dog/a\n\x1b[2J\udc80.png", "dog/" + "long " * 40 + "0017.png"]
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], np.float32)
    lines = list(csv.DictReader(io.StringIO(predictions_csv(labels, probabilities, ["=cat", "dog"], files))))
    assert list(lines[0]) == ["index", "label", "predicted", "probability", "file"]
    assert [line["file"] for line in lines[:2]] == ["'=cat/$x$_01.png", "dog/a??[2J?.png"]
    assert lines[2]["file"] == files[2]
    sheet = mistakes(np.zeros((3, 28, 28), np.uint8), labels, probabilities, ["=cat", "dog"], files)
    assert sheet.captions == [
        "dog 0.900\n(=cat)\n$x$_01.png",
        "=cat 0.800\n(dog)\na??[2J?.png",
        "=cat 0.700\n(dog)\n…ng 0017.png",
    ]
