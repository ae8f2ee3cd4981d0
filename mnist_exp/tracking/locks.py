"""Tell which runs still have a process: by a lock of the operating system, else by a lease. Imports nothing heavy.

A process that works on runs holds one lock in `.locks/` below the folder of its run or sweep. The kernel frees it when
the process ends, in whatever way. Where locks say nothing, as on another machine, `leases` do.
"""

import atexit
import os
import platform
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import TypedDict

from mnist_exp.config.files import NoFileError
from mnist_exp.errors import InputError
from mnist_exp.tracking import leases
from mnist_exp.tracking.folder import Folder, Record

_SECONDS_FOR_A_TEST = 5.0
_LOCKS, _TESTERS = ".locks", "testers"
_PLACE = re.compile(r"(\.\./)*\.locks/[0-9a-f]{32}\.lock")  # what a record may name

_NOT_ENDED = ("RUNNING", "KILLED")

_held: dict[Path, tuple[Path, int]] = {}  # by the folder that it is below: a lock and its descriptor


class Held(TypedDict):
    """Fields of a `Record`."""

    lock: str
    boot: str


def hold(folder: Path) -> Held:
    """Begin to work on a run or a sweep: take this process's lock below its folder, and return fields for its record.

    The folder of a job below a sweep's, or below that of any lock that this process holds, shares that lock. Where
    there can be none, `lock` is empty, and the lease decides.
    """
    path = folder.resolve()
    leases.begin(path)
    top = next((one for one in (path, *path.parents) if one in _held), None)
    if top is None:
        lock = path / _LOCKS / f"{uuid.uuid4().hex}.lock"
        if (descriptor := _take(lock)) is None:
            return {"lock": "", "boot": boot_id()}
        top = path
        _held[top] = lock, descriptor
    return {"lock": Path(os.path.relpath(_held[top][0], path)).as_posix(), "boot": boot_id()}


def release(folder: Path) -> None:
    """Work on a run or a sweep no longer; give back the lock that `hold` took below its folder, if it did."""
    path = folder.resolve()
    leases.end(path)
    if (held := _held.pop(path, None)) is None:
        return
    lock, descriptor = held
    os.close(descriptor)
    with suppress(OSError):
        lock.unlink(missing_ok=True)
        if all(_is_free(one) for one in lock.parent.glob("*.lock")):
            rmtree(lock.parent)


def is_alive(folder: Folder, record: Record) -> bool:
    """Return whether a process still works on the run of a folder, whose record is RUNNING.

    Its lock decides, where it is found and was taken since this machine's start; else its lease.
    """
    if record.boot == boot_id() and _PLACE.fullmatch(record.lock):
        path = folder.path.resolve()
        lock = Path(os.path.normpath(path / record.lock))
        if any(lock == held for held, _ in _held.values()):
            return path in leases.are_open()
        if (free := _is_free(lock)) is not None:
            return not free
    return leases.is_valid(folder.path)


def check_unused(folder: Folder) -> None:
    """Raise InputError if somebody works on the run of a folder, in which another one is to begin."""
    with suppress(InputError):
        if (record := folder.read()).status == "RUNNING" and is_alive(folder, record):
            raise InputError(
                f"{folder.path}: a run still writes here; hydra.run.dir=DIR, or hydra.sweep.dir=DIR with -m, is another"
            )


def is_interrupted(folder: Folder) -> bool:
    """Return whether the run of a folder was KILLED, or has lost its process, and nobody works on it."""
    return folder.read().status in _NOT_ENDED and is_left(folder)


def is_left(folder: Folder) -> bool:
    """Return whether nobody works on the run or sweep of a folder, or closes it."""
    record = folder.read()
    return record.status not in _NOT_ENDED or not is_alive(folder, record)


@contextmanager
def claimed(folder: Path, name: str = ".claim") -> Iterator[bool]:
    """Let one process at a time close or go on with the run of a folder, or do what else has a name.

    Yield whether it is this one; where there can be no locks, each is.
    """
    from filelock import lock_descriptor

    claim, is_mine = folder / name, True
    with ExitStack() as opened:
        with suppress(OSError):
            descriptor = opened.enter_context(_opened(claim, os.O_CREAT))
            is_mine = lock_descriptor(descriptor, blocking=False) and os.path.samestat(
                os.fstat(descriptor), claim.stat()
            )
            if is_mine:
                opened.callback(claim.unlink, missing_ok=True)  # while it is held, so that nobody takes it meanwhile
        yield is_mine


def wait_for(folder: Folder, say: Callable[[], object]) -> None:
    """Wait until nobody works on the run of a folder, or it is gone; call `say` first if somebody does."""
    said = False
    with suppress(NoFileError):
        while not is_left(folder):
            if not said:
                say()
                said = True
            time.sleep(0.5)


@cache
def boot_id() -> str:
    """Return what identifies this start of this machine, in all its containers; its name, where that is not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        command = ["sysctl", "-n", "kern.bootsessionuuid"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return platform.node()


def _take(lock: Path) -> int | None:
    """Return the descriptor of a new lock that is held, or None where there can be none."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError:
        return None
    try:
        from filelock import lock_descriptor

        if lock_descriptor(descriptor, blocking=False) and _is_free(lock) is False:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)  # a file system that has no locks, or lets everybody have them
    with suppress(OSError):
        lock.unlink()
    return None


def _is_free(lock: Path) -> bool | None:
    """Return whether nobody holds a lock, or None where that cannot be known.

    One test at a time, or else one would take another for the holder.
    """
    from filelock import lock_descriptor

    deadline = time.monotonic() + _SECONDS_FOR_A_TEST
    if lock.parent.is_symlink():  # a folder from somebody else has it
        return None
    try:
        with _opened(lock.with_name(_TESTERS), os.O_CREAT) as turn, _opened(lock) as tested:
            while not lock_descriptor(turn, blocking=False):
                if time.monotonic() > deadline:  # a stopped process
                    return None
                time.sleep(0.01)
            return lock_descriptor(tested, blocking=False)
    except OSError:
        return None


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)  # which a process that this one starts does not inherit
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _release_all() -> None:
    for folder in {*leases.are_open(), *_held}:
        release(folder)


def _forget() -> None:
    """Leave all locks to the parent of this process, which was forked."""
    for _, descriptor in _held.values():
        with suppress(OSError):
            os.close(descriptor)  # which does not unlock it, unlike a release
    _held.clear()
    leases.forget()


atexit.register(_release_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
