"""The file that `code=` names, as a module of this process; `config/code_file.py` says what it may register."""

import linecache
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_exp.config.code_file import CodeFile

# The file that Keras knows the names of: another one may have registered the same names for other classes.
_imported: CodeFile | None = None


def import_code(code: CodeFile) -> ModuleType:
    """Return the module that a file's text becomes; it runs once, and again after another file has.

    Raises:
        Exception: whatever the file raises.
    """
    global _imported
    if code == _imported:
        return sys.modules[code.module]
    from mnist_exp.learning import keras_backend  # noqa: F401 # without its banners, and with the backend that was chosen

    module = ModuleType(code.module)
    module.__file__ = str(Path(code.path).expanduser().absolute())
    # A traceback shows the text that runs, also where there is no such file, or where it was edited since.
    linecache.cache[code.path] = len(code.text), None, code.text.splitlines(keepends=True), code.path
    sys.modules[code.module] = module
    try:
        exec(compile(code.text, code.path, "exec"), module.__dict__)  # noqa: S102 # the user typed this file
    except BaseException:
        del sys.modules[code.module]
        raise
    _imported = code
    return module


def call(code: CodeFile, chosen: Any, base: type, *arguments: Any) -> Any:
    """Call the function that a choice stands for: it has the choice's `kind` as its name.

    Args:
        code: the file with the function.
        chosen: a dataclass with the function's keys.
        base: whose keys are not the function's.
        arguments: what it gets before the keys.

    Raises:
        Exception: whatever the file or the function raises.
    """
    shared = {field.name for field in fields(base)}
    keys = {field.name: getattr(chosen, field.name) for field in fields(chosen) if field.name not in shared}
    return getattr(import_code(code), chosen.kind)(*arguments, **keys)
