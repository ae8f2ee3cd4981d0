"""The lock of a folder: whoever works there holds it, and the operating system frees it when that process ends.

To begin, resume, complete, mirror, close or remove a run or a sweep is to hold the lock on `run.lock` in its folder. No
clock decides. A job in its sweep's process is under the sweep's lock alone, since macOS lets a process open 256 files.
Imports nothing heavy.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = "run.lock"
_SECONDS_BETWEEN_TRIES = 0.01  # who asks whether it is free holds a lock for a moment

_held: dict[Path, tuple["BaseFileLock", int]] = {}  # a folder's lock, and how often this process holds it
_changing = threading.Lock()


def hold(folder: Path, seconds: float = 0.0) -> bool | None:
    """Try for some seconds to hold the lock of a folder, once more if this process holds it already.

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
    """Give back what one `hold` took."""
    path = folder.resolve()
    with _changing:
        lock, count = _held.pop(path)
        if count > 1:
            _held[path] = lock, count - 1
            return
    lock.release()


@contextmanager
def held(folder: Path, seconds: float = 0.0) -> Iterator[bool | None]:
    """Hold the lock of a folder in the block; yield what `hold` returned."""
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


def _forget() -> None:
    """Leave all locks to the parent of this process, which was forked."""
    global _changing
    _changing = threading.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
