"""Load saved models, if they name only classes that configurations can."""

import json
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.config import keras_names, own_code
from mnist_exp.config.files import open_file
from mnist_exp.config.keras_backend import REFUSALS, arrays_within, keras, keras_reason, without_values
from mnist_exp.config.own_code import PACKAGE, SAVED_KINDS, CodeFile, saved_classes
from mnist_exp.data import memory
from mnist_exp.data.metadata import DAMAGED
from mnist_exp.errors import InputError
from mnist_exp.text import truncate


def load(path: Path, code: CodeFile | None = None, folder: Path | None = None) -> keras.Model:
    """Load a model of `serving_model`.

    Args:
        path: a Keras file.
        code: the file with custom classes.
        folder: of the run that saved it; None for a foreign file.

    Raises:
        InputError: if it is no such file, or names a class that a configuration could not.
    """
    saved = _read_config(path, folder)
    needed = _find_needed_code(saved)
    if needed and code is None:
        raise InputError(
            f"{path}: has layers of {' and '.join(needed)}; name that file, such as --code {needed[0].split()[0]}. The "
            "run has it as the artifact code/, and in its output folder"
        )
    if code is not None:
        own_code.use(code)
    if foreign := _foreign_classes(saved):
        raise InputError(f"{path}: contains {', '.join(foreign)}, which models here may not; it is not loaded")
    try:
        size = path.stat().st_size
        if not needed:
            _check_size(saved, size)
        # Keras warns of what the weights lack, before the error.
        with arrays_within(size), warnings.catch_warnings(action="ignore"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        takes_images = _IMAGES.fullmatch(str(model.input_shape)) and model.inputs[0].dtype in _PIXELS
        fits = takes_images and _CLASSES.fullmatch(str(model.output_shape))
    except (*REFUSALS, *DAMAGED) as error:
        raise _refusal(path, error) from error
    if not fits:
        raise InputError(f"{path}: must take images and give a probability for each class; takes {model.input_shape}")
    return model


def find_needed_code(path: Path) -> list[str]:
    """Return the names and digests of the user's files whose layers a saved model has.

    Raises:
        InputError: if it is no such model.
    """
    return _find_needed_code(_read_config(path))


def _find_needed_code(saved: Any) -> list[str]:
    found = (_OWN_MODULE.fullmatch(str(node.get("module"))) for node in _find_classes(saved))
    return sorted({f"{match[1]}.py {match[2]}" for match in found if match})


def _refusal(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: must be a file model.keras that a run wrote ({truncate(keras_reason(error), 300)})")


def _read_config(path: Path, folder: Path | None = None) -> Any:
    """Return a saved model's configuration if its members fit in half of the memory."""
    opened = open_file(path, most=memory.memory() // 2, folder=folder)
    try:
        with opened, zipfile.ZipFile(opened) as file:
            names = [member.filename for member in file.infolist()]
            if others := sorted(set(names) - _MEMBERS):
                raise ValueError(f"it also has {others[0]}")
            if len(set(names)) < len(names) or any(member.compress_type for member in file.infolist()):
                raise ValueError("each of its members must be there once, and not be compressed")
            if file.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
                raise ValueError(f"its config.json has more than {_MAX_CONFIG_BYTES} bytes")
            saved = json.loads(file.read("config.json"))
    except (*REFUSALS, *DAMAGED) as error:
        raise _refusal(path, error) from error
    return saved


def _check_size(saved: Any, most: int) -> None:
    """Check, before making a configuration's weights, that they fit in `most` bytes."""
    with without_values():
        weights = keras.saving.deserialize_keras_object(saved).weights
        size = sum(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in weights)
    if size > most:
        raise ValueError(f"its config.json asks for {size} bytes of weights, more than the file has")
    if most > size + _MAX_OTHER_BYTES:
        raise ValueError(f"it has {most} bytes for {size} bytes of weights")


def check_loadable(model: keras.Model, code: CodeFile, where: str) -> None:
    """Check that a saved model can be loaded again, and then computes the same.

    Args:
        model: the saved one.
        code: the file with its custom classes.
        where: begins messages.
    """
    try:
        saved = json.loads(model.to_json())
    except REFUSALS as error:
        raise InputError(f"{where}: cannot be saved ({keras_reason(error)})") from error
    if foreign := _foreign_classes(saved):
        hint = own_code.hint_registration(foreign[0].rpartition(".")[2]) or (
            f"; write a layer in {code.path}, registered with @keras.saving.register_keras_serializable()"
        )
        raise InputError(f"{where}: contains {', '.join(foreign)}, which a saved model may not{hint}")
    image = np.ones((1, *model.input_shape[1:]), np.float32)
    try:
        loaded = keras.models.model_from_json(json.dumps(saved))
        loaded.set_weights(model.get_weights())
        first, again, later = (np.asarray(member(image)) for member in (model, model, loaded))
        if np.array_equal(first, again) and not np.allclose(first, later):  # the model itself does not draw at random
            raise ValueError("it then computes something else")
    except REFUSALS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()  # the others are configuration
        raise InputError(
            f"{where}: could be saved but not loaded again ({reason}); the __init__ of each layer in "
            f"{code.path} must take **kwargs and hand them on, and its get_config return all other arguments"
        ) from error


_MEMBERS = frozenset({"config.json", "metadata.json", "mnist_exp.json", "model.weights.h5"})
_MAX_CONFIG_BYTES = 5_000_000
_MAX_OTHER_BYTES = 100_000_000  # what a file has beside weights
_IMAGES = re.compile(r"\(None, [1-9]\d{0,3}, [1-9]\d{0,3}(, [1-4])?\)")  # height, width, and perhaps channels
_CLASSES = re.compile(r"\(None, [1-9]\d{0,4}\)")
_PIXELS = frozenset({"uint8", "uint16", "float32"})
_OWN_MODULE = re.compile(rf"{PACKAGE}\.(\w{{1,100}})_([0-9a-f]{{12}})")

# What a saved model may name, by module. A user's function writes Keras's operations as `x + y`; these only compute
# with tensors.
_KEPT = {
    "None": "__ellipsis__ __keras_tensor__ __slice__ __tensor__",
    "keras": "DTypePolicy Sequential",
    "keras.layers": """
        Add AdditiveAttention Attention Average Concatenate Dot EinsumDense Embedding GroupQueryAttention InputLayer
        Maximum Minimum MultiHeadAttention Multiply Subtract""",
    "keras.src.models.functional": "Functional",
    "keras.src.ops.core": "Cast",
    "keras.src.ops.nn": """
        Elu Gelu HardSigmoid LeakyRelu LogSoftmax Normalize Relu Relu6 Selu Sigmoid Silu Softmax Softplus""",
    "keras.src.ops.numpy": """
        Absolute Add Clip Concatenate Cos Divide Dot Einsum Equal Exp ExpandDims Flip GetItem Greater GreaterEqual Less
        LessEqual Log Log1p Matmul Max Maximum Mean Min Minimum Moveaxis Multiply Negative Pad Power Prod Reciprocal
        Repeat Reshape Roll Sin Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take Tanh Tile Transpose TrueDivide
        Var Where""",
}


def _foreign_classes(saved: Any) -> list[str]:
    """Return a saved model's classes that are neither allowed nor the user's own."""
    foreign, own = set(), saved_classes()
    for node in _find_classes(saved):
        name = str(node["class_name"])
        registered, module = str(node.get("registered_name") or name), str(node.get("module"))
        kind = module.removeprefix("keras.")
        of_keras = keras_names.ALLOWED[kind] if kind in SAVED_KINDS else frozenset()
        # Keras looks up the registered name first, whatever the module.
        if (name, registered) not in own and not {name, registered} <= {*_KEPT.get(module, "").split(), *of_keras}:
            foreign.add(f"{node['module']}.{name}" if node.get("module") else name)
    return sorted(foreign)


def _find_classes(saved: Any) -> list[dict[str, Any]]:
    """Return the parts of a saved model, nested to any depth, that name a class."""
    found, waiting = [], [saved]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
            if "class_name" in part:
                found.append(part)
        elif isinstance(part, list):
            waiting += part
    return found
