"""Find the folders of earlier runs of an experiment, with or without a store. Imports nothing heavy.

In `.mnist_exp/`, in the folder that a command starts in, a small file for each experiment has a line for each run.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from mnist_exp.config.files import append, open_file
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder, from_here

KEY = "mnist_exp.key"  # the tag of a run that can be found
_FOLDER = Path(".mnist_exp")
_LONGEST = 1_000_000  # bytes of a file, of which the end is read


def add(key: str, folder: Path) -> None:
    """Note that a folder has a run of the experiment with this key; where that cannot be written, do nothing.

    Several processes may do so at once.
    """
    line = f"{json.dumps(from_here(folder.resolve()))}\n"
    with suppress(OSError):
        _FOLDER.mkdir(exist_ok=True)
        with open(_FOLDER / key, "ab", buffering=0, opener=append) as file:
            file.write(line.encode())  # at once, so that no two lines mix


def find(key: str) -> list[Path]:
    """Return the absolute folders that still have a run with this key, the one that was added last first."""
    try:
        with open_file(_FOLDER / key, folder=_FOLDER) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST))
            lines = file.read(_LONGEST).splitlines()
    except InputError:
        return []
    return list(dict.fromkeys(folder for line in reversed(lines) if (folder := _folder(line, key)) is not None))


def _folder(line: bytes, key: str) -> Path | None:
    """Return the folder that a line names, or None where it has no run of that experiment."""
    try:
        folder = Path.cwd() / json.loads(line)
        return folder if Folder(folder).read().tags.get(KEY) == key else None
    except (ValueError, TypeError, RecursionError):  # anybody may have written both files
        return None
