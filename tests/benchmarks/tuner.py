"""A sweep's jobs as a KerasTuner user writes them: python -m tests.benchmarks.tuner SEEDS RATE,RATE,... [FOLDER]

Grid search over seeds 0 to SEEDS - 1 and the learning rates, the article's network, ranked by val_accuracy.
"""

import sys
from pathlib import Path

import keras
import keras_tuner

from tests.benchmarks.reference import load


class Search(keras_tuner.HyperModel):  # type: ignore[misc]
    """784-16-10, with the seed and the learning rate as hyperparameters."""

    def __init__(self, seeds: int, rates: list[float]) -> None:
        super().__init__()
        self._seeds, self._rates = seeds, rates

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build and compile a model."""
        keras.utils.set_random_seed(hp.Choice("seed", list(range(self._seeds))))
        rate = hp.Choice("learning_rate", self._rates)
        layers = [keras.layers.Dense(16, activation="sigmoid"), keras.layers.Dense(10, activation="softmax")]
        model = keras.Sequential([keras.Input((784,)), *layers])
        optimizer = keras.optimizers.Adam(learning_rate=rate)
        model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
        return model


def main(seeds: int, rates: list[float], folder: Path) -> None:
    """Search the whole grid and print its best trial."""
    x_train, y_train, x_test, y_test = load()
    tuner = keras_tuner.GridSearch(
        Search(seeds, rates), objective="val_accuracy", max_trials=None, directory=folder, project_name="grid"
    )
    tuner.search(x_train, y_train, epochs=10, batch_size=1000, validation_data=(x_test, y_test), verbose=0)
    tuner.results_summary(1)


if __name__ == "__main__":
    numbers = [float(rate) for rate in sys.argv[2].split(",")]
    main(int(sys.argv[1]), numbers, Path(sys.argv[3]) if len(sys.argv) > 3 else Path())
