"""Build Keras models and objects from configuration."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mnist_exp.config import keras_names, own_code
from mnist_exp.config.keras_backend import REFUSALS, keras, keras_reason, without_values
from mnist_exp.data import memory
from mnist_exp.errors import InputError, format_value
from mnist_exp.training.families import Model
from mnist_exp.training.preprocessing import BYTES, Preprocessor, Raw
from mnist_exp.training.saved_models import check_loadable

# Other kinds are named after their module.
_MODULES = {"augmentations": keras.layers, "schedules": keras.optimizers.schedules}


def set_seed(seed: int) -> None:
    """Make weights and random layers that are built from now on depend on `seed`."""
    keras.utils.clear_session(free_memory=False)  # restarts the numbers in layers' names
    keras.utils.set_random_seed(seed)


def build(config: Model, shape: tuple[int, ...], classes: int) -> keras.Model:
    """Return the model of a configuration, with a softmax unit per class.

    Args:
        config: of the model.
        shape: of a prepared image, without batch axis.
        classes: the number of output units.

    Raises:
        InputError: names the layer that Keras refuses, such as one that does not fit its input.
    """
    inputs = keras.Input(shape)
    flow = _connect(inputs, config.hidden_layers(), f"model={config.kind}, layer {{}}".format)
    if len(flow.shape) != 2:
        raise InputError(
            f"model={config.kind}: the last layer gives shape {flow.shape[1:]}, the output layer takes "
            "vectors; add Flatten or GlobalAveragePooling2D, or start with preprocessing=flatten"
        )
    try:
        outputs = keras.layers.Dense(classes, activation="softmax")(flow)
        model = keras.Model(inputs, outputs)
    except REFUSALS as error:  # two layers have one name
        raise InputError(f"model={config.kind}: {keras_reason(error)}") from error
    if (code := own_code.active_file()) is not None:  # fails before training rather than when loaded
        check_loadable(model, code, f"model={config.kind}")
    return model


def check_size(config: Model, shape: tuple[int, ...], classes: int) -> None:
    """Check, before `set_seed`, that training takes at most half of the memory.

    A model of the user's own code is not checked. A weight takes 16 bytes: 4 for itself, its gradient and each of
    Adam's two moments.

    Args:
        config: of the model.
        shape: of an image, without batch axis.
        classes: the number of output units.

    Raises:
        InputError: if it takes more, or as `build` does.
    """
    if own_code.active_file() is not None:  # may do more than build
        return
    with without_values():
        weights = build(config, shape, classes).count_params()
    memory.check(f"model={config.kind}: has {weights:,} weights, which take", 16 * weights, "type smaller numbers")


def _connect(flow: Any, specs: Sequence[Any], place: Callable[[int], str]) -> Any:
    """Apply layers, blocks and functions to a Keras tensor in turn.

    `place` words a layer's index.
    """
    for index, spec in enumerate(specs):
        where = place(index)
        match spec:
            case {"Residual": layers}:
                after = _connect(flow, layers, f"{where}.Residual[{{}}]".format)
                flow = keras.layers.Add()([_shortcut(flow, after.shape, where), after])
            case {"Branches": branches}:
                ends = [
                    _connect(flow, layers, f"{where}.Branches[{number}][{{}}]".format)
                    for number, layers in enumerate(branches)
                ]
                flow = _apply(keras.layers.Concatenate(), ends, where)
            case _ if callable(spec):
                flow = spec(flow)
                if not isinstance(flow, keras.KerasTensor):
                    kind = where.partition(",")[0]
                    raise InputError(
                        f"{kind}: the function must return one Keras tensor; it returned {type(flow).__name__}"
                    )
            case _ if keras_names.is_own("layers", spec):
                flow = make_keras_object("layers", spec, where)(
                    flow
                )  # an error of the user's layer shows its traceback
            case _:
                flow = _apply(make_keras_object("layers", spec, where), flow, f"{where}, {format_value(spec)}")
    return flow


def _apply(layer: Callable[[Any], Any], flow: Any, where: str) -> Any:
    try:
        after = layer(flow)
        shape = after.shape[1:]  # raises if the layer returns several tensors
        if not all(isinstance(length, int) and length > 0 for length in shape):
            raise ValueError(f"gives shape {shape}")
    except REFUSALS as error:
        shapes = [tensor.shape[1:] for tensor in flow] if isinstance(flow, list) else flow.shape[1:]
        needs = "; if it is for images: preprocessing=image" if len(shapes) == 1 else ""
        raise InputError(f"{where}: does not fit its input of shape {shapes} ({keras_reason(error)}){needs}") from error
    return after


def _shortcut(flow: Any, wanted: tuple[int | None, ...], where: str) -> Any:
    """Return a block's input in its output's shape, by a trained layer if needed."""
    _, *before = flow.shape
    _, *after = wanted
    if before == after:
        return flow
    if len(before) == len(after) == 1:
        return keras.layers.Dense(after[0])(flow)
    if len(before) == len(after) == 3:
        strides = [-(-had // has) for had, has in zip(before[:2], after[:2], strict=True)]
        if [-(-had // stride) for had, stride in zip(before[:2], strides, strict=True)] == after[:2]:
            return keras.layers.Conv2D(after[2], 1, strides=strides, padding="same")(flow)
    raise InputError(
        f"{where}.Residual: gives shape {tuple(after)}, to which its input of {tuple(before)} cannot be added"
    )


def augmentation_model(specs: Sequence[Any], image_shape: tuple[int, ...], raw: Raw = BYTES) -> keras.Sequential | None:
    """Return a model that augments raw images (N, *image_shape), or None.

    Without `specs` it is None.

    Args:
        specs: layers, such as `{RandomRotation: {factor: 0.1}}`; they get pixels from 0 to 255.
        image_shape: of a raw image.
        raw: the input of the model.

    Raises:
        InputError: names the layer that Keras refuses.
    """
    layers = _augmentation_layers(specs, image_shape, raw)
    if not layers:
        return None
    return keras.Sequential([keras.Input(image_shape, dtype=raw.dtype), *layers, keras.layers.Reshape(image_shape)])


def _augmentation_layers(specs: Sequence[Any], image_shape: tuple[int, ...], raw: Raw) -> list[Any]:
    """Return the layers, after two that turn raw images into floats with channels."""
    if not specs:
        return []
    shape = (*image_shape, 1) if len(image_shape) == 2 else image_shape
    layers = [keras.layers.Rescaling(255 / raw.maximum), keras.layers.Reshape(shape)]
    for index, spec in enumerate(specs):
        key = f"preprocessing.augment[{index}]"
        layer = make_keras_object("augmentations", spec, key)
        try:
            after = layer(keras.ops.zeros((1, *shape)), training=True).shape
        except REFUSALS as error:
            raise InputError(
                f"{key}, {format_value(spec)}: cannot be used on images of shape {shape} ({keras_reason(error)})"
            ) from error
        if tuple(after[1:]) != shape:
            raise InputError(
                f"{key}, {format_value(spec)}: must keep the shape {shape} of images; gives {tuple(after[1:])}"
            )
        layers.append(layer)
    return layers if raw.maximum == 255 else [*layers, keras.layers.Rescaling(raw.maximum / 255)]


def serving_model(
    model: keras.Model, preprocessor: Preprocessor, image_shape: tuple[int, ...], augment: Sequence[Any] = ()
) -> keras.Model:
    """Return a model of raw images (N, *image_shape), with the layers of `model`.

    Args:
        model: of prepared images.
        preprocessor: prepares them.
        image_shape: of a raw image.
        augment: layers that augment in training.

    Raises:
        InputError: names the layer of `augment` that Keras refuses.
    """
    flow = inputs = keras.Input(image_shape, dtype=preprocessor.raw.dtype)
    for layer in [*_augmentation_layers(augment, image_shape, preprocessor.raw), *preprocessor.layers()]:
        flow = layer(flow)
    alone = keras.Model(model.input, model.output)  # without optimizer and loss, which would be saved
    return keras.Model(inputs, alone(flow))


def output_shapes(model: keras.Model) -> Iterator[tuple[int, ...]]:
    """Yield each layer's output shape without the batch axis, nested models included."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from output_shapes(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield tuple(layer.output.shape[1:])


def make_keras_object(kind: str, spec: Any, key: str, output: Path = Path()) -> Any:
    """Make a Keras object from its spec.

    Args:
        kind: a kind of `keras_names.ALLOWED`.
        spec: `Name` or `{Name: arguments}`.
        key: of the spec, for messages.
        output: the folder of relative paths in arguments.

    Raises:
        InputError: as `keras_names.check_spec` and `own_code.instance` do, for values that Keras refuses, and for a
            metric that has not its scores' name.
    """
    name, arguments = keras_names.parse_spec(spec, key)
    keras_names.check_spec(kind, spec, key)
    if kind == "activations":
        return name
    where = key if kind == "optimizers" or isinstance(spec, str) else f"{key}.{name}"
    made = {}
    for argument, value in arguments.items():
        nested = keras_names.argument_kind(argument)
        if argument in keras_names.PATH_ARGUMENTS:
            value = str(output / value)
        elif nested is not None and isinstance(value, str | dict):
            value = make_keras_object(nested, value, f"{where}.{argument}", output)
        made[argument] = value
    if name in own_code.own_classes(kind):
        own = own_code.instance(kind, name, made)
        if kind == "metrics" and own.name != (wanted := keras_names.metric_name(spec)):
            raise InputError(
                f"class {name}: is named {own.name}, not {wanted}; let __init__ take name=None and hand it on, "
                "super().__init__(name=name)"
            )
        return own
    try:
        return getattr(_MODULES.get(kind) or getattr(keras, kind), name)(**made)
    except REFUSALS as error:
        reason = keras_reason(error)
        named = [name for name in arguments if re.search(rf"\b{name}\b", reason)] or list(arguments)
        argument = f".{named[0]}={format_value(arguments[named[0]])}" if len(named) == 1 else ""
        raise InputError(f"{where}{argument}: {reason}") from error
