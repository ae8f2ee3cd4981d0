"""Find the folders of earlier runs of an experiment, with or without a store.

In `.mnist_exp/`, in the folder that a command starts in, a small file for each experiment has a line for each run. It
is a cache: where it is gone, it is made again of the folders.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist_exp.config.files import no_link, open_file
from mnist_exp.errors import InputError
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder, relative_path

KEY = "mnist_exp.key"  # the tag of a run that can be found
_FOLDER = Path(".mnist_exp")
_MAX_BYTES = 1_000_000  # the end of a larger file is read
_MAX_KEYS = 20
_SECONDS_OF_ANOTHER = 60.0
PLACES = ("outputs", "multirun")


def add(key: str, folder: Path) -> None:
    """Note that a folder has a run with this key, if the index can be written.

    Several processes may do so at once.
    """
    _make()
    _append(key, folder)


def _append(key: str, folder: Path) -> None:
    line = f"{json.dumps(relative_path(folder.resolve()))}\n"
    with suppress(OSError), open(_FOLDER / key, "ab", buffering=0, opener=no_link) as file:
        file.write(line.encode())  # at once, so that no two lines mix


def _make() -> None:
    """Make the index, of the runs in `outputs` and `multirun`, if there is none."""
    if _FOLDER.is_dir():
        return
    with suppress(OSError):
        _FOLDER.mkdir()
    for path in sorted(path for place in PLACES for path in Path(place).rglob("run.json")):
        with suppress(InputError):  # another program wrote it
            key = Folder(path.parent).read().tags.get(KEY, "")
            if re.fullmatch("[0-9a-f]{64}", key):
                _append(key, path.parent)


@contextmanager
def lock_key() -> Iterator[None]:
    """Let one process at a time look for a run and begin it."""
    _make()
    with locks.held(_FOLDER, _SECONDS_OF_ANOTHER):
        yield


def find(key: str) -> list[Path]:
    """Return the absolute folders with a run of this key, the newest first."""
    return [path for path in _folders(key) if _read_key(path) == key]


def find_beginning(key: str) -> list[Path]:
    """Return the absolute folders in which another process begins a run of this key."""
    return [path for path in _folders(key) if not Folder(path).is_there() and not locks.is_free(path)]


def newest() -> list[Path]:
    """Return the absolute folder of the newest run of some keys that were used last."""
    try:
        names = sorted(_FOLDER.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    except OSError:
        return []
    return [found[0] for path in names[:_MAX_KEYS] if (found := find(path.name))]


def _folders(key: str) -> list[Path]:
    """Return the folders that were added, the last one first."""
    _make()
    try:
        with open_file(_FOLDER / key, folder=_FOLDER) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_BYTES))
            lines = file.read(_MAX_BYTES).splitlines()
    except InputError:
        return []
    found = []
    for line in reversed(lines):
        with suppress(ValueError, TypeError, RecursionError):  # anybody may have written the file
            found.append(Path.cwd() / json.loads(line))
    return list(dict.fromkeys(found))


def _read_key(folder: Path) -> str | None:
    try:
        return Folder(folder).read().tags.get(KEY)
    except ValueError:  # there is no record, or anybody wrote it
        return None
