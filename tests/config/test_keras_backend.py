"""Keras is imported without what nothing here uses, and is whole all the same."""

import os
import subprocess
import sys
from pathlib import Path

import mnist_exp

from ..conftest import QUICK

AFTER_A_RUN = f"""
import sys
from mnist_exp import run
result = run("tracking=none", *{QUICK})
assert "sklearn" not in sys.modules
import keras
import numpy as np
from matplotlib import pyplot
x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2

def build(X, y):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    return model

fitted = keras.wrappers.SKLearnClassifier(build, fit_kwargs=dict(epochs=1, verbose=0)).fit(x, y)
assert len(fitted.predict(x)) == 20
keras.visualization.plot_image_gallery(np.zeros((4, 8, 8, 1), "uint8"), rows=2, cols=2, path="gallery.png")
try:
    keras.utils.plot_model(result.model, "model.png")
except ImportError as error:  # the error names the missing package
    assert "pydot" in str(error), error
assert keras.wrappers.__name__ == "keras.wrappers"
"""


def test_keras_and_figures_work_after_a_run(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1]), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_RUN], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "gallery.png").is_file()
