"""Read the signatures of Keras's classes from its source.

Importing Keras takes seconds.
"""

import ast
import importlib.util
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mnist_exp.errors import InputError

REQUIRED = inspect.Parameter.empty


@cache
def _keras_root() -> Path:
    spec = importlib.util.find_spec("keras")
    if spec is None or spec.origin is None:
        raise InputError("Keras is not installed; pip install tensorflow brings it")
    return Path(spec.origin).parent


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(kind: str) -> dict[str, tuple[str, str]]:
    """Return the module and the name there of each public name of a kind."""
    package = {"augmentations": "layers", "schedules": "optimizers/schedules"}.get(kind, kind)
    return _imported_names(_parse(_keras_root() / package / "__init__.py"))


def _imported_names(tree: ast.Module) -> dict[str, tuple[str, str]]:
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def has_class(kind: str, name: str) -> bool:
    """Whether the installed Keras has a class of a kind of `keras_names.ALLOWED`."""
    return name in _imports(kind)


@cache
def read_signature(kind: str, name: str) -> dict[str, Any]:
    """Return the arguments of a class, and for a layer those of Layer.

    `REQUIRED` stands for no default.
    """
    module, class_name = _imports(kind)[name]
    signature, forwards = _class_signature(module, class_name)
    if forwards and kind in {"layers", "augmentations"}:
        signature |= {"name": None, "trainable": True, "dtype": None}
    return signature


def _class_signature(module: str, class_name: str) -> tuple[dict[str, Any], bool]:
    """Return a class's arguments, or its base's, and whether it takes **kwargs."""
    tree = _parse((_keras_root().parent / Path(*module.split("."))).with_suffix(".py"))
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    for node in found.body if found else []:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _read_arguments(node.args), node.args.kwarg is not None
    for base in found.bases if found else []:
        if isinstance(base, ast.Name):
            return _class_signature(*_imported_names(tree).get(base.id, (module, base.id)))
    return {}, True


def _read_arguments(arguments: ast.arguments) -> dict[str, Any]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    pairs = zip([*positional, *arguments.kwonlyargs], defaults, strict=True)
    return {argument.arg: _literal(default) for argument, default in [*pairs][1:]}


def _literal(node: ast.expr | None) -> Any:
    """Return a plain expression's value, None for others, `REQUIRED` for no node."""
    if node is None:
        return REQUIRED
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if is_plain(value) else None


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, boolean, None, or lists and maps of these.

    Numbers have at most 300 digits, and maps have text as keys.
    """
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, int):
        return abs(value) < 10**300
    return value is None or isinstance(value, float | str)
