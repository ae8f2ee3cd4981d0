"""Load saved models, if all that they name is what models here are made of."""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnist_exp.config import keras_names
from mnist_exp.config.code_file import PACKAGE, CodeFile
from mnist_exp.errors import InputError, printable
from mnist_exp.learning.keras_backend import REFUSALS, keras, keras_reason
from mnist_exp.learning.metadata import DAMAGED
from mnist_exp.learning.own_code import SAVED_KINDS, saved_classes


def load(path: Path, code: CodeFile | None = None) -> keras.Model:
    """Load a model that `servable` made, from a file that may come from others; it may have classes of `code`.

    Raises:
        InputError: if it is no such file, or names a class that a configuration could not.
    """
    saved = _saved(path)
    needed = _needed_code(saved)
    if needed and code is None:
        raise InputError(
            f"{path}: has layers of {' and '.join(needed)}; name that file, such as --code {needed[0].split()[0]}. The "
            "run has it as the artifact code/, and in its output folder"
        )
    own = saved_classes(code) if needed and code else set()
    if foreign := _foreign_classes(saved, own):
        raise InputError(f"{path}: contains {', '.join(foreign)}, which models here may not; it is not loaded")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        takes_images = _IMAGES.fullmatch(str(model.input_shape)) and model.inputs[0].dtype in _PIXELS
        fits = takes_images and len(model.output_shape) == 2
    except (*REFUSALS, *DAMAGED) as error:
        raise InputError(f"{path}: must be a file model.keras that a run wrote ({keras_reason(error)})") from error
    if not fits:
        raise InputError(f"{path}: must take images and give a probability for each class; takes {model.input_shape}")
    return model


def needed_code(path: Path) -> list[str]:
    """Return the names and digests, as in `CodeFile.label`, of the user's files that a saved model has layers of.

    Raises:
        InputError: if it is no such model.
    """
    return _needed_code(_saved(path))


def _needed_code(saved: Any) -> list[str]:
    found = (_OWN_MODULE.fullmatch(str(node.get("module"))) for node in _named(saved))
    return sorted({f"{match[1]}.py {match[2]}" for match in found if match})


def _saved(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as file:
            if others := sorted(set(file.namelist()) - _MEMBERS):
                raise ValueError(f"it also has {printable(others[0])[:60]}")
            with file.open("config.json") as member:  # a small member may unpack to any length
                content = member.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError(f"its config.json has more than {_LONGEST} bytes")
        return json.loads(content)
    except (*REFUSALS, *DAMAGED) as error:
        raise InputError(f"{path}: must be a file model.keras that a run wrote ({error})") from error


def check_loadable(model: keras.Model, code: CodeFile, where: str) -> None:
    """Check that a model can be loaded again once it is saved; `where` begins the message."""
    try:
        saved = json.loads(model.to_json())
    except REFUSALS as error:
        raise InputError(f"{where}: cannot be saved ({keras_reason(error)})") from error
    if foreign := _foreign_classes(saved, saved_classes(code)):
        raise InputError(
            f"{where}: contains {', '.join(foreign)}, which a saved model may not; write a layer in {code.path}, "
            "registered with @keras.saving.register_keras_serializable()"
        )
    try:
        keras.models.model_from_json(json.dumps(saved))
    except REFUSALS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()  # the others are configuration
        raise InputError(
            f"{where}: could be saved but not loaded again ({reason}); the __init__ of each layer in "
            f"{code.path} must take **kwargs and hand them on, and its get_config return all other arguments"
        ) from error


_MEMBERS = frozenset({"config.json", "metadata.json", "mnist_exp.json", "model.weights.h5"})
_LONGEST = 50_000_000  # bytes
_IMAGES = re.compile(r"\(None, [1-9]\d{0,3}, [1-9]\d{0,3}(, [1-4])?\)")  # height, width, and perhaps channels
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


def _foreign_classes(saved: Any, own: set[tuple[str, str]]) -> list[str]:
    """Return what a saved model names beyond `own` and the names of Keras that models here may have."""
    foreign = set()
    for node in _named(saved):
        name = str(node["class_name"])
        registered, module = str(node.get("registered_name") or name), str(node.get("module"))
        if _OWN_MODULE.fullmatch(module):
            known = (name, registered) in own
        else:
            kind = module.removeprefix("keras.")
            of_keras = keras_names.ALLOWED[kind] if kind in SAVED_KINDS else frozenset()
            known = {name, registered} <= {*_KEPT.get(module, "").split(), *of_keras}
        if not known:
            foreign.add(f"{node['module']}.{name}" if node.get("module") else name)
    return sorted(foreign)


def _named(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a saved model that name a class."""
    if isinstance(node, list):
        for item in node:
            yield from _named(item)
    elif isinstance(node, dict):
        if "class_name" in node:
            yield node
        for item in node.values():
            yield from _named(item)
