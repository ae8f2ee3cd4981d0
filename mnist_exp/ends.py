"""Define how a run, sweep or command ends: record, exit code, wait for the store.

Every end is a row of one table, which its exception chooses. `signals.py` raises the exceptions of signals.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_exp.config.files import NoFileError
from mnist_exp.errors import InputError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


class FolderError(InputError):
    """A run's folder cannot be written, as on a full disk."""


class Interrupted(KeyboardInterrupt):
    """An interruption that is not KeyboardInterrupt.

    After that, `python -m` sends itself SIGINT at its end.
    """


class Terminated(SystemExit):
    """A signal that ends the process, with its exit code."""


class HungUp(Terminated):
    """The terminal was closed."""


@dataclass(frozen=True)
class End:
    """One way to end.

    Attributes:
        exception: the exception to raise; NoneType if nothing is.
        status: the run's, as recorded.
        exit_code: the command's.
        seconds: without progress, after which a command waits for its store no longer.
    """

    exception: type[Any]
    status: str
    exit_code: int
    seconds: float


FINISHED = End(type(None), "FINISHED", 0, 30.0)
FULL_DISK = End(FolderError, "KILLED", 1, 30.0)  # `resume=true` continues it
FAILED = End(Exception, "FAILED", 1, 30.0)
HANGUP = End(HungUp, "KILLED", 129, 5.0)
TERMINATION = End(Terminated, "KILLED", 143, 5.0)
CTRL_C = End(Interrupted, "KILLED", 130, 5.0)


def find_end(error: BaseException | None) -> End:
    """Return the end that an exception brings about: the first row that has it.

    Any other BaseException, such as KeyboardInterrupt in a program with its own handlers, counts as Ctrl-C.
    """
    ends = (FINISHED, FULL_DISK, FAILED, HANGUP, TERMINATION)
    return next((end for end in ends if isinstance(error, end.exception)), CTRL_C)


def find_signal(error: BaseException | None) -> BaseException | None:
    """Return the exception of a signal that an exception came of, if any.

    Python 3.11 turns a signal within `__set_name__`, as in an import, into RuntimeError.
    """
    while isinstance(error, Exception):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt | Terminated) else None


def as_folder_error(error: BaseException, folder: Path) -> BaseException:
    """Return an error about writing a folder as FolderError, others as they are."""
    if not folder.exists() and isinstance(error, OSError | NoFileError):
        return FolderError(f"{folder}: cannot be written (was deleted)")
    if not isinstance(error, OSError):
        return error
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
    if error.errno not in _DISK_ERRORS and not path.is_relative_to(folder):
        return error
    return FolderError(f"{path}: cannot be written ({error.strerror or error})")
