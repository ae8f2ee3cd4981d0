"""From configuration to `keras.Model`. Every kind of model is a list of layers, and one function builds them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mnist_exp.config import code_file, keras_names
from mnist_exp.errors import InputError, show
from mnist_exp.learning.families import Model
from mnist_exp.learning.keras_backend import REFUSALS, keras, keras_reason
from mnist_exp.learning.own_code import instance
from mnist_exp.learning.preprocessing import BYTES, Preprocessor, Raw
from mnist_exp.learning.saved_models import check_loadable

# Where the classes of a kind are, if not in the module of Keras that has its name.
_MODULES = {"augmentations": keras.layers, "schedules": keras.optimizers.schedules}


def set_seed(seed: int) -> None:
    """Let what is built from here on, weights and random layers, depend on `seed` alone."""
    keras.utils.clear_session(free_memory=False)  # which counts the names of layers from the start again
    keras.utils.set_random_seed(seed)


def build(config: Model, shape: tuple[int, ...], classes: int) -> keras.Model:
    """Build the model for prepared images, with one softmax unit a class as its output.

    Args:
        config: what the model is made of.
        shape: of one prepared image, without the batch axis.
        classes: the number of output units.

    Raises:
        InputError: naming the layer that Keras refuses, such as one that does not fit the shape before it.
    """
    inputs = keras.Input(shape)
    flow = _connect(inputs, config.hidden_layers(), f"model={config.kind}, layer {{}}".format)
    if len(flow.shape) != 2:
        raise InputError(
            f"model={config.kind}: the last layer gives shape {flow.shape[1:]}, the output layer takes "
            "vectors; add Flatten or GlobalAveragePooling2D, or start with preprocessing=flatten"
        )
    outputs = make("layers", {"Dense": {"units": classes, "activation": "softmax"}})(flow)
    try:
        model = keras.Model(inputs, outputs)
    except REFUSALS as error:  # two layers of one name
        raise InputError(f"model={config.kind}: {keras_reason(error)}") from error
    if (code := code_file.in_use()) is not None:  # before it is trained: what is kept has to be loaded again
        check_loadable(model, code, f"model={config.kind}")
    return model


def _connect(flow: Any, specs: Sequence[Any], place: Callable[[int], str]) -> Any:
    """Return what `flow` becomes in layers and blocks of layers, one after the other.

    Args:
        flow: a Keras tensor.
        specs: each as `config.conversion` checks it, or a function of the tensor.
        place: the words for the place of a layer, by its index.
    """
    for index, spec in enumerate(specs):
        where = place(index)
        match spec:
            case {"Residual": layers}:
                after = _connect(flow, layers, f"{where}.Residual[{{}}]".format)
                flow = keras.layers.Add()([_shortcut(flow, after.shape, where), after])
            case {"Branches": branches}:
                places = [f"{where}.Branches[{number}][{{}}]".format for number in range(len(branches))]
                ends = [_connect(flow, layers, within) for layers, within in zip(branches, places, strict=True)]
                flow = _apply(keras.layers.Concatenate, ends, where)
            case _ if callable(spec):
                flow = spec(flow)
                if not isinstance(flow, keras.KerasTensor):
                    kind = where.partition(",")[0]
                    raise InputError(
                        f"{kind}: the function must return one Keras tensor; it returned {type(flow).__name__}"
                    )
            case _ if keras_names.is_own("layers", spec):
                flow = make("layers", spec)(flow)  # an error in it shows its own traceback
            case _:
                flow = _apply(partial(make, "layers", spec), flow, f"{where}, {show(spec)}")
    return flow


def _apply(make_layer: Callable[[], Any], flow: Any, where: str) -> Any:
    """Return what a new layer gives for a tensor, or for a list of tensors."""
    try:
        after = make_layer()(flow)
        _ = after.shape  # which a layer that gives several tensors has not
    except InputError:
        raise
    except REFUSALS as error:
        shapes = [one.shape[1:] for one in flow] if isinstance(flow, list) else flow.shape[1:]
        needs = "; if it is for images: preprocessing=image" if len(shapes) == 1 else ""
        raise InputError(f"{where}: does not fit its input of shape {shapes} ({keras_reason(error)}){needs}") from error
    return after


def _shortcut(flow: Any, wanted: tuple[int | None, ...], where: str) -> Any:
    """Return `flow` in the shape that a residual block's layers give: as it is, or through one layer that learns."""
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


def augmentation(specs: Sequence[Any], image_shape: tuple[int, ...], raw: Raw = BYTES) -> keras.Sequential | None:
    """Return a model that changes raw images (N, *image_shape) at random, and keeps their shape and their range.

    Args:
        specs: Keras layers, each as `Name` or `{Name: arguments}`, applied in this order; None comes of none.
        image_shape: (height, width) or (height, width, channels).
        raw: what the pixels are; the layers see 0 to 255, whatever it is, as Keras's own expect.

    Raises:
        InputError: naming the layer that Keras refuses.
    """
    layers = _augmentation_layers(specs, image_shape, raw)
    if not layers:
        return None
    return keras.Sequential([keras.Input(image_shape, dtype=raw.dtype), *layers, keras.layers.Reshape(image_shape)])


def _augmentation_layers(specs: Sequence[Any], image_shape: tuple[int, ...], raw: Raw) -> list[Any]:
    """Return the layers of `specs`, behind two that make floats with a channel axis of raw images."""
    if not specs:
        return []
    shape = (*image_shape, 1) if len(image_shape) == 2 else image_shape
    layers = [keras.layers.Rescaling(255 / raw.maximum), keras.layers.Reshape(shape)]
    for index, spec in enumerate(specs):
        try:
            layer = make("augmentations", spec)
            after = layer(keras.ops.zeros((1, *shape)), training=True).shape
        except InputError:
            raise
        except REFUSALS as error:
            raise InputError(
                f"preprocessing.augment[{index}], {show(spec)}: cannot be used on images of shape {shape} "
                f"({keras_reason(error)})"
            ) from error
        if tuple(after[1:]) != shape:
            raise InputError(
                f"preprocessing.augment[{index}], {show(spec)}: must keep the shape {shape} of images; "
                f"gives {tuple(after[1:])}"
            )
        layers.append(layer)
    return layers if raw.maximum == 255 else [*layers, keras.layers.Rescaling(raw.maximum / 255)]


def servable(
    model: keras.Model, preprocessor: Preprocessor, image_shape: tuple[int, ...], augment: Sequence[Any] = ()
) -> keras.Model:
    """Return `model` behind its own preprocessing: it takes raw images (N, *image_shape).

    It has the layers of `model`, not copies. Before them are those of `augment`, as `augmentation` makes them, which
    act only in training; by default none.

    Raises:
        InputError: naming the layer of `augment` that Keras refuses.
    """
    flow = inputs = keras.Input(image_shape, dtype=preprocessor.raw.dtype)
    for layer in [*_augmentation_layers(augment, image_shape, preprocessor.raw), *preprocessor.layers()]:
        flow = layer(flow)
    alone = keras.Model(model.input, model.output)  # without optimizer and loss, which would be saved with it
    return keras.Model(inputs, alone(flow))


def output_shapes(model: keras.Model) -> Iterator[tuple[int, ...]]:
    """Yield the shape of each layer's output, without the batch axis; of a model within it, those of its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from output_shapes(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield tuple(layer.output.shape[1:])


def make(kind: str, spec: Any, output: Path = Path()) -> Any:
    """Make the Keras object that a checked `spec` names.

    Args:
        kind: one of `keras_names.ALLOWED`.
        spec: `Name` or `{Name: arguments}`.
        output: the folder that paths in arguments are relative to.

    Raises:
        InputError: for a class of the user's own that cannot be used; see `own_code.instance`.
        ValueError, TypeError: what Keras raises for arguments that only it can judge.
    """
    name, arguments = keras_names.parse_spec(spec, kind)
    keras_names.check_spec(kind, spec, kind)
    if kind == "activations":
        return name
    made = {}
    for argument, value in arguments.items():
        of_kind = keras_names.argument_kind(argument)
        if argument in keras_names.PATH_ARGUMENTS:
            made[argument] = str(output / value)
        elif of_kind is not None and isinstance(value, str | dict):
            made[argument] = make(of_kind, value, output)
        else:
            made[argument] = value
    if name in code_file.own_classes(kind):
        return instance(kind, name, made)
    return getattr(_MODULES.get(kind) or getattr(keras, kind), name)(**made)
