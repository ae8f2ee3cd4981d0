"""Import the file that `code=` names, and read what it registers."""

import importlib
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mnist_exp.config import keras_names
from mnist_exp.config.code_file import FUNCTIONS, PACKAGE, CodeFile, Key, Names, OwnClass, in_use
from mnist_exp.config.keras_source import REQUIRED, has_class, is_plain
from mnist_exp.errors import InputError, show
from mnist_exp.training.keras_backend import keras

# A class is of the kind of its base; configuration names it as that.
_BASES = {
    "callbacks": keras.callbacks.Callback,
    "constraints": keras.constraints.Constraint,
    "initializers": keras.initializers.Initializer,
    "layers": keras.layers.Layer,
    "losses": keras.losses.Loss,
    "metrics": keras.metrics.Metric,
    "optimizers": keras.optimizers.Optimizer,
    "regularizers": keras.regularizers.Regularizer,
    "schedules": keras.optimizers.schedules.LearningRateSchedule,
}
SAVED_KINDS = ("constraints", "initializers", "layers", "regularizers")  # a saved model may have objects of these

# Keys and attributes of a choice, and Hydra's own; no argument of a function may have such a name.
_TAKEN_KEYS = {
    "model": {"kind", "preprocessing", "hidden_layers", "defaults"},
    "dataset": {"kind", "limit", "seed", "validation", "read", "files", "defaults"},
}
_ON_BATCHES = re.compile("on_((train|test|predict)_)?batch_(begin|end)")


@dataclass(frozen=True)
class _Imported:
    """A file with its module, and its classes by kind and name and functions by group and name."""

    code: CodeFile
    module: ModuleType
    objects: Mapping[tuple[str, str], Any]


_imported: _Imported | None = None  # only the last file, since another may register other classes by the same names
_neighbours: set[str] = set()  # the modules beside it that it imported


def import_code(code: CodeFile) -> CodeFile:
    """Run a file, unless it was the last to run, and return it with the names that it registers.

    Raises:
        InputError: if it fails, with the line where it does, or registers nothing, or what cannot be named.
    """
    return _import(code).code


def call(group: str, chosen: Any, *arguments: Any) -> Any:
    """Call the function of the file in use that is named `chosen.kind`, with its keys from `chosen`.

    Raises:
        InputError: if the function ends the program.
        Exception: whatever else it raises.
    """
    imported = _import(in_use())
    keys = {key: getattr(chosen, key) for key in imported.code.names.functions[group][chosen.kind]}
    with _neighbours_importable(imported.code, imported.module):
        return imported.objects[group, chosen.kind](*arguments, **keys)


def instance(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """Make an object of a class of the file in use.

    Raises:
        InputError: if a saved model would lose an argument, or a metric is named otherwise than its scores.
        Exception: whatever the class raises.
    """
    imported = _import(in_use())
    made = imported.objects["layers" if kind == "augmentations" else kind, name](**arguments)
    where = f"{imported.code.path}, class {name}"
    if kind in SAVED_KINDS:
        try:
            kept = made.get_config()
        except NotImplementedError as error:
            raise InputError(f"{where}: needs a get_config method that returns its arguments") from error
        if lost := sorted(arguments.keys() - kept.keys()):
            raise InputError(
                f"{where}: its get_config must return {', '.join(lost)} too, or a saved model cannot be loaded again"
            )
    if kind == "metrics" and made.name != (wanted := keras_names.metric_name({name: dict(arguments)})):
        raise InputError(
            f"{where}: is named {made.name}, not {wanted}; let __init__ take name=None and hand it on, "
            "super().__init__(name=name)"
        )
    return made


def saved_classes(code: CodeFile) -> set[tuple[str, str]]:
    """Return the own and the registered name of each class that a saved model may have.

    Raises:
        InputError: as `import_code` does.
    """
    classes = [value for (kind, _), value in _import(code).objects.items() if kind in SAVED_KINDS]
    return {(value.__name__, keras.saving.get_registered_name(value)) for value in classes}


def _import(code: CodeFile | None) -> _Imported:
    global _imported
    assert code is not None
    if _imported is None or _imported.code != code:
        _imported = None
        _imported = _registered(code, _run(code))
    return _imported


def _run(code: CodeFile) -> ModuleType:
    """Run a file's text as a module."""
    package, module = ModuleType(PACKAGE), ModuleType(code.module)
    package.__path__ = []  # pickle then finds the module, but nothing on disk
    sys.modules.setdefault(PACKAGE, package)
    file = Path(code.path).expanduser().absolute()
    module.__file__ = str(file)
    # A traceback then shows the text that runs, even if the file was edited since or is on another machine.
    linecache.cache[code.path] = len(code.text), None, code.text.splitlines(keepends=True), code.path
    gone = {code.module, *_neighbours}
    for registry in (keras.saving.get_custom_objects(), *FUNCTIONS.values()):
        for name in [name for name, value in registry.items() if getattr(value, "__module__", None) in gone]:
            del registry[name]
    while _neighbours:  # they may have been edited, too
        sys.modules.pop(_neighbours.pop(), None)
    importlib.invalidate_caches()
    before = set(sys.modules)
    sys.modules[code.module] = module
    failure = ""
    try:
        with _neighbours_importable(code, module):
            exec(compile(code.text, code.path, "exec"), module.__dict__)  # noqa: S102 # the user typed this file
    except InputError:
        raise
    except Exception as error:
        failure = _failure(error, code, file.parent)
    finally:
        for name in sys.modules.keys() - before - {code.module}:
            if name.partition(".")[0] in {"mnist_exp", "hydra_plugins"}:
                continue
            if (path := getattr(sys.modules[name], "__file__", None)) and file.parent in Path(path).parents[:2]:
                _neighbours.add(name)
    if failure:
        raise InputError(failure)  # without a context, of which a traceback would be shown
    return module


def _failure(error: Exception, code: CodeFile, folder: Path) -> str:
    """Return an error in one line, with the last line of the user's files in its traceback."""
    if isinstance(error, SyntaxError):
        shown = f": {error.text.strip()}" if error.text else ""
        return f"{error.filename or code.path}, line {error.lineno}: {error.msg}{shown}"
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if file.suffix == ".py" and file.absolute().parent == folder]
    place = "{}, line {}".format(*own[-1]) if own else code.path
    return " ".join(f"{place}: {type(error).__name__}: {error}".split())


@contextmanager
def _neighbours_importable(code: CodeFile, module: ModuleType) -> Iterator[None]:
    """Let the file import modules beside it; installed ones of the same name take precedence."""
    folder = str(Path(str(module.__file__)).parent)
    sys.path.append(folder)
    try:
        yield
    except SystemExit as error:  # would end the run without a word
        raise InputError(f"code={code.path}: ends the program (SystemExit: {error})") from error
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]


def _registered(code: CodeFile, module: ModuleType) -> _Imported:
    """Collect what a file or a module beside it registered, and registered things that the file imports."""
    modules, named = {code.module, *_neighbours}, {id(value) for value in vars(module).values()}

    def is_own(value: Any) -> bool:
        return value.__module__ in modules or id(value) in named

    objects: dict[tuple[str, str], Any] = {}
    classes: dict[str, dict[str, OwnClass]] = {}
    for registered, value in keras.saving.get_custom_objects().items():
        if inspect.isclass(value) and is_own(value):
            name = registered.rpartition(">")[2]
            kind = _kind(value, f"{code.path}, class {name}")
            value.__module__ = code.module  # names the file in a saved model
            objects[kind, name] = value
            classes.setdefault(kind, {})[name] = OwnClass(_signature(value), _acts_on_batches(value))
    functions: dict[str, dict[str, Mapping[str, Key]]] = {}
    for group, members in FUNCTIONS.items():
        for name, function in members.items():
            if is_own(function):
                objects[group, name] = function
                functions.setdefault(group, {})[name] = _keys(function, group, f"{code.path}, {group} {name}")
    if not objects:
        raise InputError(
            f"code={code.path}: registers nothing; put @mnist_exp.model or @mnist_exp.dataset above a function, or "
            "@keras.saving.register_keras_serializable() above a class"
        )
    others = {name for name, value in vars(module).items() if getattr(value, "__module__", None) in modules}
    unregistered = frozenset(others - {name for _, name in objects})
    names = Names(classes, functions, unregistered, keras.backend.backend())
    return _Imported(replace(code, names=names), module, objects)


def _kind(value: type, where: str) -> str:
    name = where.rpartition(" ")[2]
    if name in {"Branches", "Residual"} or any(has_class(kind, name) for kind in _BASES):
        raise InputError(f"{where}: has a name that Keras or this project has; give it another")
    for kind, base in _BASES.items():
        if issubclass(value, base) and not issubclass(value, keras.Model):
            return kind
    found, wanted = (", ".join(base.__name__ for base in bases) for bases in (value.__bases__, _BASES.values()))
    raise InputError(f"{where}: derives from {found}; what configuration can name derives from one of {wanted}")


def _signature(value: type) -> dict[str, Any]:
    """Return the arguments of a class with their defaults, and those of its bases, if `__init__` takes `**kwargs`."""
    found: dict[str, Any] = {}
    inits = [vars(base)["__init__"] for base in value.__mro__ if "__init__" in vars(base)]
    for depth, init in enumerate(inits):
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for one in parameters:
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                # The class's own __init__ may give its bases what they require.
                required = one.default is REQUIRED and not (depth and "__init__" in vars(value))
                found.setdefault(one.name, one.default if required or is_plain(one.default) else None)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found


def _acts_on_batches(value: type) -> bool:
    own = [base for base in value.__mro__ if not base.__module__.startswith("keras.")]
    return any(_ON_BATCHES.fullmatch(name) for base in own for name in vars(base))


def _keys(function: Callable[..., Any], group: str, where: str) -> dict[str, Key]:
    """Return the arguments of a function as keys, without the tensor, which is a model's first one."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters):
        raise InputError(f"{where}: its arguments become keys, so it can have no *args and **kwargs")
    if any(one.kind is one.POSITIONAL_ONLY for one in parameters[group == "model" :]):
        raise InputError(f"{where}: its arguments become keys, so none can stand before a /")
    if group == "model" and not parameters:
        raise InputError(f"{where}: its first argument must be the tensor that it gets, such as inputs")
    try:
        types = get_type_hints(function)
    except Exception as error:  # any, since annotations are evaluated
        raise InputError(f"{where}: its types cannot be read ({error})") from error
    keys = {}
    for one in parameters[group == "model" :]:
        name, default = f"{where}, argument {one.name}", one.default
        if one.name in _TAKEN_KEYS[group]:
            raise InputError(f"{name}: cannot be a key of a {group}; give it another name")
        if default is not REQUIRED and (not is_plain(default) or "${" in repr(default) or default == "???"):
            raise InputError(
                f"{name}: its default {show(default)} must be a number, True, False, None, a text without ${{, or a "
                "list of these"
            )
        inferred = type(default) if isinstance(default, bool | int | float | str) else Any
        if not _is_type(wanted := types.get(one.name, inferred)):
            raise InputError(
                f"{name}: its type {inspect.formatannotation(wanted)} must be made of int, float, bool, str, None, "
                "list[...] and Literal[...] of texts"
            )
        keys[one.name] = Key(wanted, default)
    return keys


def _is_type(wanted: Any) -> bool:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return all(isinstance(choice, str) for choice in inner)
    if origin in (Union, UnionType, list):
        return all(map(_is_type, inner))
    return wanted in (int, float, bool, str, list, Any, NoneType)
