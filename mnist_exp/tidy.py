"""Show the sizes of runs and sweeps, and remove old ones.

This is `python -m mnist_exp.tidy`.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.files import BEFORE_A_RECORD, is_file, remove_files
from mnist_exp.config.overrides import is_tracking_override
from mnist_exp.config.schema import require_store
from mnist_exp.errors import InputError
from mnist_exp.sweeps.formats import align, pluralize
from mnist_exp.text import say, truncate
from mnist_exp.tracking import locks, store, views
from mnist_exp.tracking.folder import Folder, read_reused, relative_path
from mnist_exp.tracking.index import PLACES
from mnist_exp.tracking.reading import get_run
from mnist_exp.tracking.records import Record, now

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXAMPLES = """\
  python -m mnist_exp.tidy
  python -m mnist_exp.tidy --older 30
  python -m mnist_exp.tidy multirun/2026-11-28 --yes
"""
_DAY_MILLISECONDS = 24 * 60 * 60 * 1000
_MAX_NAME_CHARS = 22  # a line then has 80


@dataclass(frozen=True)
class Entry:
    """A run, or a sweep and its jobs, with their records, its own first.

    `end` is as in `Record`.
    """

    path: Path
    runs: dict[Path, Record]
    end: int
    bytes: int


def main() -> None:
    """List the entries of outputs/, or remove some of them.

    Exit with 1 and one message after bad input, or if nothing is removed.
    """
    about = """\
Show what the runs and sweeps in outputs and multirun take on disk. With folders
or an age, ask, then remove these with their runs and artifacts in MLflow; but
nothing that runs, is registered, counts in a sweep, or is in another store."""
    parser = commands.parser("tidy", about, _EXAMPLES)
    parser.add_argument("given", nargs="*", metavar="FOLDER|OVERRIDE", help="what to remove; tracking.uri=ADDRESS")
    parser.add_argument("--older", metavar="DAYS", help="remove what ended so long ago")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    given = parser.parse_intermixed_args()
    overrides = [text for text in given.given if is_tracking_override(text)]
    folders = [Path(text) for text in given.given if text not in overrides]
    with commands.exit_on_errors():
        for folder in folders:
            if not any(_real(folder).is_relative_to(place) for place in _places()):
                raise InputError(f"{folder}: must be a folder in outputs or multirun, in the current folder")
        days = re.fullmatch(r"(\d+(?:\.\d+)?) ?d?", given.older or "0")
        if days is None:
            raise InputError(f"--older {given.older}: must be a number of days, such as 30")
        if folders or given.older is not None:
            tidy(folders, None if given.older is None else float(days[1]), overrides, asks=not given.yes)
        else:
            print(format_entries(find_entries()))
            if Path("mlruns").is_dir():
                print(f"{_size(_bytes(Path('mlruns')))} beside them, in mlruns, are what MLflow shows of them")


def tidy(folders: Sequence[Path], days: float | None, overrides: Sequence[str], *, asks: bool) -> None:
    """Remove the runs in the given folders, or those that ended so many days ago.

    Args:
        folders: of runs and sweeps, or those in which they lie.
        days: the age from which runs are removed; None for any.
        overrides: of `tracking`.
        asks: whether a question comes first.

    Raises:
        InputError: if nothing is removed, or not all, or the store cannot be reached.
    """
    uri = require_store(compose(overrides).config.tracking).uri
    everything = find_entries()
    chosen = [entry for entry in everything if _is_chosen(entry, folders, days)]
    with store.store_errors(uri):
        tracked = any(Folder(path).mirrors() for entry in chosen for path in entry.runs)
        client = store.connect_existing(uri) if tracked else None
        kept = reasons_to_keep(everything, chosen, uri, client)
        for path, reason in kept.items():
            say(f"{relative_path(path)} stays: {reason}", sys.stderr)
        removed = [entry for entry in chosen if entry.path not in kept]
        if not removed:
            asked = [f"in {', '.join(map(str, folders))}"] if folders else []
            asked += ["that old"] if days is not None else []
            raise InputError(f"nothing to remove: no other run or sweep is {' and '.join(asked)}")
        print(format_entries(removed))
        if asks and not _agrees():
            raise InputError("nothing was removed")
        if kept != reasons_to_keep(find_entries(), chosen, uri, client):
            raise InputError("nothing was removed, as something has changed meanwhile; type the command again")
        for entry in removed:
            if stays := _remove(entry, uri, client):
                more = f", and {len(stays) - 1} more" if len(stays) > 1 else ""
                say(f"{relative_path(stays[0])} stays{more}: no run writes a file of that name", sys.stderr)
    print(f"Removed {pluralize(len(removed), 'folder')}, {_size(sum(entry.bytes for entry in removed))}")


def find_entries() -> list[Entry]:
    """Return the runs and sweeps in `outputs` and `multirun`, the largest first."""
    records = [path for place in _places() for path in place.rglob("run.json")]
    locks.close(records)
    known: dict[Path, Record] = {}
    tops: dict[Path, dict[Path, Record]] = {}
    for path in sorted(record.parent for record in records):  # a sweep before its jobs
        with suppress(InputError):  # another program wrote it
            record = known[path] = Folder(path).read()
            sweep = known.get(path.parent)
            is_job = sweep is not None and record.fact("parent") == sweep.id
            tops.setdefault(path.parent if is_job else path, {})[path] = record
    entries = [
        Entry(top, found, max(record.end or now() for record in found.values()), _bytes(top))
        for top, found in tops.items()
    ]
    return sorted(entries, key=lambda entry: -entry.bytes)


def reasons_to_keep(
    everything: Sequence[Entry], chosen: Sequence[Entry], uri: str, client: "MlflowClient | None"
) -> dict[Path, str]:
    """Return why chosen entries stay, by folder.

    Args:
        everything: all entries, some of which may use another's runs.
        chosen: the entries to remove.
        uri: of the store.
        client: of the store; None if it has no file yet.
    """
    copies = Counter(record.id for entry in everything for record in entry.runs.values())
    reasons = {}
    for entry in chosen:
        found = [_reason(path, record, uri, client) for path, record in entry.runs.items()]
        if any(copies[record.id] > 1 for record in entry.runs.values()):
            found.append("another folder is a copy")
        if any(entry.path in other.path.parents for other in everything):
            found.append("other runs lie in it")
        reasons[entry.path] = next(filter(None, found), "")
    used = {sweep.path: _list_reused(sweep) for sweep in everything}
    while True:  # what stays may count what would be removed
        before = dict(reasons)
        for path in (path for path, reason in before.items() if not reason):
            place = _place(path)
            for sweep, places in used.items():
                if before.get(sweep) != "" and any(path[: len(place)] == place for path in places):
                    reasons[path] = f"it counts in {relative_path(sweep)}"
        if reasons == before:
            return {path: reason for path, reason in reasons.items() if reason}


def _reason(path: Path, record: Record, uri: str, client: "MlflowClient | None") -> str:
    """Return why a run stays, or ""."""
    mirrors = Folder(path).mirrors()
    if record.status == "RUNNING":
        return "it runs"
    if not mirrors or client is None:
        return ""
    run_id = store.read_mirrored(Folder(path), uri).run_id
    if not run_id:
        return f"it is in another store; type tracking.uri={next(iter(mirrors))}"
    for version in client.search_model_versions(f"run_id = '{run_id}'"):
        return f"its model is registered as {version.name}"
    run = get_run(client, run_id)
    if run is not None and run.data.tags.get("mnist_exp.folder") != record.id:
        return f"run {run_id} is that of another folder"
    return ""


def _remove(entry: Entry, uri: str, client: "MlflowClient | None") -> list[Path]:
    """Remove an entry's runs from the store, with their models, and then its files.

    Return the files that stay, which no run wrote. After an interruption, the rest is found and removed again.

    Raises:
        InputError: if it is in use, or a file cannot be removed, or the store keeps artifacts where it may not.
    """
    changed = InputError(f"{entry.path}: has changed meanwhile; type the command again")
    try:
        if entry.path.resolve() != entry.path:  # a link, through which nothing is locked
            raise changed
        with locks.held(entry.path) as found:
            if found is False:
                raise InputError(f"{entry.path}: is in use; type the command again")
            if any(path.resolve() != path or Folder(path).read() != record for path, record in entry.runs.items()):
                raise changed
            stays: list[Path] = []
            for path in list(entry.path.iterdir()) if entry.runs[entry.path].is_sweep else ():
                # Such a job has no record: an earlier run counts, or it never began.
                is_job = path.name.isdecimal() or is_file(path / "reused.json", path)
                if is_job and not os.path.lexists(path / "run.json"):
                    stays += remove_files(path, BEFORE_A_RECORD | {"reused.json"})
            for path, record in reversed(entry.runs.items()):  # the record of a sweep goes last
                run_id = store.read_mirrored(Folder(path), uri).run_id
                if run_id and client is not None:
                    _remove_run(client, uri, run_id)
                stays += remove_files(path, record.own_files() | BEFORE_A_RECORD)
    except OSError as error:
        raise InputError(f"{error.filename or entry.path}: cannot be removed ({error.strerror})") from error
    if entry.path.parent not in _places():
        with suppress(OSError):
            entry.path.parent.rmdir()  # the day's folder, once it is empty
    return list(dict.fromkeys(stays))


def _remove_run(client: "MlflowClient", uri: str, run_id: str) -> None:
    run = get_run(client, run_id)
    if run is None:
        return
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
        if model.artifact_location.endswith(f"/{model.model_id}/artifacts"):
            store.repository(uri, model.artifact_location).delete_artifacts()
        client.delete_logged_model(model.model_id)
    if run.info.artifact_uri.endswith(f"/{run_id}/artifacts"):  # other runs keep theirs elsewhere
        store.repository(uri, run.info.artifact_uri).delete_artifacts()
    if "mnist_exp.sweep" in run.data.tags:
        views.remove(client, run.info.experiment_id, run_id)
    if run.info.lifecycle_stage == "active":
        client.delete_run(run_id)


def _places() -> list[Path]:
    """Return where runs and sweeps are, wherever a link leads."""
    return [Path(name).resolve() for name in PLACES]


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))  # unlike Path.resolve, without an error for a link to itself


def _is_chosen(entry: Entry, folders: Sequence[Path], days: float | None) -> bool:
    inside = not folders or any(entry.path.is_relative_to(_real(folder)) for folder in folders)
    return inside and (days is None or now() - entry.end > days * _DAY_MILLISECONDS)


def _list_reused(sweep: Entry) -> list[tuple[str, ...]]:
    """Return the places of the earlier runs that a sweep counts as its jobs."""
    found = []
    for path in sweep.path.rglob("reused.json"):
        with suppress(InputError):  # damaged, or gone
            found.append(_place(Path(read_reused(path).output)))
    return found


def _place(path: Path) -> tuple[str, ...]:
    """Return the path from outputs or multirun on, which stays when all is moved."""
    start = max((place for place, part in enumerate(path.parts) if part in PLACES), default=0)
    return path.parts[start:]


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise InputError("nothing was removed, as nobody can be asked; --yes removes it")
    with suppress(EOFError):
        return input("Remove these, with their runs and artifacts in MLflow? [y/N] ").strip().lower() in ("y", "yes")
    return False


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                total += Path(place, name).lstat().st_size
    return total


def format_entries(entries: Sequence[Entry]) -> str:
    """Return a line for each, and their sum."""
    lines = [["size", "days", "runs", "folder", "name"]]
    for entry in entries:
        days, name = (now() - entry.end) / _DAY_MILLISECONDS, truncate(entry.runs[entry.path].name, _MAX_NAME_CHARS)
        lines.append([_size(entry.bytes), f"{days:.0f}", str(len(entry.runs)), relative_path(entry.path), name])
    return align([*lines, [_size(sum(entry.bytes for entry in entries)), "", "", "all of these", ""]], [3, 4])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
