"""What is read from Keras's source must be what Keras has."""

import inspect

import numpy as np
import pytest
import yaml

from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.config.keras_backend import keras
from mnist_exp.config.keras_names import ALLOWED
from mnist_exp.config.keras_source import REQUIRED, read_signature
from mnist_exp.data.datasets import Data
from mnist_exp.errors import format_value
from mnist_exp.training.models import augmentation_model, make_keras_object


def real_arguments(kind: str, name: str) -> dict[str, object]:
    modules = {"schedules": keras.optimizers.schedules, "augmentations": keras.layers}
    module = modules.get(kind) or getattr(keras, kind)
    parameters = list(inspect.signature(getattr(module, name).__init__).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


@pytest.mark.parametrize("kind", sorted(ALLOWED))
def test_arguments_are_those_of_the_installed_keras(kind: str) -> None:
    if kind == "activations":
        assert all(callable(getattr(keras.activations, name)) for name in ALLOWED[kind])
        return
    for name in ALLOWED[kind]:
        read = read_signature(kind, name)
        real = real_arguments(kind, name)
        assert set(real) <= set(read), name
        assert set(read) - set(real) <= {"name", "trainable", "dtype"}, name
        required = {argument for argument, default in real.items() if default is inspect.Parameter.empty}
        assert {argument for argument, default in read.items() if default is REQUIRED} == required, name


def test_every_optimizer_has_a_file_with_keras_defaults() -> None:
    written = [yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")]
    files = {values["kind"]: values for values in written}
    own = {
        name
        for name, member in vars(keras.optimizers).items()
        if inspect.isclass(member) and issubclass(member, keras.optimizers.Optimizer)
    }
    wrappers = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}  # around other optimizers
    assert set(files) == own - wrappers == set(ALLOWED["optimizers"])
    for name, values in files.items():
        real = real_arguments("optimizers", name)
        real.pop("name")
        assert {key: value for key, value in values.items() if key != "kind"} == pytest.approx(real), name


@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"])
def test_layers_that_run_foreign_code_cannot_be_named(name: str) -> None:
    assert name not in ALLOWED["layers"]


AUGMENTATIONS: dict[str, dict[str, object]] = {
    "RandomBrightness": {"factor": 0.3},
    "RandomContrast": {"factor": 0.3},
    "RandomErasing": {},
    "RandomFlip": {},
    "RandomGaussianBlur": {"sigma": 1.0},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomRotation": {"factor": 0.1},
    "RandomSharpness": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.3},
}


@pytest.mark.parametrize("name", sorted(ALLOWED["augmentations"]))
def test_every_augmentation_keeps_the_shape_and_range(mnist: Data, name: str) -> None:
    keras.utils.set_random_seed(0)
    compose([f"preprocessing.augment=[{format_value({name: AUGMENTATIONS[name]})}]"])
    for images in (mnist.x_train[:20], np.repeat(mnist.x_train[:20, ..., None], 3, axis=-1)):
        augment = augmentation_model([{name: AUGMENTATIONS[name]}], images.shape[1:])
        assert augment is not None
        changed = np.asarray(augment(images, training=True))
        assert changed.shape == images.shape
        assert 0 <= float(changed.min()) < float(changed.max()) <= 256
        assert float(np.abs(changed - images).max()) > 1


def test_nested_objects_are_made() -> None:
    spec = {"Dense": {"units": 3, "kernel_initializer": {"HeNormal": {"seed": 1}}, "kernel_regularizer": "L2"}}
    layer = make_keras_object("layers", spec, "key")
    assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(layer.kernel_regularizer, keras.regularizers.L2)
    wrapped = make_keras_object("layers", {"Bidirectional": {"layer": {"LSTM": {"units": 4}}}}, "key")
    assert isinstance(wrapped.forward_layer, keras.layers.LSTM)
