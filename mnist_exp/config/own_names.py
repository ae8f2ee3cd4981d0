"""What a file of the user's own registers, read from its text: it runs only once Keras is imported.

Imports nothing heavy.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, NamedTuple, Union

from mnist_exp.config.keras_source import REQUIRED, arguments_of, has_class, literal, signature_of, with_defaults
from mnist_exp.errors import InputError

# The module of what a class derives from says what it can be named as.
_MODULES = "callbacks constraints initializers layers losses metrics optimizers optimizers.schedules regularizers"
_KINDS = {f"keras.{module}": module.rpartition(".")[2] for module in _MODULES.split()}
_KERAS_DECORATORS = ("keras.saving.register_keras_serializable", "keras.utils.register_keras_serializable")
_OWN_DECORATORS = {"mnist_exp.model": "model", "mnist_exp.dataset": "dataset"}
# Keys that each choice of a group has, what its class in `learning/` has beside them, and Hydra's own.
_TAKEN_KEYS = {
    "model": frozenset({"kind", "preprocessing", "hidden_layers", "defaults"}),
    "dataset": frozenset({"kind", "limit", "seed", "validation", "read", "defaults"}),
}
# What Hydra reads as a key.
_WORDS = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z]\w*", re.ASCII | re.IGNORECASE)


class Key(NamedTuple):
    """A key in YAML that a function takes as an argument: its type, and its default or `REQUIRED`."""

    type: Any
    default: Any


@dataclass(frozen=True)
class OwnClass:
    """A class of the file: its arguments with their defaults, and the methods that the file defines for it."""

    signature: Mapping[str, Any]
    methods: frozenset[str]


@dataclass(frozen=True)
class Registered:
    """What a file registers, by kind and name.

    `classes`: for each kind of `keras_names.ALLOWED`. `functions`: for `model` and `dataset`, their keys. `others`: the
    names of classes and functions that it defines and does not register.
    """

    classes: Mapping[str, Mapping[str, OwnClass]]
    functions: Mapping[str, Mapping[str, Mapping[str, Key]]]
    others: frozenset[str]


@cache
def registered_in(text: str, path: str) -> Registered:
    """Return what a file registers at its top level, with Keras's decorator and with the two of this project.

    Args:
        text: of the file.
        path: of the file, for messages.

    Raises:
        InputError: for a file that Python cannot parse, a name that Keras has, a class of no known kind, or a
            function whose arguments cannot be keys.
    """
    try:
        tree = ast.parse(text, path)
    except SyntaxError as error:
        shown = f": {error.text.strip()}" if error.text else ""
        raise InputError(f"{path}, line {error.lineno}: {error.msg}{shown}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # such as a null byte
        raise InputError(f"code={path}: must be Python ({error})") from error
    reader = _Reader(path, tree)
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    names = [node.name for node in defined]
    classes: dict[str, dict[str, OwnClass]] = {kind: {} for kind in _KINDS.values()}
    functions: dict[str, dict[str, Mapping[str, Key]]] = {"model": {}, "dataset": {}}
    for node in defined:
        for role in filter(None, (reader.role(decorator, node) for decorator in node.decorator_list)):
            if names.count(node.name) > 1:
                raise InputError(f"code={path}: defines {node.name} twice; give each a name of its own")
            if isinstance(node, ast.FunctionDef):
                functions[role][node.name] = reader.keys(node, role)
            else:
                kind, own = reader.class_of(node)
                classes[kind][node.name] = own
    if not any(classes.values()) and not any(functions.values()):
        raise InputError(
            f"code={path}: registers nothing; put @mnist_exp.model or @mnist_exp.dataset above a function, or "
            "@keras.saving.register_keras_serializable() above a class, at the top level of the file"
        )
    named = {name for group in (classes, functions) for members in group.values() for name in members}
    return Registered(classes, functions, frozenset(names) - named)


class _Reader:
    """Reads the top level of a file; knows what its names stand for."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._path = path
        self._local = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._imported = dict(_imports(tree))

    def role(self, decorator: ast.expr, node: ast.ClassDef | ast.FunctionDef) -> str | None:
        """Return what a decorator registers a class or function as: `class`, `model` or `dataset`; None for another."""
        call = decorator if isinstance(decorator, ast.Call) else None
        name = self._dotted(decorator if call is None else call.func)
        role = "class" if name in _KERAS_DECORATORS else _OWN_DECORATORS.get(name)
        if role is None:
            return None
        where = f"{self._path}, line {node.lineno}: {node.name}"
        if (role == "class") != isinstance(node, ast.ClassDef):
            raise InputError(f"{where}: @{name} is for a {'class' if role == 'class' else 'function'}")
        if (call is not None) != (role == "class"):
            raise InputError(f"{where}: write @{name}{'()' if role == 'class' else ', without parentheses'}")
        if call is not None and (len(call.args) > 1 or any(one.arg != "package" for one in call.keywords)):
            raise InputError(f"{where}: is named in configuration by its own name; leave name= out of the decorator")
        if not _WORDS.fullmatch(node.name):
            raise InputError(f"{where}: must have a name of letters, digits and underscores that begins with a letter")
        return role

    def class_of(self, node: ast.ClassDef) -> tuple[str, OwnClass]:
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
        methods = frozenset(self._methods(node))
        if kind == "callbacks" and "get_config" not in methods:
            raise InputError(
                f"{where}: needs a get_config method, without which Keras registers no callback; "
                "def get_config(self): return {}"
            )
        return kind, OwnClass(self._signature(node), methods)

    def keys(self, node: ast.FunctionDef, group: str) -> dict[str, Key]:
        """Return the keys of a function: its arguments, of a model but for the first, which is the tensor."""
        where = f"{self._path}, line {node.lineno}: {group} {node.name}"
        given, is_model = node.args, group == "model"
        if given.vararg or given.kwarg:
            raise InputError(f"{where}: its arguments become keys, so it can have no *args and **kwargs")
        if is_model and not given.posonlyargs + given.args:
            raise InputError(f"{where}: its first argument must be the tensor that it gets, such as inputs")
        keys = {}
        for argument, default in with_defaults(given, without_first=is_model):
            name = f"{where}, argument {argument.arg}"
            if argument.arg in _TAKEN_KEYS[group] or not _WORDS.fullmatch(argument.arg):
                raise InputError(f"{name}: cannot be a key of a {group}; give it another name")
            if argument in given.posonlyargs:
                raise InputError(f"{name}: must be one that can be given by name, so leave / out")
            keys[argument.arg] = _key(argument, default, name)
        return keys

    def _dotted(self, node: ast.expr) -> str:
        """Return what a name stands for, such as `keras.layers.Layer`; empty for what is no name."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self._dotted(node.value)):
            return _without_tensorflow(f"{owner}.{node.attr}")
        return ""

    def _bases(self, node: ast.ClassDef) -> Iterator[tuple[str, str] | ast.ClassDef]:
        """Yield each base that is Keras's, as kind and name, or a class that stands before in the file."""
        for expression in node.bases:
            dotted = self._dotted(expression)
            package, _, name = dotted.rpartition(".")
            kinds = _KINDS.values() if package == "keras" else filter(None, [_KINDS.get(package)])  # keras.Layer
            local = self._local.get(dotted)
            if local is not None and local.lineno < node.lineno:
                yield local
            yield from ((kind, name) for kind in kinds if has_class(kind, name))

    def _kind(self, node: ast.ClassDef) -> str | None:
        kinds = (self._kind(base) if isinstance(base, ast.ClassDef) else base[0] for base in self._bases(node))
        return next(filter(None, kinds), None)

    def _methods(self, node: ast.ClassDef) -> Iterator[str]:
        yield from (item.name for item in node.body if isinstance(item, ast.FunctionDef))
        for base in self._bases(node):
            if isinstance(base, ast.ClassDef):
                yield from self._methods(base)

    def _signature(self, node: ast.ClassDef) -> dict[str, Any]:
        found = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        own = arguments_of(found.args) if found is not None else {}
        if found is not None and found.args.kwarg is None:
            return own
        for base in self._bases(node):
            inherited = self._signature(base) if isinstance(base, ast.ClassDef) else signature_of(*base)
            for name, default in inherited.items():
                # What a base requires, an __init__ may give it.
                own.setdefault(name, None if default is REQUIRED and found is not None else default)
        return own


def _without_tensorflow(dotted: str) -> str:
    """Return a name of `tensorflow.keras` as Keras itself has it."""
    return dotted.removeprefix("tensorflow.") if dotted.startswith("tensorflow.keras") else dotted


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, _without_tensorflow(f"{node.module}.{alias.name}")


def _key(argument: ast.arg, default: ast.expr | None, where: str) -> Key:
    value, written = literal(default), "" if default is None else ast.unparse(default)
    if (value is None and written != "None") or "${" in written or "???" in written:
        raise InputError(
            f"{where}: its default {written} must be a number, True, False, None, a text without ${{ and "
            "???, or a list of these"
        )
    if argument.annotation is not None:
        return Key(_type(argument.annotation, where), value)
    return Key(type(value) if isinstance(value, bool | int | float | str) else Any, value)


_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "Any": Any, "list": list[Any]}


def _type(node: ast.expr, where: str) -> Any:
    """Return the type that an annotation names."""
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):
            try:
                return _type(ast.parse(text, mode="eval").body, where)
            except SyntaxError:
                pass
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
