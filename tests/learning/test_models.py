"""Configuration to Keras models."""
# ruff: noqa: E501, a case a line reads best

from typing import Any

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.errors import InputError
from mnist_exp.learning.keras_backend import keras
from mnist_exp.learning.models import build


def built(*overrides: str, shape: tuple[int, ...] = (28, 28, 1), classes: int = 10) -> Any:
    return build(compose(overrides).config.model, shape, classes)


def kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def test_the_baseline_is_784_16_10_with_sigmoid_and_softmax() -> None:
    model = built(shape=(784,))
    assert model.count_params() == 784 * 16 + 16 + 16 * 10 + 10
    assert [layer.activation.__name__ for layer in model.layers] == ["sigmoid", "softmax"]


def test_hidden_layers_activation_and_dropout() -> None:
    model = built("model.hidden=[128,64]", "model.activation=relu", "model.dropout=0.2", shape=(784,), classes=7)
    assert kinds(model) == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert [layer.units for layer in model.layers if hasattr(layer, "units")] == [128, 64, 7]
    assert model.layers[1].rate == 0.2
    assert model.layers[0].activation is keras.activations.relu


def test_linear_has_the_output_layer_alone() -> None:
    assert kinds(built("model=linear", shape=(784,))) == ["Dense"]


def test_a_convolution_and_a_pooling_for_each_number_of_filters() -> None:
    model = built("model=cnn", "model.filters=[4,8]", "model.kernel_size=5", "model.hidden=32")
    assert kinds(model) == ["Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]
    assert model.layers[0].kernel_size == (5, 5)
    assert model.layers[4].output.shape == (None, 7 * 7 * 8)


def test_any_stack_of_layers_in_one_line() -> None:
    stack = "[{Conv2D:{filters:4,kernel_size:[3,3]}},BatchNormalization,{MaxPooling2D:{pool_size:2}},Flatten,{Dropout:{rate:0.5}}]"
    assert kinds(built("model=layers", f"model.layers={stack}")) == [
        "Conv2D", "BatchNormalization", "MaxPooling2D", "Flatten", "Dropout", "Dense",
    ]  # fmt: skip


def test_rows_of_an_image_as_a_sequence() -> None:
    model = built(
        "model=layers", "model.layers=[{Reshape:{target_shape:[28,28]}},{Bidirectional:{layer:{LSTM:{units:4}}}}]"
    )
    assert kinds(model) == ["Reshape", "Bidirectional", "Dense"]


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ("[{Conv2D:{filters:4,kernel_size:3}}]", (784,), "model=layers, layer 0, {Conv2D: {filters: 4, kernel_size: 3}}: does not fit its input of shape (784,)"),
        ("[{Conv2D:{filters:4,kernel_size:3}}]", (784,), "expected min_ndim=4, found ndim=2"),
        ("[{Conv2D:{filters:4,kernel_size:3}}]", (784,), "if it is for images: preprocessing=image"),
        ("[{Dense:{units:4}}]", (28, 28, 1), "the last layer gives shape (28, 28, 4), the output layer takes vectors; add Flatten"),
        ("[{MaxPooling2D:{pool_size:8}},{MaxPooling2D:{pool_size:8}}]", (28, 28, 1), "layer 1, {MaxPooling2D: {pool_size: 8}}: does not fit its input of shape (3, 3, 1) (Computed output size would be zero"),
        ("[{Reshape:{target_shape:[3]}}]", (28, 28, 1), "{Reshape: {target_shape: [3]}}: does not fit its input of shape (28, 28, 1)"),
        ("[{Conv2D:{filters:4,kernel_size:3,padding:sme}}]", (28, 28, 1), "layer 0, {Conv2D: {filters: 4, kernel_size: 3, padding: sme}}"),
    ],
)  # fmt: skip
def test_what_only_keras_can_know_names_the_layer(layers: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        built("model=layers", f"model.layers={layers}", shape=shape)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_layers_of_one_name_and_odd_axes_are_bad_input() -> None:
    for layers in ("[{Dense:{units:2,name:x}},{Dense:{units:2,name:x}}]", "[Flatten,{BatchNormalization:{axis:7}}]"):
        with pytest.raises(InputError, match="model=layers, layer 1, "):
            built("model=layers", f"model.layers={layers}")


def test_arguments_that_are_easily_taken_for_wrong() -> None:
    built("model=layers", "model.layers=[{RandomRotation:{factor:[-0.1,0.1]}},Flatten]")
    compose(["optimizer=muon", "optimizer.exclude_layers=[output]"])
    checkpoint = "{ModelCheckpoint:{filepath:'{epoch:02d}-{val_loss:.3f}.keras'}}"
    compose([f"training.callbacks={checkpoint}"])


def test_too_many_poolings_for_the_image() -> None:
    with pytest.raises(InputError, match="model=cnn, layer 9, MaxPooling2D: does not fit its input of shape"):
        built("model=cnn", "model.filters=[4,4,4,4,4]")
