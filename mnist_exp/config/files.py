"""Which files may be read, and which a run writes itself. Imports nothing heavy."""

import os
import stat
from pathlib import Path

from mnist_exp.errors import InputError

LARGEST_CODE = 10_000_000  # bytes

# Of the output folder of a run or a sweep, a store gets these, `*.png` in `figures` and `*.py` in `code`.
TEXTS = (
    "config.yaml",
    "error.txt",
    "run.log",
    "predictions.csv",
    "ranking.csv",
    "race.csv",
    "best.yaml",
    "code.patch",
    "report.html",
)
CHECKPOINT_FILES = ("checkpoint.npz", ".checkpoint.npz.new")  # the second while it is written
FOLDERS = ("model", "code", "figures")
# No callback may write to one of them, and a run that begins in the folder of another removes them.
_RECORDS = ("run.json", "metrics.jsonl", "mlflow.json", "reused.json", "ranking.md", "model.keras")
OWN_FILES = frozenset({*TEXTS, *FOLDERS, *_RECORDS, *CHECKPOINT_FILES})


def check_file(path: Path, where: str | None = None, most: int | None = None, if_folder: str = "") -> None:
    """Check that a path leads to a file that can be read to its end without waiting, of at most `most` bytes.

    The message begins with `where`, or the path, and for a folder ends with `if_folder`.

    Raises:
        InputError: for what is missing, closed, empty as the files of /proc are, or no file but a folder, a pipe, a
            socket or a device.
    """
    reason = ""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        reason = "no such file"
    except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    else:
        if stat.S_ISDIR(found.st_mode):
            reason = "must be a file; is a folder" + if_folder
        elif not stat.S_ISREG(found.st_mode):
            reason = "must be a file; is a pipe, a socket or a device"
        elif not os.access(path, os.R_OK):
            reason = "cannot be read (Permission denied)"
        elif not found.st_size:
            reason = "is empty"
        elif most is not None and found.st_size > most:
            reason = f"has {found.st_size} bytes; must have at most {most}"
    if reason:
        raise InputError(f"{where or path}: {reason}")
