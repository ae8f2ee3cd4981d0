"""Leases: files that a process touches in the folders that it works on, for those whom its locks tell nothing.

Imports nothing heavy.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from mnist_exp.config.files import append

SECONDS_BETWEEN_RENEWALS = 30.0
SECONDS_OF_A_LEASE = 300.0
_LEASE = ".lease"

_open: set[Path] = set()
_changing = threading.Lock()  # `_open`
_thread: threading.Thread | None = None


def begin(folder: Path) -> None:
    """Renew a folder's lease from now on, in a thread."""
    global _thread
    with _changing:
        _open.add(folder)
        if _thread is None:
            _thread = threading.Thread(target=_renew, daemon=True)
            _thread.start()
        _touch(folder)


def end(folder: Path) -> None:
    """End a folder's lease."""
    with _changing, suppress(OSError):
        _open.discard(folder)
        (folder / _LEASE).unlink(missing_ok=True)


def are_open() -> set[Path]:
    """Return the folders whose leases this process renews."""
    return _open


def is_valid(folder: Path) -> bool:
    """Return whether a folder's lease was renewed lately, by the clock of its file system."""
    try:
        renewed = (folder / _LEASE).stat().st_mtime
    except OSError:
        return False
    try:
        with TemporaryFile(dir=folder) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:
        now = time.time()
    return now - renewed < SECONDS_OF_A_LEASE


def forget() -> None:
    """Leave all leases to the parent of this process, which was forked."""
    global _changing, _thread
    _open.clear()
    _changing, _thread = threading.Lock(), None


def _renew() -> None:
    while True:
        time.sleep(SECONDS_BETWEEN_RENEWALS)
        with _changing:
            for folder in _open:
                _touch(folder)


def _touch(folder: Path) -> None:
    # The folder was removed, or the disk is full.
    with suppress(OSError), open(folder / _LEASE, "a", opener=append) as file:
        os.utime(file.fileno())
