"""Show what runs and sweeps take on disk, and remove old ones: `python -m mnist_exp.tidy`. Needs no Keras."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import is_of_tracking
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError, printable
from mnist_exp.sweeps.formats import aligned, counted, cut
from mnist_exp.tracking import abandoned
from mnist_exp.tracking.folder import Folder, Record, from_here, now
from mnist_exp.tracking.job_folders import reused_in

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_EXAMPLES = """\
  python -m mnist_exp.tidy
  python -m mnist_exp.tidy --older 30
  python -m mnist_exp.tidy multirun/2026-11-28 --yes
"""
_PLACES = (Path("outputs"), Path("multirun"))
_DAY = 24 * 60 * 60 * 1000  # milliseconds
_LONGEST = 22  # characters of a name, so that a line fits 80


@dataclass(frozen=True)
class Entry:
    """A run, or a sweep with its jobs; the first of its `runs` is the folder itself. `end` is as in `Record`."""

    runs: list[tuple[Folder, Record]]
    end: int
    bytes: int

    @property
    def path(self) -> Path:
        """The folder, absolute."""
        return self.runs[0][0].path


def main() -> None:
    """Show what there is, and with folders or an age remove that; exit with 1 and one message after bad input."""
    about = """\
Show what the folders of runs and sweeps take on disk. With folders or an age:
after asking, remove those with their runs and artifacts in MLflow; but nothing
that runs, is registered, is named by a sweep that stays, or is in another store."""
    parser = commands.parser("tidy", about, _EXAMPLES)
    parser.add_argument("given", nargs="*", metavar="FOLDER|OVERRIDE", help="what to remove; tracking.uri=ADDRESS")
    parser.add_argument("--older", type=float, metavar="DAYS", help="remove only what ended so long ago")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    given = parser.parse_intermixed_args()
    overrides = [text for text in given.given if is_of_tracking(text)]
    folders = [Path(text).absolute() for text in given.given if text not in overrides]
    with commands.exit_on_errors():
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; type that of a run or a sweep, or one above")
        everything = find(_PLACES + tuple(folders))
        if not folders and given.older is None:
            print(shown(everything))
            if Path("mlruns").is_dir():
                print(f"{_size(_bytes(Path('mlruns')))} beside them, in mlruns, are what MLflow shows of them")
            return
        chosen = [entry for entry in everything if _is_chosen(entry, folders, given.older)]
        settings = commands.stored(compose(overrides).config.tracking)
        client = _client(settings, chosen)
        kept = reasons_to_keep(everything, chosen, settings, client)
        for path, reason in kept.items():
            print(printable(f"{from_here(path)} stays: {reason}"), file=sys.stderr)
        removed = [entry for entry in chosen if entry.path not in kept]
        if not removed:
            raise InputError("nothing to remove: no other run or sweep is that old, or in the folders given")
        print(shown(removed))
        if not given.yes and not _agrees():
            raise InputError("nothing was removed")
        for entry in removed:
            remove(entry, settings.uri, client)
        print(f"Removed {counted(len(removed), 'folder')}, {_size(sum(entry.bytes for entry in removed))}")


def find(places: Sequence[Path]) -> list[Entry]:
    """Return the runs and sweeps below some folders, the largest first, each once, and each job with its sweep."""
    paths = {path for place in places for path in place.absolute().rglob("run.json") if not path.is_symlink()}
    abandoned.close(sorted(paths))
    runs: dict[Path, tuple[Folder, Record]] = {}
    for path in paths:
        with suppress(OSError, ValueError, TypeError):  # of another program
            runs[path.parent] = Folder(path.parent), Folder(path.parent).read()
    tops: dict[Path, list[tuple[Folder, Record]]] = {}
    for path in sorted(runs):  # a sweep before its jobs
        sweep = next((one for one in path.parents if one in tops), path)
        tops.setdefault(sweep, []).append(runs[path])
    entries = [
        Entry(found, max(record.end or now() for _, record in found), _bytes(top)) for top, found in tops.items()
    ]
    return sorted(entries, key=lambda entry: -entry.bytes)


def reasons_to_keep(
    everything: Sequence[Entry], chosen: Sequence[Entry], settings: MLflowTracking, client: "MlflowClient | None"
) -> dict[Path, str]:
    """Return why some of the chosen stay, by their folder; `everything` may count their runs as its own."""
    registered = {version.run_id: version.name for version in _versions(client)} if client is not None else {}
    reasons = {
        entry.path: _place(entry.path)
        or next(filter(None, (_reason(*run, settings, client, registered) for run in entry.runs)), "")
        for entry in chosen
    }
    while True:  # what stays may name what would be removed
        before = dict(reasons)
        for sweep in everything:
            used = [] if reasons.get(sweep.path) == "" else _used(sweep)
            for path, reason in reasons.items():
                if not reason and any(one.is_relative_to(path) for one in used):
                    reasons[path] = f"{from_here(sweep.path)} counts its jobs"
        if reasons == before:
            return {path: reason for path, reason in reasons.items() if reason}


def _place(path: Path) -> str:
    """Return why a folder stays where it is, which may hold more than a run, or ""."""
    if {"outputs", "multirun"} & set(path.parts[:-1]) and not Path.cwd().is_relative_to(path):
        return ""
    return "it is not below outputs or multirun, and may hold other files"


def _reason(
    folder: Folder,
    record: Record,
    settings: MLflowTracking,
    client: "MlflowClient | None",
    registered: Mapping[str | None, str],
) -> str:
    """Return why a run stays, or ""; `registered` has the names of models by the ids of their runs."""
    from mnist_exp.tracking import store

    mirrored = folder.mirrored()
    if record.status == "RUNNING":
        return "it runs"
    if mirrored is None or client is None:
        return ""
    if mirrored.store != store.recorded_address(settings.uri):
        return f"it is in another store; type tracking.uri={mirrored.store}"
    if mirrored.run_id in registered:
        return f"its model is registered as {registered[mirrored.run_id]}"
    run = _run(client, mirrored.run_id)
    if run is not None and run.data.tags.get("mnist_exp.folder") != record.id:
        return f"run {mirrored.run_id} is that of another folder"
    return ""


def remove(entry: Entry, uri: str, client: "MlflowClient | None") -> None:
    """Remove the runs of an entry from the store, with their artifacts and models, and then its folder.

    Raises:
        InputError: if one of them goes on.
    """
    for folder, _ in reversed(entry.runs):  # the jobs first: a sweep that is left can be removed again
        if folder.read().status == "RUNNING":
            raise InputError(f"{folder.path}: has been resumed")
        if (mirrored := folder.mirrored()) is not None and client is not None:
            _remove_run(client, uri, mirrored.run_id)
    shutil.rmtree(entry.path)
    with suppress(OSError):
        entry.path.parent.rmdir()  # of that day, if it was the last


def _remove_run(client: "MlflowClient", uri: str, run_id: str) -> None:
    from mnist_exp.tracking import store

    run = _run(client, run_id)
    if run is None:
        return
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
        if model.model_id in model.artifact_location.split("/"):
            store.repository(uri, model.artifact_location).delete_artifacts()
        client.delete_logged_model(model.model_id)
    if run_id in run.info.artifact_uri.split("/"):
        store.repository(uri, run.info.artifact_uri).delete_artifacts()
    if run.info.lifecycle_stage == "active":
        client.delete_run(run_id)


def _client(settings: MLflowTracking, chosen: Sequence[Entry]) -> "MlflowClient | None":
    """Return a client of the store, if any of the runs is in one."""
    from mnist_exp.tracking import store

    if all(folder.mirrored() is None for entry in chosen for folder, _ in entry.runs):
        return None
    with store.store_errors(settings.uri):
        return store.connect_existing(settings.uri)


def _versions(client: "MlflowClient") -> Iterator["ModelVersion"]:
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return a run that is in the store, deleted or not."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _is_chosen(entry: Entry, folders: Sequence[Path], days: float | None) -> bool:
    inside = not folders or any(entry.path.is_relative_to(folder) for folder in folders)
    return inside and (days is None or now() - entry.end > days * _DAY)


def _used(sweep: Entry) -> list[Path]:
    """Return the folders of earlier runs that a sweep counts as its jobs."""
    found = []
    for path in sweep.path.rglob("reused.json"):
        with suppress(OSError, ValueError, TypeError):  # damaged
            found.append(Path(reused_in(path).output).resolve())
    return found


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise InputError("nothing was removed, as nobody can be asked; --yes removes it")
    return input("Remove these, with their runs and artifacts in MLflow? [y/N] ").strip().lower() in ("y", "yes")


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def shown(entries: Sequence[Entry]) -> str:
    """Return a line for each, and their sum."""
    lines = [["size", "days", "runs", "folder", "name"]]
    for entry in entries:
        days, name = (now() - entry.end) / _DAY, entry.runs[0][1].name
        lines.append(
            [_size(entry.bytes), f"{days:.0f}", str(len(entry.runs)), from_here(entry.path), cut(name, _LONGEST)]
        )
    lines.append([_size(sum(entry.bytes for entry in entries)), "", "", "all of these", ""])
    return aligned(lines, [3, 4])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
