"""Read the jobs of a sweep from their folders. Imports nothing heavy."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from mnist_exp.config.files import read_json
from mnist_exp.tracking.folder import Folder, foreign
from mnist_exp.tracking.job import Job, make_job


def free_folder(output: Path) -> Path:
    """Return a job's folder, or one beside it if that is another's, as in a sweep that goes on."""
    number, first = 1, output.name
    while foreign(output) or any((output / name).exists() for name in ("run.json", "reused.json")):
        number += 1
        output = output.with_name(f"{first}-{number}")
    return output


def last_tries(jobs: Iterable[Job]) -> list[Job]:
    """Return of jobs with the same values the last whole one, or else the last."""
    tries: dict[str, list[Job]] = {}
    for job in jobs:
        tries.setdefault(json.dumps(job.values), []).append(job)
    return [max(reversed(same), key=lambda job: job.is_whole) for same in tries.values()]


def place_of(name: str) -> list[int]:
    """Return the place of a job's folder, which Hydra names by a number, and of the try."""
    return [int(number) for number in re.findall("[0-9]{1,9}", name)]


def id_in_store(folder: Path) -> str:
    """Return the id of the run that mirrors a folder in a store, or ""."""
    mirrored = Folder(folder).mirrored()
    return mirrored.run_id if mirrored is not None else ""


def job_in(path: Path) -> Job:
    """Return the job of a folder, given by its `run.json`."""
    folder = Folder(path.parent)
    record, run_id = folder.read(), id_in_store(folder.path)
    tags = record.tags | {"mnist_exp.output": str(folder.path)}  # which may have been moved
    return make_job(tags, record.scores, record.status, run_id, record.data)


def reused_in(path: Path) -> Job:
    """Return the run that a `reused.json` counts as a job."""
    job = Job(**read_json(path, path.parent))
    if not (isinstance(job.output, str) and isinstance(job.values, dict)):
        raise TypeError(path)
    return job
