"""The network of `experiment=convnet` as a plain script: python -m tests.benchmarks.convnet EPOCHS BACKEND

On JAX, Keras calls a compiled step in a loop in Python.
"""

import os
import sys

import numpy as np


def main(epochs: int, backend: str) -> None:
    """Train on 55,000 images with 5,000 held out, and evaluate on the test set."""
    os.environ["KERAS_BACKEND"] = backend
    import keras

    from tests.benchmarks.reference import MNIST

    keras.utils.set_random_seed(0)
    with np.load(MNIST) as data:
        x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    mean, deviation = x_train.mean(), x_train.std()
    x_train, x_test = ((x[..., None].astype("float32") - mean) / deviation for x in (x_train, x_test))
    y_train, y_test = (keras.utils.to_categorical(y, 10) for y in (y_train, y_test))
    layers = [keras.Input((28, 28, 1))]
    for filters in (32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dropout(0.4), keras.layers.Dense(128, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.4), keras.layers.Dense(10, activation="softmax")])
    rate = keras.optimizers.schedules.CosineDecay(0.003, 4300)
    model.compile(keras.optimizers.Adam(rate), loss="categorical_crossentropy", metrics=["accuracy"])
    stopping = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=4, restore_best_weights=True)
    model.fit(
        x_train[:-5000],
        y_train[:-5000],
        epochs=epochs,
        batch_size=128,
        validation_data=(x_train[-5000:], y_train[-5000:]),
        callbacks=[stopping],
    )
    print("TEST loss, accuracy:", model.evaluate(x_test, y_test, verbose=0))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
