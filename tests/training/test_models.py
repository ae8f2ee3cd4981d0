"""Configuration to Keras models."""
# ruff: noqa: E501, a case a line reads best

from typing import Any

import numpy as np
import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.keras_backend import keras
from mnist_exp.errors import InputError
from mnist_exp.training.models import build, check_size, set_seed


def built(*overrides: str, shape: tuple[int, ...] = (28, 28, 1), classes: int = 10) -> Any:
    return build(compose(overrides).config.model, shape, classes)


def layers_of(model: Any) -> list[Any]:
    assert isinstance(model.layers[0], keras.layers.InputLayer)
    return list(model.layers[1:])


def kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in layers_of(model)]


def test_hidden_layers_activation_and_dropout() -> None:
    model = built("model.hidden=[128,64]", "model.activation=relu", "model.dropout=0.2", shape=(784,), classes=7)
    assert kinds(model) == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert [layer.units for layer in layers_of(model) if hasattr(layer, "units")] == [128, 64, 7]
    assert layers_of(model)[1].rate == 0.2
    assert layers_of(model)[0].activation is keras.activations.relu


def test_a_convolution_and_a_pooling_for_each_number_of_filters() -> None:
    model = built("model=cnn", "model.filters=[4,8]", "model.kernel_size=5", "model.hidden=32")
    assert kinds(model) == ["Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]
    assert layers_of(model)[0].kernel_size == (5, 5)
    assert layers_of(model)[4].output.shape == (None, 7 * 7 * 8)


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ("[{Conv2D:{filters:4,kernel_size:3}}]", (784,), "model=layers, layer 0, {Conv2D: {filters: 4, kernel_size: 3}}: does not fit its input of shape (784,)"),
        ("[{Dense:{units:4}}]", (28, 28, 1), "the last layer gives shape (28, 28, 4), the output layer takes vectors; add Flatten"),
        ("[{MaxPooling2D:{pool_size:8}},{MaxPooling2D:{pool_size:8}}]", (28, 28, 1), "layer 1, {MaxPooling2D: {pool_size: 8}}: does not fit its input of shape (3, 3, 1) (Computed output size would be zero"),
        ("[{Reshape:{target_shape:x}}]", (28, 28, 1), "{Reshape: {target_shape: x}}: does not fit its input of shape (28, 28, 1) (gives shape (None,))"),
        ("[{Conv2D:{filters:4,kernel_size:3,padding:sme}}]", (28, 28, 1), "model=layers, layer 0.Conv2D.padding=sme: The `padding` argument must be"),
        ("[Flatten,{Dense:{units:3,kernel_regularizer:{L2:{l2:-1}}}}]", (28, 28, 1), "layer 1.Dense.kernel_regularizer.L2.l2=-1: "),
        ("[{Residual:[{Dropout:{rate:nan}}]},Flatten]", (28, 28, 1), "layer 0.Residual[0].Dropout.rate=nan: Invalid value"),
    ],
)  # fmt: skip
def test_error_of_keras_names_the_layer(layers: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        built("model=layers", f"model.layers={layers}", shape=shape)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_layers_of_one_name_and_odd_axes_are_bad_input() -> None:
    for layers, message in (
        ("[{Dense:{units:2,name:x}},{Dense:{units:2,name:x}}]", 'model=layers: The name "x" is used 2 times'),
        ("[Flatten,{BatchNormalization:{axis:7}}]", "model=layers, layer 1, "),
    ):
        with pytest.raises(InputError, match=message):
            built("model=layers", f"model.layers={layers}", "preprocessing=flatten", shape=(4,))


def test_unusual_arguments_are_accepted() -> None:
    built("model=layers", "model.layers=[{RandomRotation:{factor:[-0.1,0.1]}},Flatten]")
    compose(["optimizer=muon", "optimizer.exclude_layers=[output]"])
    checkpoint = "{ModelCheckpoint:{filepath:'{epoch:02d}-{val_loss:.3f}.keras'}}"
    compose([f"training.callbacks={checkpoint}"])


def test_a_residual_block_adds_its_input() -> None:
    block = "{Residual:[{Dense:{units:4,kernel_initializer:Zeros}}]}"
    model = built("model=layers", f"model.layers=[Flatten,{block}]", shape=(2, 2, 1), classes=3)
    assert kinds(model) == ["Flatten", "Dense", "Add", "Dense"]  # no layer of its own on the way that skips the block
    images = np.arange(8, dtype="float32").reshape(2, 2, 2, 1)
    before_output = keras.Model(model.input, model.layers[-2].output)
    np.testing.assert_array_equal(before_output.predict(images, verbose=0), images.reshape(2, 4))


@pytest.mark.parametrize(
    ("layers", "shape", "through"),
    [
        ("[Flatten,{Residual:[{Dense:{units:4}}]}]", (9,), "Dense"),
        ("[{Residual:[{Conv2D:{filters:4,kernel_size:3,padding:same,strides:2}}]},Flatten]", (14, 14, 4), "Conv2D"),
        ("[{Residual:[{Conv2D:{filters:4,kernel_size:3,padding:same}}]},Flatten]", (28, 28, 4), "Conv2D"),
    ],
)
def test_where_shapes_differ_the_way_that_skips_a_block_learns(
    layers: str, shape: tuple[int, ...], through: str
) -> None:
    model = built("model=layers", f"model.layers={layers}", shape=(3, 3, 1) if shape == (9,) else (28, 28, 1))
    [add] = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert kinds(model).count(through) == (3 if through == "Dense" else 2)
    assert add.output.shape[1:] == ((4,) if through == "Dense" else shape)


def test_branches_are_joined_along_the_last_axis_and_hold_blocks() -> None:
    one, other = (
        "[{Conv2D:{filters:2,kernel_size:1}}]",
        "[{Residual:[{Conv2D:{filters:5,kernel_size:3,padding:same}}]}]",
    )
    model = built("model=layers", f"model.layers=[{{Branches:[[],{one},{other}]}},GlobalAveragePooling2D]")
    [joined] = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
    assert joined.output.shape[1:] == (28, 28, 1 + 2 + 5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("[{Residual:[{Conv2D:{filters:4,kernel_size:3}}]}]", "layer 0.Residual: gives shape (26, 26, 4), to which its input of (28, 28, 1) cannot be added"),
        ("[{Branches:[[],[Flatten]]}]", "layer 0: does not fit its input of shape [(28, 28, 1), (784,)]"),
        ("[{Branches:[[],[{Residual:[Flatten,{Conv2D:{filters:4,kernel_size:3}}]}]]}]", "layer 0.Branches[1][0].Residual[1], {Conv2D"),
    ],
)  # fmt: skip
def test_a_block_that_does_not_fit_is_named(layers: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        built("model=layers", f"model.layers={layers}")
    assert f"model=layers, {message}" in str(caught.value)


def test_a_model_that_memory_cannot_hold_is_not_made() -> None:
    config = compose(["model.hidden=[1000000,1000000]"]).config
    with pytest.raises(InputError, match=r"model=mlp: has [\d,]+ weights, which take .*; type smaller numbers"):
        check_size(config.model, (784,), 10)


def test_counting_weights_changes_no_state() -> None:
    set_seed(0)
    before = built(shape=(784,))
    check_size(compose([]).config.model, (784,), 10)
    set_seed(0)
    after = built(shape=(784,))
    for weight, other in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert [layer.name for layer in before.layers] == [layer.name for layer in after.layers]
