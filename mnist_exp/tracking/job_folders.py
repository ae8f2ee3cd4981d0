"""Read the jobs of a sweep from their folders. Imports nothing heavy."""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mnist_exp.config.files import read_json
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder, foreign
from mnist_exp.tracking.records import Record


def free_folder(output: Path, wanted: Record | None = None) -> Path:
    """Return a job's folder, or one beside it if that is another's, as in a sweep that goes on.

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


def last_tries(jobs: Iterable[Record]) -> list[Record]:
    """Return of jobs with the same values the last whole one, or else the last."""
    tries: dict[str, list[Record]] = {}
    for job in jobs:
        tries.setdefault(json.dumps(job.values), []).append(job)
    return [max(reversed(same), key=lambda job: job.is_whole) for same in tries.values()]


def place_of(name: str) -> list[int]:
    """Return the place of a job's folder, which Hydra names by a number, and of the try."""
    return [int(number) for number in re.findall("[0-9]{1,9}", name)]


def reused_in(path: Path) -> Record:
    """Return the run that a `reused.json` counts as a job, as its own folder has it.

    Raises:
        InputError: if one of the two is missing or damaged.
    """
    content = read_json(path, path.parent)
    output, values = content.get("output"), content.get("values")
    if not (isinstance(output, str) and isinstance(values, dict)):
        raise InputError(f"{path}: is damaged, or of another program")
    folder = Folder(Path(os.path.normpath(path.parent / output)))
    return folder.read().with_values({str(key): str(value) for key, value in values.items()})
