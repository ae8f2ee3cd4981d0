"""Open, replace and remove files that may come from others."""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any
from uuid import uuid4

from mnist_exp.errors import InputError

MAX_TEXT_BYTES = 10_000_000
_MAX_SENT_BYTES = 2_000_000_000
NEW_MODEL = ".new-model"
_NEW = r"(.*/)?\.new-[0-9a-f]{32}(\.\w+)?"  # a file that was not finished

# Of the output folder of a run or a sweep, a store gets these, the figures, and the user's file in `code/`.
TEXTS = (
    *("config.yaml", "error.txt", "run.log", "predictions.csv", "ranking.csv", "race.csv", "best.yaml", "code.patch"),
    "report.html",
)
_FIGURES = ("classes", "confusion_matrix", "curves", "importance", "mistakes", "objective", "predictions")
FIGURES = tuple(f"figures/{name}.png" for name in _FIGURES)
CHECKPOINT = "checkpoint.npz"
METRICS = "metrics.jsonl"
# MLflow writes these into a folder of its own.
MODEL_FILES = (
    *("MLmodel", "conda.yaml", "input_example.json", "python_env.yaml", "requirements.txt"),
    *("serving_input_example.json", "data/keras_module.txt", "data/model.keras", "data/save_format.txt"),
)
_RECORDS = ("run.json", METRICS, "mlflow.json", "reused.json", "ranking.md", "model.keras")
# No callback may write to one of these.
OWN_FILES = frozenset({"run.lock", *TEXTS, *_RECORDS, CHECKPOINT, "model", "code", "figures"})
# A folder may have these before it has a record. A name that ends with a slash stands for all that is below it.
BEFORE_A_RECORD = frozenset(
    {"run.log", "run.lock", "multirun.yaml", ".hydra/", ".ray/", ".submitit/"}
    | {".claim", ".lease", ".mlflow.lock", ".locks/"}  # version 0.2.0
)
# What else a run or a sweep writes, but for what callbacks write.
RUN_FILES = frozenset(
    {*_RECORDS, CHECKPOINT, *(f"{folder}/{name}" for folder in ("model", NEW_MODEL) for name in MODEL_FILES)}
)

_LAST = ("run.json", "run.lock")  # are removed in this order
_NO_FILE = "must be a file; is a pipe, a socket or a device"


class NoFileError(InputError):
    """There is no such file."""


def open_file(
    path: Path, where: str | None = None, *, most: int | None = None, folder: Path | None = None
) -> BufferedReader:
    """Open a file that can be read to its end without waiting.

    Args:
        path: of the file.
        where: begins the message; by default, the path.
        most: the largest size, in bytes.
        folder: of a run. Neither it nor anything below it may be a link.

    Raises:
        NoFileError: if it is missing.
        InputError: for a link in a run's folder, a folder, a pipe, a socket, a device, or a file that is closed to the
            user or too large.
    """
    where = where or str(path)
    inside = [] if folder is None else [parent for parent in (path, *path.parents) if parent.is_relative_to(folder)]
    if links := [parent for parent in inside if os.path.islink(parent)]:  # noqa: PTH114, a name of any length
        raise InputError(f"{where}: {'' if links[0] == path else f'{links[0]} '}is a link; must be a file")
    if folder is not None and ".." in path.relative_to(folder).parts:
        raise InputError(f"{where}: is outside {folder}")
    try:
        file = open(path, "rb", opener=no_link if inside else _no_pipe)  # noqa: SIM115, returned
    except (FileNotFoundError, NotADirectoryError):
        raise NoFileError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        found, reason = getattr(error, "errno", 0), f"cannot be read ({getattr(error, 'strerror', error)})"
        reason = {errno.ENXIO: _NO_FILE, errno.EISDIR: "must be a file; is a folder"}.get(found, reason)
        raise InputError(f"{where}: {reason}") from None
    status = os.fstat(file.fileno())
    reason = "" if stat.S_ISREG(status.st_mode) else _NO_FILE
    if not reason and most is not None and status.st_size > most:
        reason = f"has {status.st_size} bytes; must have at most {most}"
    if reason:
        file.close()
        raise InputError(f"{where}: {reason}")
    return file


def _no_pipe(path: str | Path, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def no_link(path: str | Path, flags: int) -> int:
    """Open a file without following a link or waiting for a pipe.

    This is an `opener` for `open`.
    """
    return _no_pipe(path, flags | getattr(os, "O_NOFOLLOW", 0))


def is_file(path: Path, folder: Path) -> bool:
    """Return whether a run's folder has a file that `open_file` opens."""
    try:
        open_file(path, folder=folder).close()
    except InputError:
        return False
    return True


def read_text(path: Path, where: str | None = None, *, encoding: str = "utf-8", **options: Any) -> str:
    """Return the text of a file of at most `most` bytes, by default 10 MB.

    Args:
        path: a regular file.
        where: its name in messages; the path by default.
        encoding: UTF-8 by default.
        options: those of `open_file`.

    Raises:
        InputError: as `open_file` does, and for text that is not in UTF-8.
    """
    with open_file(path, where, **{"most": MAX_TEXT_BYTES} | options) as file:
        try:
            return TextIOWrapper(file, encoding).read()
        except (OSError, UnicodeError) as error:
            raise InputError(f"{where or path}: cannot be read ({error})") from None


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Return the map in a JSON file of a run's folder.

    Raise InputError if it is damaged.
    """
    try:
        values = json.loads(read_text(path, folder=folder))
    except InputError:
        raise
    except (ValueError, RecursionError):  # nesting without an end
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is damaged, or of another program")
    return values


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which replaces `path` in one step after the block.

    After an exception, the new file is removed, and `path` is as it was. A link at `path` is replaced, not followed.
    """
    new = path.with_name(f".new-{uuid4().hex}{path.suffix}")
    with open(new, "xb"):
        pass
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8, and escape characters that it cannot encode."""
    with replacing(path) as new:
        new.write_bytes(text.encode("utf-8", "backslashreplace"))


def copy_files(folder: Path, names: Iterable[str], to: Path) -> None:
    """Copy files of a run's folder into another folder.

    Args:
        folder: of a run.
        names: relative paths with slashes; absent files are skipped.
        to: the other folder.

    Raises:
        InputError: as `open_file` does.
    """
    for name in names:
        path = folder / name
        with suppress(NoFileError), open_file(path, most=_MAX_SENT_BYTES, folder=folder) as file:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            with open(to / name, "wb") as copy:
                shutil.copyfileobj(file, copy)


def remove_files(folder: Path, names: Collection[str]) -> list[Path]:
    """Remove files of a folder, finished or not, by name, and return those that stay.

    Then the folders in it, and the folder itself, are removed where they are empty. No link is followed.

    Args:
        folder: to remove from.
        names: relative to it, with slashes. One that ends with a slash stands for all below it, and a part of one in
            braces for a number.
    """
    if folder.is_symlink():
        return []
    escaped = (re.sub(r"\\\{.*?\\\}", r"[-+\\w.]*\\d", re.escape(name)) for name in names)
    own = re.compile("|".join([_NEW, *(f"{name}.*" if name.endswith("/") else name for name in escaped)]), re.DOTALL)
    stays = []
    for place, folders, files in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in sorted(files, key=lambda name: (name in _LAST, name))):
            if own.fullmatch(path.relative_to(folder).as_posix()):
                path.unlink(missing_ok=True)  # the thread that mirrors it may have just replaced a file
            else:
                stays.append(path)
        for path in (Path(place, name) for name in folders):
            with suppress(OSError):  # it is a link, or has what stays
                path.rmdir()
    with suppress(OSError):
        folder.rmdir()
    return stays
