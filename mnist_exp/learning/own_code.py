"""The file that `code=` names, as a module of this process; `config/code_file.py` says what it may register."""

import linecache
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_exp.config import keras_names
from mnist_exp.config.code_file import PACKAGE, CodeFile, in_use
from mnist_exp.errors import InputError

SAVED_KINDS = ("constraints", "initializers", "layers", "regularizers")  # of which a saved model may have objects

# The file that Keras knows the names of: another one may have registered the same names for other classes.
_imported: CodeFile | None = None


def import_code(code: CodeFile) -> ModuleType:
    """Return the module that a file's text becomes; it runs once, and again after another file has.

    Raises:
        InputError: if it ends the program.
        Exception: whatever else the file raises.
    """
    global _imported
    if code == _imported:
        return sys.modules[code.module]
    from mnist_exp.learning import keras_backend  # noqa: F401 # without its banners, and with the backend that was chosen

    package, module = ModuleType(PACKAGE), ModuleType(code.module)
    package.__path__ = []  # so that the module is found here, as pickle looks for it, and nowhere else
    sys.modules.setdefault(PACKAGE, package)
    module.__file__ = str(Path(code.path).expanduser().absolute())
    # A traceback shows the text that runs, also where there is no such file, or where it was edited since.
    linecache.cache[code.path] = len(code.text), None, code.text.splitlines(keepends=True), code.path
    sys.modules[code.module] = module
    try:
        with _going_on(code):
            exec(compile(code.text, code.path, "exec"), module.__dict__)  # noqa: S102 # the user typed this file
    except BaseException:
        del sys.modules[code.module]
        raise
    _imported = code
    return module


def call(chosen: Any, base: type, *arguments: Any) -> Any:
    """Call the function of the file in use that a choice stands for: it has the choice's `kind` as its name.

    Args:
        chosen: a dataclass with the function's keys.
        base: whose keys are not the function's.
        arguments: what it gets before the keys.

    Raises:
        InputError: if it ends the program.
        Exception: whatever else the file or the function raises.
    """
    code = in_use()
    assert code is not None
    shared = {field.name for field in fields(base)}
    keys = {field.name: getattr(chosen, field.name) for field in fields(chosen) if field.name not in shared}
    function = getattr(import_code(code), chosen.kind)
    with _going_on(code):
        return function(*arguments, **keys)


def instance(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """Return an object of a class of the file in use.

    Raises:
        InputError: if a saved model would lose its arguments, or a metric logs under another name than its own.
        Exception: whatever the file or the class raises.
    """
    code = in_use()
    assert code is not None
    made = getattr(import_code(code), name)(**arguments)
    where = f"{code.path}, class {name}"
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


@contextmanager
def _going_on(code: CodeFile) -> Iterator[None]:
    try:
        yield
    except SystemExit as error:  # which would end the run without a word
        raise InputError(f"code={code.path}: ends the program (SystemExit: {error})") from error
