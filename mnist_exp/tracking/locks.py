"""Lock the folder in which a process works.

The operating system frees the lock when the process ends.
To begin, resume, complete, mirror, close or remove a run or a sweep is to hold the lock on `run.lock` in its folder. No
clock decides. A job in its sweep's process is under the sweep's lock alone, since macOS lets a process open 256 files.
A RUNNING run without a process, after a `kill -9` or a power cut, is closed by whoever gets the lock.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from mnist_exp.config.files import BEFORE_A_RECORD, NoFileError
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = "run.lock"
_ANOTHER_FOLDER = "choose another folder with hydra.run.dir=DIR, or hydra.sweep.dir=DIR with -m"
_SECONDS_BETWEEN_TRIES = 0.01
_SECONDS_FOR_OTHERS = 1.0  # who asks whether a folder is free holds its lock for a moment
_SECONDS_BETWEEN_LOOKS = 0.5

_held: dict[Path, tuple["BaseFileLock", int]] = {}  # a folder's lock, and how often this process holds it
_changing = threading.Lock()


def hold(folder: Path, seconds: float = 0.0) -> bool | None:
    """Try for `seconds` to lock a folder, which this process may have locked before.

    Returns:
        True if this process holds it now, False if another one does, None if no lock can be had there.
    """
    from filelock import FileLock, Timeout

    path = folder.resolve()
    with _changing:
        if path in _held:
            lock, count = _held[path]
            _held[path] = lock, count + 1
            return True
    lock = FileLock(path / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds, poll_interval=_SECONDS_BETWEEN_TRIES)
    except Timeout:
        return False
    except (OSError, NotImplementedError, RuntimeError):  # no permission, a link, or a file system without locks
        return None
    with _changing:
        _held[path] = lock, 1
    return True


def release(folder: Path) -> None:
    """Release one `hold`."""
    path = folder.resolve()
    with _changing:
        lock, count = _held.pop(path)
        if count > 1:
            _held[path] = lock, count - 1
            return
    lock.release()


@contextmanager
def held(folder: Path, seconds: float = 0.0) -> Iterator[bool | None]:
    """Hold the lock of a folder in the block, and yield the result of `hold`."""
    found = hold(folder, seconds)
    try:
        yield found
    finally:
        if found:
            release(folder)


def is_held_here(folder: Path) -> bool:
    """Return whether this process holds the lock of a folder."""
    return folder.resolve() in _held


def is_free(folder: Path) -> bool:
    """Return whether nobody, this process included, holds the lock of a folder.

    Where that cannot be known, somebody may. No file is created.
    """
    if is_held_here(folder):
        return False
    if not os.path.lexists(folder / LOCK):
        return True
    with held(folder) as found:
        return found is True


def has_no_owner(folder: Folder, sweep: str | None = None) -> bool:
    """Return whether no process works on a run, or this one may, as its sweep's.

    `sweep` is the id of the sweep of which this process is to run a job, if it is; another process has its lock.
    """
    if not is_free(folder.path):
        return False
    above = folder.top
    is_mine = above == folder.path or is_held_here(above) or Folder(above).read().id == sweep
    return is_mine or is_free(above)


def wait_until_idle(folder: Folder, sweep: str | None = None) -> None:
    """Wait until a run has no owner, or has ended.

    Raises:
        InputError: if that cannot be known, since its file system has no locks.
    """
    with held(folder.path) as found:
        if found is None:
            raise InputError(_no_locks(folder))
    while not has_no_owner(folder, sweep):
        with suppress(NoFileError):  # it is about to begin
            if folder.read().status != "RUNNING":
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def close(paths: Iterable[Path]) -> int:
    """Record the runs of these `run.json` as KILLED if their process is gone.

    Return how many still run.
    """
    running = 0
    for folder in (Folder(path.parent) for path in paths):
        with suppress(OSError, InputError):  # deleted, damaged, or of another program
            if folder.read().status != "RUNNING":
                continue
            if is_held_here(folder.path):
                running += 1
                continue
            with held(folder.top) as has_sweep, held(folder.path) as has_run:
                if not (has_sweep and has_run):
                    running += 1
                elif folder.read().status == "RUNNING":
                    folder.end("KILLED")
    return running


def _no_locks(folder: Folder) -> str:
    """Return the message on a folder without locks, whose run may still run."""
    host = folder.read().host
    return f"{folder.path}: cannot be locked here, and its run may go on, on {host}; once that has ended, remove it"


def foreign(output: Path) -> str:
    """Return why no run may write to a folder, or "" if one may.

    A run may write to a new or empty folder, or to one with a run. Files that precede a record do not count. A folder
    with a link is nobody's, since a run could write through it.
    """
    if os.path.islink(output):  # noqa: PTH114, a name of any length
        return "is a link"
    try:
        entries = list(os.scandir(output))
    except (OSError, ValueError):  # it is new, or cannot be read, which comes up when it is written
        return ""
    if others := {entry.name for entry in entries} - {name.rstrip("/") for name in BEFORE_A_RECORD}:
        try:
            Folder(output).read()
        except NoFileError:
            return f"has files that no run wrote, such as {min(others)}"
        except InputError as error:
            return f"has a record that cannot be used ({error})"
    odd = (
        entry.name
        for entry in entries
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
    )
    return next((f"has a link or a pipe, {name}" for name in odd), "")


def make_folder(output: Path) -> None:
    """Make the output folder of a run or a sweep.

    Raises:
        InputError: if it is not one's own, or cannot be made or written.
    """
    reason = foreign(output)
    if not reason:
        try:
            output.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=output).close()
        except (OSError, ValueError) as error:  # ValueError: a name with a null character
            reason = f"cannot be written ({error.strerror if isinstance(error, OSError) else error})"
    if reason:
        raise InputError(f"{output}: {reason}; {_ANOTHER_FOLDER}")


def free_folder(output: Path, wanted: Record | None = None) -> Path:
    """Return a job's folder, or one beside it if another run has that.

    The folder of an earlier try of the job that is `wanted`, which ended before it had finished, is used again.
    """
    if wanted is not None:
        with suppress(InputError):
            before = Folder(output).read()
            if before.job == wanted.job and before.status in ("KILLED", "FAILED"):
                return output
    number, first = 1, output.name
    while foreign(output) or any((output / name).exists() for name in ("run.json", "reused.json")):
        number += 1
        output = output.with_name(f"{first}-{number}")
    return output


@contextmanager
def working(output: Path) -> Iterator[None]:
    """Make and lock the output folder of a run or sweep.

    A folder that gets no record is removed. A job in its sweep's process needs no lock of its own.

    Raises:
        InputError: as `make_folder` does, or if somebody works there, or may on a file system without locks.
    """
    make_folder(output)
    if is_held_here(output.parent):
        yield
        return
    folder = Folder(output)
    with held(output, _SECONDS_FOR_OTHERS) as found:
        if found is False:
            raise InputError(f"{output}: a run still writes here; {_ANOTHER_FOLDER}")
        if found is None and folder.is_there() and folder.read().status == "RUNNING":
            raise InputError(_no_locks(folder))
        try:
            yield
        finally:
            if not folder.is_there():
                with suppress(OSError):
                    (output / LOCK).unlink(missing_ok=True)
                    output.rmdir()


def _reset_after_fork() -> None:
    """Leave all locks to the parent of this process, which was forked."""
    global _changing
    _changing = threading.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset_after_fork)
