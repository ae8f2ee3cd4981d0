"""Preprocess raw arrays for a model, in training and inside the saved model."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_exp.config.keras_backend import keras
from mnist_exp.config.schema import Preprocessing
from mnist_exp.data.datasets import Data, Images
from mnist_exp.errors import InputError


@dataclass(frozen=True)
class Raw:
    """NumPy's name for the type of raw pixels, and the value of a white one."""

    dtype: str
    maximum: float


BYTES = Raw("uint8", 255.0)


@dataclass(frozen=True)
class Preprocessor:
    """Turn raw pixels into `pixel * factor + offset`, and reshape images to `shape`."""

    shape: tuple[int, ...]
    factor: float
    offset: float
    classes: int
    one_hot: bool
    raw: Raw = BYTES

    def images(self, x: Any) -> Any:
        """Turn raw pixels (N, ...), array or tensor, into a tensor of (N, *shape) floats."""
        scaled = keras.ops.cast(x, "float32") * self.factor + self.offset
        return keras.ops.reshape(scaled, (-1, *self.shape))

    def labels(self, y: Any) -> Any:
        """Turn (N,) integers into (N, classes) floats if `one_hot`, or else return them."""
        return keras.ops.one_hot(y, self.classes) if self.one_hot else y

    def layers(self) -> list[keras.Layer]:
        """Return layers that compute the same as `images`."""
        return [
            keras.layers.Rescaling(self.factor, self.offset, name="prepare_values"),
            keras.layers.Reshape(self.shape, name="prepare_shape"),
        ]


def fit_preprocessor(config: Preprocessing, data: Data) -> Preprocessor:
    """Derive shape and scale from the training images.

    `scale` divides by the value of a white pixel. `standardize`, which takes precedence, subtracts the mean of all
    training pixels and divides by their standard deviation.

    Raises:
        InputError: if all pixels that `standardize` gets are equal.
    """
    height, width, *channels = data.x_train.shape[1:]
    shape = (height, width, *(channels or [1]))
    factor, offset = (1 / data.maximum if config.scale else 1.0), 0.0
    if config.standardize:
        mean, deviation = _mean_and_deviation(data.x_train)
        if deviation == 0:
            raise InputError("preprocessing.standardize=true: all training pixels are equal; it must be false")
        factor, offset = 1 / deviation, -mean / deviation
    return Preprocessor(
        shape=(math.prod(shape),) if config.kind == "flatten" else shape,
        factor=factor,
        offset=offset,
        classes=data.classes,
        one_hot=config.one_hot,
        raw=Raw(str(data.x_train.dtype), data.maximum),
    )


def _mean_and_deviation(images: Images) -> tuple[float, float]:
    """Return the mean and the standard deviation without an array of floats.

    Integers give exact sums.
    """
    if images.dtype.kind == "f":
        mean = float(images.mean(dtype=np.float64))
        parts = (float(np.square(image - mean, dtype=np.float64).sum()) for image in images)
        return mean, math.sqrt(sum(parts) / images.size)
    counts = np.bincount(images.reshape(-1), minlength=256)
    values = np.arange(len(counts))
    mean = float(counts @ values / counts.sum())
    return mean, math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))
