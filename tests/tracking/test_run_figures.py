"""predictions.csv: what a model makes of each test image."""

import csv
import io

import numpy as np
import pytest

from mnist_exp.tracking.run_figures import predictions_csv

pytestmark = pytest.mark.fast


def test_each_image_has_a_line_with_names_that_are_no_formula() -> None:
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1]], np.float32)
    first, second = csv.DictReader(io.StringIO(predictions_csv(np.array([1, 1]), probabilities, ["=1+1", "a, b"])))
    assert first == {"index": "0", "label": "a, b", "predicted": "a, b", "probability": "0.750000"}
    assert second == {"index": "1", "label": "a, b", "predicted": "'=1+1", "probability": "0.900000"}
