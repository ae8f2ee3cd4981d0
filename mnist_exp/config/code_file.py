"""What the file that `code=` names registers, read from its text: the file runs only once Keras is imported.

Only a file that the user typed gets here; see `composition.typed_code`. Imports nothing heavy.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, Union

from mnist_exp.config.keras_source import REQUIRED, arguments_of, has_class, literal, signature_of
from mnist_exp.errors import InputError

Base = TypeVar("Base")

PACKAGE = "mnist_exp_code"  # what the names of the modules begin with that such files become

# What a class derives from says what it can be named as.
_KINDS = {
    "keras.callbacks": "callbacks",
    "keras.constraints": "constraints",
    "keras.initializers": "initializers",
    "keras.layers": "layers",
    "keras.losses": "losses",
    "keras.metrics": "metrics",
    "keras.optimizers": "optimizers",
    "keras.optimizers.schedules": "schedules",
    "keras.regularizers": "regularizers",
}
_BASES = {f"keras.{name}": f"keras.{name.lower()}s.{name}" for name in ("Layer", "Loss", "Metric")} | {
    f"keras.{name}": f"keras.{name.lower()}s.{name}" for name in ("Initializer", "Optimizer", "Regularizer")
}
_KERAS_DECORATORS = ("keras.saving.register_keras_serializable", "keras.utils.register_keras_serializable")
_OWN_DECORATORS = {"mnist_exp.model": "model", "mnist_exp.dataset": "dataset"}
_KEYS_OF_ALL = {"model": ("kind",), "dataset": ("kind", "limit", "seed", "validation")}


@dataclass(frozen=True)
class CodeFile:
    """A file of the user's own: its path as it was typed, and its text, which goes to the processes of a sweep's jobs.

    `digest`: 12 hexadecimal digits of the text's SHA-256. `label`: the file's name and its digest.
    """

    path: str
    text: str

    @property
    def digest(self) -> str:  # noqa: D102
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:  # noqa: D102
        return f"{Path(self.path).name} {self.digest}"

    @property
    def module(self) -> str:
        """The name of the module that the file becomes; a model that is kept names its classes by it."""
        stem = re.sub(r"\W", "_", Path(self.path).stem)
        return f"{PACKAGE}.{stem}_{self.digest}"


class Key(NamedTuple):
    """A key in YAML that a function takes as an argument: its type, and its default or `REQUIRED`."""

    type: Any
    default: Any


@dataclass(frozen=True)
class OwnClass:
    """A class of the file: its arguments with their defaults, and the methods that it defines itself."""

    signature: Mapping[str, Any]
    methods: frozenset[str]


@dataclass(frozen=True)
class Registered:
    """What a file registers, by kind and name.

    `classes`: for each kind of `keras_names.ALLOWED`. `functions`: for `model` and `dataset`, their keys.
    """

    classes: Mapping[str, Mapping[str, OwnClass]]
    functions: Mapping[str, Mapping[str, Mapping[str, Key]]]


def read_code(path: str) -> CodeFile:
    """Read a file, and check what it registers, without running it.

    Raises:
        InputError: if it is no Python file, or registers what cannot be named.
    """
    file = Path(path).expanduser()
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"code={path}: must be a Python file, such as code=mine.py")
    try:
        code = CodeFile(path, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise InputError(f"code={path}: cannot be read ({error})") from error
    registered(code)
    return code


# The file that configuration may take names from; one a process at a time, as Keras has one registry a process.
_in_use: CodeFile | None = None


def use(code: CodeFile | None) -> None:
    """Let configuration name what a file registers; None: nothing beyond Keras and this project."""
    global _in_use
    _in_use = code


def in_use() -> CodeFile | None:
    """Return the file whose names configuration may use now."""
    return _in_use


def own_classes(kind: str) -> Mapping[str, OwnClass]:
    """Return the classes of a kind that configuration may name beyond Keras's."""
    if _in_use is None:
        return {}
    return registered(_in_use).classes["layers" if kind == "augmentations" else kind] if kind != "activations" else {}


def own_functions(group: Literal["model", "dataset"]) -> Mapping[str, Mapping[str, Key]]:
    """Return the functions that a group may choose, with their keys."""
    return registered(_in_use).functions[group] if _in_use is not None else {}


def dataclass_of(name: str, base: type[Base], keys: Mapping[str, Key]) -> type[Base]:
    """Return the dataclass that checks the keys of a function: those of `base`, `kind`, and its own."""
    types = [(key, one.type) for key, one in keys.items()]
    made = _dataclasses.get((name, base, *types))
    if made is None:
        made = make_dataclass(name, [("kind", Literal[name]), *types], bases=(base,), frozen=True, kw_only=True)
        _dataclasses[name, base, *types] = made
    return made


_dataclasses: dict[tuple[Any, ...], Any] = {}  # one for each function, so that two configurations can be equal


@cache
def registered(code: CodeFile) -> Registered:
    """Return what a file registers at its top level, with Keras's decorator and with the two of this project.

    Raises:
        InputError: for a file that Python cannot parse, a name that Keras has, a class of no known kind, or a
            function whose arguments cannot be keys.
    """
    try:
        tree = ast.parse(code.text, code.path)
    except SyntaxError as error:
        shown = f": {error.text.strip()}" if error.text else ""
        raise InputError(f"{code.path}, line {error.lineno}: {error.msg}{shown}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # such as a null byte
        raise InputError(f"code={code.path}: must be Python ({error})") from error
    reader = _Reader(code.path, tree)
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"code={code.path}: defines {', '.join(twice)} twice; give each a name of its own")
    classes: dict[str, dict[str, OwnClass]] = {kind: {} for kind in _KINDS.values()}
    functions: dict[str, dict[str, Mapping[str, Key]]] = {"model": {}, "dataset": {}}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(map(reader.is_of_keras, node.decorator_list)):
            kind, signature = reader.class_of(node)
            methods = frozenset(item.name for item in node.body if isinstance(item, ast.FunctionDef))
            classes[kind][node.name] = OwnClass(signature, methods)
        elif isinstance(node, ast.FunctionDef):
            for group in filter(None, map(reader.group, node.decorator_list)):
                functions[group][node.name] = reader.keys(node, group)
    if not any(classes.values()) and not any(functions.values()):
        raise InputError(f"code={code.path}: registers nothing; see docs/own-code.md for the three decorators that do")
    return Registered(classes, functions)


class _Reader:
    """Reads the top level of a file; knows what its names stand for."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._path = path
        self._local = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._imported = dict(_imports(tree))

    def is_of_keras(self, decorator: ast.expr) -> bool:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        return self._dotted(called) in _KERAS_DECORATORS

    def group(self, decorator: ast.expr) -> str | None:
        return _OWN_DECORATORS.get(self._dotted(decorator))

    def class_of(self, node: ast.ClassDef) -> tuple[str, dict[str, Any]]:
        """Return the kind of a class, and its arguments with those that it hands on to its base."""
        where = f"{self._path}, line {node.lineno}: class {node.name}"
        kind = self._kind(node)
        if kind is None:
            bases = ", ".join(map(ast.unparse, node.bases)) or "nothing"
            raise InputError(
                f"{where} derives from {bases}; what configuration can name derives from a class of "
                f"{', '.join(sorted(_KINDS))}"
            )
        if any(has_class(one, node.name) for one in _KINDS.values()) or node.name in {"Branches", "Residual"}:
            raise InputError(f"{where}: has a name that Keras or this project has; give it another")
        if kind == "callbacks" and not _defines(node, "get_config"):
            raise InputError(
                f"{where}: needs a get_config method, without which Keras registers no callback; "
                "def get_config(self): return {}"
            )
        return kind, self._signature(node, kind)

    def keys(self, node: ast.FunctionDef, group: str) -> dict[str, Key]:
        """Return the keys of a function: its arguments, of a model but for the first, which is the tensor."""
        where = f"{self._path}, line {node.lineno}: {group} {node.name}"
        given = node.args
        positional = given.posonlyargs + given.args
        if given.vararg or given.kwarg:
            raise InputError(f"{where}: its arguments become keys, so it can have no *args and **kwargs")
        if group == "model" and not positional:
            raise InputError(f"{where}: its first argument must be the tensor that it gets, such as inputs")
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
        pairs = [*zip(positional, [*defaults, *given.defaults], strict=True)]
        pairs = [*pairs[group == "model" :], *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
        keys = {}
        for argument, default in pairs:
            name = f"{where}, argument {argument.arg}"
            if argument.arg in _KEYS_OF_ALL[group]:
                raise InputError(f"{name}: is a key that each {group} has; give it another name")
            if argument in given.posonlyargs:
                raise InputError(f"{name}: must be one that can be given by name, so leave / out")
            keys[argument.arg] = _key(argument, default, name)
        return keys

    def _dotted(self, node: ast.expr) -> str:
        """Return what a name stands for, such as `keras.layers.Layer`; empty for what is no name."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self._dotted(node.value)):
            return f"{owner}.{node.attr}".removeprefix("tensorflow.")
        return ""

    def _base(self, node: ast.ClassDef) -> tuple[str, str] | ast.ClassDef | None:
        """Return the first base that is of a known kind, as kind and name, or a class of the same file."""
        for expression in node.bases:
            dotted = self._dotted(expression)
            package, _, name = _BASES.get(dotted, dotted).rpartition(".")
            if package in _KINDS and has_class(_KINDS[package], name):
                return _KINDS[package], name
            if dotted in self._local and dotted != node.name:
                return self._local[dotted]
        return None

    def _kind(self, node: ast.ClassDef) -> str | None:
        base = self._base(node)
        return self._kind(base) if isinstance(base, ast.ClassDef) else base and base[0]

    def _signature(self, node: ast.ClassDef, kind: str) -> dict[str, Any]:
        found = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        own = arguments_of(found.args) if found is not None else {}
        if found is not None and found.args.kwarg is None:
            return own
        base = self._base(node)
        assert base is not None
        inherited = self._signature(base, kind) if isinstance(base, ast.ClassDef) else signature_of(*base)
        return own | {name: default for name, default in inherited.items() if name not in own}


def _defines(node: ast.ClassDef, method: str) -> bool:
    return any(isinstance(item, ast.FunctionDef) and item.name == method for item in node.body)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}".removeprefix("tensorflow.")


def _key(argument: ast.arg, default: ast.expr | None, where: str) -> Key:
    value = REQUIRED if default is None else literal(default)
    if default is not None and value is None and ast.unparse(default) != "None":
        raise InputError(f"{where}: its default {ast.unparse(default)} must be a number, a text, true, false or None")
    if argument.annotation is not None:
        return Key(_type(argument.annotation, where), value)
    return Key(type(value) if isinstance(value, bool | int | float | str) else Any, value)


_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "Any": Any, "None": None, "list": list[Any]}


def _type(node: ast.expr, where: str) -> Any:
    """Return the type that an annotation names."""
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):
            return _type(ast.parse(text, mode="eval").body, where)
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _PLAIN:
            return _PLAIN[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type(left, where), _type(right, where)]  # noqa: UP007 # of types that are values here
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type(item, where)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=item):
            return Union[_type(item, where), None]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=item):
            choices = literal(item)
            choices = choices if isinstance(choices, tuple) else (choices,)
            if all(isinstance(choice, str) for choice in choices):
                return Literal[choices]
    raise InputError(
        f"{where}: its type {ast.unparse(node)} must be made of int, float, bool, str, None, list[...] and "
        "Literal[...] of texts"
    )
