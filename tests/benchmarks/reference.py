"""The baseline's article as a plain Keras script, with a seed: python -m tests.benchmarks.reference [FOLDER]

Nothing of this project but the file of images. Writes curves.png into FOLDER, by default the current one.
"""

import sys
import time
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MNIST = Path(__file__).parents[2] / "mnist_exp" / "data" / "mnist.npz"


def load() -> tuple[Any, Any, Any, Any]:
    """MNIST as vectors from 0 to 1 and one-hot labels: x_train, y_train, x_test, y_test."""
    with np.load(MNIST) as data:
        x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    x_train = x_train.reshape(60000, 784).astype("float32") / 255
    x_test = x_test.reshape(10000, 784).astype("float32") / 255
    return x_train, keras.utils.to_categorical(y_train, 10), x_test, keras.utils.to_categorical(y_test, 10)


def main(folder: Path) -> None:
    """Train 784-16-10 as the article does, evaluate it on the test set, and draw its curves."""
    keras.utils.set_random_seed(0)
    x_train, y_train, x_test, y_test = load()
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(16, activation="sigmoid"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = model.fit(x_train, y_train, epochs=10, batch_size=1000, validation_data=(x_test, y_test))
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print("TEST loss:", loss)
    print("TEST accuracy:", accuracy)
    print("Computation time:", time.perf_counter() - start, "sec")

    plt.figure(figsize=(10, 4))
    for place, metric in enumerate(("loss", "accuracy"), start=1):
        plt.subplot(1, 2, place)
        plt.plot(history.history[metric], "black", label="training")
        plt.plot(history.history[f"val_{metric}"], "cornflowerblue", label="test")
        plt.title(metric)
        plt.grid()
        plt.legend()
    plt.savefig(folder / "curves.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
