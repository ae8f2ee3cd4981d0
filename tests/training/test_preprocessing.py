"""Prepared arrays, and the same preparation as layers of the model that is kept."""

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from mnist_exp.config.keras_backend import keras
from mnist_exp.config.schema import Preprocessing
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.training.preprocessing import fit_preprocessor


def config(
    kind: Literal["flatten", "image"] = "flatten",
    *,
    scale: bool = True,
    standardize: bool = False,
    one_hot: bool = True,
) -> Preprocessing:
    return Preprocessing(kind=kind, scale=scale, standardize=standardize, one_hot=one_hot, augment=[])


def test_scaling_maps_bytes_to_the_unit_interval(mnist: Data) -> None:
    prepared = np.asarray(fit_preprocessor(config(), mnist).images(mnist.x_train[:1000]))
    assert prepared.shape == (1000, 784)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared, mnist.x_train[:1000].reshape(1000, 784) / 255, atol=1e-7)
    assert (prepared.min(), prepared.max()) == (0, 1)
    unscaled = fit_preprocessor(config(scale=False), mnist).images(mnist.x_train[:10])
    np.testing.assert_array_equal(unscaled, mnist.x_train[:10].reshape(10, 784))


@pytest.mark.parametrize("scale", [True, False])
def test_standardizing_uses_only_the_training_pixels(mnist: Data, scale: bool) -> None:
    data = dataclasses.replace(mnist, x_train=mnist.x_train[:5000], x_test=np.full_like(mnist.x_test, 255))
    preprocessor = fit_preprocessor(config(standardize=True, scale=scale), data)
    prepared = np.asarray(preprocessor.images(data.x_train), np.float64)
    assert prepared.mean() == pytest.approx(0, abs=1e-4)
    assert prepared.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("kind", "maximum"), [(np.float32, 1.0), (np.uint16, 65535.0)])
def test_images_of_any_scale_are_prepared_alike(mnist: Data, kind: type, maximum: float) -> None:
    few = dataclasses.replace(mnist, x_train=mnist.x_train[:500])
    raw: Any = np.asarray(few.x_train * (maximum / 255), kind)
    other = dataclasses.replace(mnist, x_train=raw, maximum=maximum)
    for part in (config(), config(standardize=True)):
        expected = np.asarray(fit_preprocessor(part, few).images(few.x_train))
        np.testing.assert_allclose(fit_preprocessor(part, other).images(raw), expected, atol=1e-5)


def test_standardizing_equal_pixels_is_refused(mnist: Data) -> None:
    data = dataclasses.replace(mnist, x_train=np.full((5, 28, 28), 7, np.uint8))
    with pytest.raises(InputError, match=r"preprocessing\.standardize=true: all training pixels are equal"):
        fit_preprocessor(config(standardize=True), data)


def test_labels_are_one_hot_or_whole_numbers(mnist: Data) -> None:
    encoded = np.asarray(fit_preprocessor(config(), mnist).labels(mnist.y_train[:20]))
    assert encoded.shape == (20, 10)
    np.testing.assert_array_equal(encoded.argmax(1), mnist.y_train[:20])
    np.testing.assert_array_equal(encoded.sum(1), 1)
    np.testing.assert_array_equal(fit_preprocessor(config(one_hot=False), mnist).labels(mnist.y_train), mnist.y_train)


@pytest.mark.parametrize("kind", ["flatten", "image"])
@pytest.mark.parametrize("standardize", [False, True])
def test_the_layers_prepare_as_the_arrays_are_prepared(
    mnist: Data, kind: Literal["flatten", "image"], standardize: bool
) -> None:
    preprocessor = fit_preprocessor(config(kind, standardize=standardize), mnist)
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), *preprocessor.layers()])
    np.testing.assert_allclose(
        model.predict(mnist.x_test[:100], verbose=0), preprocessor.images(mnist.x_test[:100]), atol=1e-6
    )
