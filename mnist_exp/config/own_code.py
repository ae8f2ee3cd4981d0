"""Import the Python file of `code=`, and keep its registrations.

Only a file that the user typed gets here (`composition.offer_user_choices`).
"""

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from operator import attrgetter
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mnist_exp.config.files import read_text
from mnist_exp.config.keras_source import REQUIRED, has_class, is_plain
from mnist_exp.errors import InputError

PACKAGE = "mnist_exp_code"  # the package of the modules that such files become
SAVED_KINDS = ("constraints", "initializers", "layers", "regularizers")  # a saved model may have objects of these
# The functions that `@mnist_exp.model` and `@mnist_exp.dataset` registered, by group and name.
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {"model": {}, "dataset": {}}

# A class is of the kind that its base lies in; configuration names it as that.
_BASES = (
    *("callbacks.Callback", "constraints.Constraint", "initializers.Initializer", "layers.Layer", "losses.Loss"),
    *("metrics.Metric", "optimizers.Optimizer", "regularizers.Regularizer"),
    "optimizers.schedules.LearningRateSchedule",
)
_ON_BATCHES = re.compile("on_((train|test|predict)_)?batch_(begin|end)")
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class CodeFile:
    """The user's file, as a path and its text, which the processes of jobs get."""

    path: str
    text: str

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The file's name and digest."""
        return f"{Path(self.path).name} {self.digest}"

    @property
    def module(self) -> str:
        """The module that the file becomes, by which a saved model names its classes."""
        stem = re.sub(r"\W", "_", Path(self.path).stem)
        return f"{PACKAGE}.{stem}_{self.digest}"


@dataclass(frozen=True)
class _Imported:
    """A file, its module, and the classes and functions that it registered."""

    code: CodeFile
    module: ModuleType
    objects: Mapping[str, Mapping[str, Any]]


_in_use: _Imported | None = None


def read_code(path: str) -> CodeFile:
    """Return the text of a Python file.

    Raise InputError if it cannot be read or is not Python.
    """
    if Path(path).suffix != ".py":
        raise InputError(f"code={path}: must be a Python file, such as code=mine.py")
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # an unknown home
        raise InputError(f"code={path}: cannot be read ({error})") from error
    return CodeFile(path, read_text(file, f"code={path}", encoding="utf-8-sig"))


def use(code: CodeFile | None) -> None:
    """Let configuration use a file's registrations, and import it unless it is in use.

    Keras's backend must have been chosen.

    Raises:
        InputError: if the file fails, with its line, or registers nothing, or a name of Keras.
    """
    global _in_use
    if code is None or _in_use is None or _in_use.code != code:
        _in_use = None
        _in_use = _import(code) if code is not None else None


def active_file() -> CodeFile | None:
    """Return the file whose names configuration may use."""
    return _in_use.code if _in_use is not None else None


def own_classes(kind: str) -> Mapping[str, type]:
    """Return the classes of a kind in the file in use, by name."""
    return _objects("layers" if kind == "augmentations" else kind)


def read_arguments(own_class: Any) -> dict[str, Any]:
    """Return the arguments of a class with defaults, and its bases' for `**kwargs`.

    The default is None where YAML cannot say it, or where a base requires a value that the class may pass.
    """
    found: dict[str, Any] = {}
    for init in (vars(base)["__init__"] for base in own_class.__mro__ if "__init__" in vars(base)):
        parameters = [*inspect.signature(init).parameters.values()][1:]
        for parameter in parameters:
            is_kept = is_plain(parameter.default) or (parameter.default is REQUIRED and init is own_class.__init__)
            if parameter.kind not in _OPEN:
                found.setdefault(parameter.name, parameter.default if is_kept else None)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def acts_on_batches(callback: type) -> bool:
    """Whether a callback's own classes have a method that Keras calls within an epoch."""
    own = [base for base in callback.__mro__ if not base.__module__.startswith("keras.")]
    return any(_ON_BATCHES.fullmatch(name) for base in own for name in vars(base))


def keys(group: str) -> dict[str, dict[str, inspect.Parameter]]:
    """Return the keys of each function of a group in the file in use.

    The `group` is `model` or `dataset`. Keys are the arguments but for a model's first one, the
    tensor, and for those whose default YAML cannot say.

    Raises:
        InputError: for a type that is not defined.
    """
    found: dict[str, dict[str, inspect.Parameter]] = {}
    for name, function in _objects(group).items():
        try:
            types = get_type_hints(function)
        except Exception as error:  # any, since annotations are evaluated
            raise InputError(f"{_where(group, name)}: its types cannot be read ({error})") from error
        found[name] = {}
        for parameter in [*inspect.signature(function).parameters.values()][group == "model" :]:
            if parameter.kind not in _OPEN and (parameter.default is REQUIRED or is_plain(parameter.default)):
                inferred = type(parameter.default) if isinstance(parameter.default, bool | int | float | str) else Any
                wanted = types.get(parameter.name, inferred)
                found[name][parameter.name] = parameter.replace(annotation=wanted if _is_type(wanted) else Any)
    return found


def own_choices(group: Literal["model", "dataset"], base: type) -> list[Any]:
    """Return a dataclass for each function of a group, to check its keys.

    Raises:
        InputError: for an argument whose name the base, or Hydra, needs.
    """
    found = []
    for name, own in keys(group).items():
        if taken := [key for key in own if key in {"defaults", *map(attrgetter("name"), fields(base)), *dir(base)}]:
            where = f"{_where(group, name)}, argument {taken[0]}"
            raise InputError(f"{where}: cannot be a key of a {group}; give it another name")
        found.append(_make_dataclass(name, base, tuple((key, parameter.annotation) for key, parameter in own.items())))
    return found


def hint_registration(name: object) -> str:
    """Return a hint if the file in use defines this class without registering it.

    Otherwise return "".
    """
    if _in_use is None or not inspect.isclass(vars(_in_use.module).get(str(name))):
        return ""
    return f"; {_in_use.code.path} defines it, but without @keras.saving.register_keras_serializable() above it"


def saved_classes() -> set[tuple[str, str]]:
    """Return the own and registered names of the classes that a saved model may have."""
    from mnist_exp.config.keras_backend import keras

    classes = [found for kind in SAVED_KINDS for found in own_classes(kind).values()]
    return {(found.__name__, keras.saving.get_registered_name(found)) for found in classes}


def call(group: str, chosen: Any, *inputs: Any) -> Any:
    """Call the user's function `chosen.kind` with the keys of `chosen`.

    Args:
        group: "model" or "dataset".
        chosen: the keys of the group, `kind` included.
        inputs: arguments that come before the keys.

    Raises:
        InputError: for whatever it raises, with the line of the file.
    """
    assert _in_use is not None
    with _running(_in_use.code):
        given = {key: getattr(chosen, key) for key in keys(group)[chosen.kind]}
        return _in_use.objects[group][chosen.kind](*inputs, **given)


def instance(kind: str, name: str, given: Mapping[str, Any]) -> Any:
    """Make an object of a class of the file in use.

    Args:
        kind: a kind of Keras object, such as "layers".
        name: the class.
        given: its arguments.

    Raises:
        InputError: if a saved model would lose an argument, or for whatever the class raises.
    """
    assert _in_use is not None
    with _running(_in_use.code):
        made = own_classes(kind)[name](**given)
        if kind in SAVED_KINDS and (lost := sorted(given.keys() - made.get_config().keys())):
            raise InputError(
                f"{_where('class', name)}: its get_config must return {', '.join(lost)} too, or a saved model cannot "
                "be loaded again"
            )
    return made


def _where(kind: str, name: str) -> str:
    return f"{_in_use and _in_use.code.path}, {kind} {name}"


def _objects(kind: str) -> Mapping[str, Any]:
    return _in_use.objects.get(kind, {}) if _in_use is not None else {}


def _import(code: CodeFile) -> _Imported:
    """Run a file as a module, and return the registrations of it and its imports."""
    from mnist_exp.config.keras_backend import keras

    spec = spec_from_file_location(code.module, Path(code.path).expanduser().absolute())
    assert spec is not None
    sys.modules[code.module] = module = module_from_spec(spec)
    with _running(code):
        # The text that was read: the file may have been edited since, or be on another machine.
        exec(compile(code.text, code.path, "exec"), vars(module))  # noqa: S102 # the user typed this file
    named = [*vars(module).values()]
    modules = {code.module, *(value.__name__ for value in named if isinstance(value, ModuleType))}

    def own(registry: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name.rpartition(">")[2]: value
            for name, value in registry.items()
            if value.__module__ in modules or any(value is thing for thing in named)
        }

    objects = {group: own(functions) for group, functions in FUNCTIONS.items()}
    classes = {name: value for name, value in own(keras.saving.get_custom_objects()).items() if inspect.isclass(value)}
    for base in _BASES:
        kind = base.split(".")[-2]
        if taken := [name for name in classes if has_class(kind, name) or name in ("Branches", "Residual")]:
            raise InputError(
                f"{code.path}, class {taken[0]}: has a name that Keras or this project has; give it another"
            )
        objects[kind] = {
            name: value
            for name, value in classes.items()
            if issubclass(value, attrgetter(base)(keras)) and not issubclass(value, keras.Model)
        }
    if not any(objects.values()):
        raise InputError(
            f"code={code.path}: registers nothing; put @mnist_exp.model or @mnist_exp.dataset above a function, or "
            "@keras.saving.register_keras_serializable() above a class"
        )
    return _Imported(code, module, objects)


@contextmanager
def _running(code: CodeFile) -> Iterator[None]:
    """Let the file import modules beside it, after installed ones.

    Raise InputError, with its line, for an error.
    """
    folder = str(Path(code.path).expanduser().absolute().parent)
    sys.path.append(folder)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.path]
        place = f"{code.path}, line {lines[-1]}" if lines else code.path
        raise InputError(" ".join(f"{place}: {type(error).__name__}: {error}".split())) from error
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]


def _is_type(wanted: Any) -> bool:
    """Whether `conversion.convert` knows a type."""
    if get_origin(wanted) is Literal:
        return all(isinstance(choice, str) for choice in get_args(wanted))
    if get_origin(wanted) in (Union, UnionType, list):
        return all(map(_is_type, get_args(wanted)))
    return wanted in (int, float, bool, str, list, Any, NoneType)


@cache  # equal configurations need equal classes
def _make_dataclass(name: str, base: type, keys: tuple[tuple[str, Any], ...]) -> Any:
    return make_dataclass(name, [("kind", Literal[name]), *keys], bases=(base,), frozen=True, kw_only=True)
