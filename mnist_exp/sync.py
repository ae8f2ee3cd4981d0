"""Send MLflow the records that an outage kept back: `python -m mnist_exp.sync`."""

import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import Override, is_tracking_override
from mnist_exp.config.schema import require_store
from mnist_exp.ends import FINISHED
from mnist_exp.errors import InputError
from mnist_exp.sweeps.formats import pluralize
from mnist_exp.text import redact_uri, say
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.index import PLACES
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mnist_exp.tracking.uploads import Uploads

_EXAMPLES = """\
  python -m mnist_exp.sync
  python -m mnist_exp.sync outputs/2026-11-28/09-30-00-123456
  python -m mnist_exp.sync multirun tracking.uri=http://127.0.0.1:5000
  python -m mnist_exp.sync --moved
"""
# MLflow has absolute places of artifacts in these columns of its tables.
_ARTIFACT_COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def main() -> None:
    """Send folders to the store.

    Exit with 1 if it does not get all, or after bad input.
    """
    about = """\
Send to MLflow what it lacks of the folders of runs and sweeps, such as after an
outage; each thing once, however often this is typed, on another machine too."""
    parser = commands.parser("sync", about, _EXAMPLES)
    parser.add_argument(
        "given",
        nargs="*",
        metavar="FOLDER|OVERRIDE",
        help="folders with runs or sweeps in them; by default outputs and multirun. Where to: tracking.uri=ADDRESS",
    )
    parser.add_argument(
        "--moved",
        action="store_true",
        help="let mlflow.db, which was moved or copied to this folder with its project, find its artifacts here",
    )
    arguments = parser.parse_intermixed_args()
    given = arguments.given
    with commands.exit_on_errors():
        if arguments.moved:
            if given:
                raise InputError(f"{given[0]}: is not used with --moved; leave it out")
            print(f"{pluralize(move_artifacts(), 'place')} in mlflow.db changed to this folder")
            return
        overrides = [text for text in given if is_tracking_override(text)]
        sync([Path(text) for text in given if text not in overrides], overrides)


def sync(places: Sequence[Path], overrides: Sequence[str] = ()) -> None:
    """Send the folders below `places` to a store, each to its own MLflow experiment.

    Without places, these are `outputs` and `multirun`, of which runs with `tracking=none` stay where they are. A run
    whose process has gone is recorded as KILLED; one that still trains is left to its process.

    Raises:
        InputError: if there is nothing to send, or the store cannot be reached, or does not get all.
    """
    settings = require_store(compose(overrides).config.tracking)
    keys = {Override.parse(text).key for text in overrides}
    folders = _collect_folders(places or [Path(name) for name in PLACES if Path(name).is_dir()], untracked=bool(places))
    from mnist_exp.tracking import store
    from mnist_exp.tracking.reading import close_in_store
    from mnist_exp.tracking.uploads import Uploads

    here = store.shorten_address(settings.uri)
    for folder, record in folders if "tracking.uri" not in keys else ():
        uri = record.tracking.get("uri", here)
        if store.shorten_address(uri) != here:
            raise InputError(f"{folder.path}: was tracked in {uri}; type tracking.uri={uri}, or that of another store")
        if record.tracking and not folder.path.is_relative_to(Path.cwd()):
            raise InputError(
                f"{folder.path}: is of another project; type this there, or tracking.uri={uri} to send it here"
            )
    waiting: dict[str, list[Folder]] = {}
    for folder, record in folders:
        named = settings.experiment if "tracking.experiment" in keys else record.tracking.get("experiment")
        waiting.setdefault(named or settings.experiment, []).append(folder)
    uploads = []
    for experiment, several in waiting.items():
        with store.store_errors(settings.uri):
            reached = store.connect(replace(settings, experiment=experiment))
            closed = close_in_store(reached)
        uploads.append(Uploads(reached, partial(list, [*several, *closed])))
    left: dict[Path, str] = {}
    for upload in uploads:
        left |= _send(upload, 0.0 if left else FINISHED.seconds)
    sent = len({folder.path for folder, _ in folders} - left.keys())
    print(f"{pluralize(sent, 'folder')} up to date in {redact_uri(settings.uri)}")
    if left:
        path, reason = next(iter(left.items()))
        lacks = f"has not all of {pluralize(len(left), 'folder')}, such as {path}"
        raise InputError(f"{redact_uri(settings.uri)}: {lacks} ({reason})")


def _send(uploads: "Uploads", seconds: float) -> dict[Path, str]:
    """Send folders until all are there, or no progress was made for so many seconds.

    Return why some remain, by path.
    """
    from rich.console import Console

    from mnist_exp.tracking.views import show_all

    with Console().status("Sending"):
        left = uploads.send_all(seconds)
    for line in uploads.report_registrations():
        say(line)
    if not left:
        show_all(uploads.store)
    reason = f"{uploads.reason or 'another process works there'}; type the command again"
    return {folder.path: reason for folder in left} | uploads.refused


def _collect_folders(places: Iterable[Path], *, untracked: bool) -> list[tuple[Folder, Record]]:
    """Return the folders with their records, each sweep before its jobs."""
    found: dict[Path, Record] = {}
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112, a name of any length
            raise InputError(f"{place}: no such folder; type the folder of a run or a sweep, or one above")
        for path in sorted(place.absolute().rglob("run.json"), key=lambda path: path.parent):
            locks.close([path])
            try:
                record = Folder(path.parent).read()
            except InputError as error:
                say(str(error), sys.stderr)
                continue
            if record.status == "RUNNING":
                say(f"{path.parent}: still runs; its process sends it", sys.stderr)
            elif record.tracking or untracked:
                found[path.parent] = record
    if not found:
        raise InputError("nothing to send: no run or sweep that ended lies in outputs, multirun or the folders given")
    return [(Folder(path), record) for path, record in found.items()]


def move_artifacts() -> int:
    """Let a moved or copied store find its artifacts, and count the places.

    They change all at once, or not at all.

    Raises:
        InputError: if there is no such store, or it cannot be used.
    """
    from mnist_exp.tracking.store import connect_existing, explain, store_error

    connect_existing("sqlite:///mlflow.db")
    path = Path.cwd() / "mlflow.db"
    new = (path.parent / "mlruns").as_uri()
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            known = connection.execute(
                "SELECT artifact_location FROM experiments JOIN runs USING (experiment_id) JOIN tags USING (run_uuid) "
                "WHERE key = 'mnist_exp.folder' AND artifact_location LIKE 'file:///%/mlruns'"
            )
            roots = {str(place) for (place,) in known if place != new}
            return sum(
                connection.execute(
                    f"UPDATE {table} SET {column} = ?1 || substr({column}, length(?2) + 1) "  # noqa: S608, names from above
                    f"WHERE {column} = ?2 OR substr({column}, 1, length(?2) + 1) = ?2 || '/'",
                    (new, old),
                ).rowcount
                for old in roots
                for table, column in _ARTIFACT_COLUMNS.items()
            )
    except sqlite3.Error as error:  # another program has locked it, or it cannot be written
        raise store_error("sqlite:///mlflow.db", explain(error)) from error


if __name__ == "__main__":
    main()
