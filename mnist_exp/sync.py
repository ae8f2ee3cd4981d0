"""Put into MLflow what an outage kept back: `python -m mnist_exp.sync`. Needs neither Keras nor TensorFlow."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import Override
from mnist_exp.config.redaction import shown_address
from mnist_exp.ends import FINISHED
from mnist_exp.errors import InputError, printable
from mnist_exp.sweeps.formats import counted
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.index import PLACES
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXAMPLES = """\
  python -m mnist_exp.sync
  python -m mnist_exp.sync outputs/2026-11-28/09-30-00-123456
  python -m mnist_exp.sync multirun tracking.uri=http://127.0.0.1:5000
  python -m mnist_exp.sync --moved
"""

_SECONDS_AFTER_A_FAILURE = 1.0


def main() -> None:
    """Send folders to the store; exit with 1 if it does not get all, or after bad input."""
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
            from mnist_exp.tracking.store import move_artifacts

            print(f"{counted(move_artifacts(), 'place')} in mlflow.db changed to this folder")
            return
        overrides = [text for text in given if "=" in text and not os.path.exists(text)]  # noqa: PTH110, of any length
        sync([Path(text) for text in given if text not in overrides], overrides)


def sync(places: Sequence[Path], overrides: Sequence[str] = ()) -> None:
    """Send what is below `places` to the store that `overrides` name, each folder to its own MLflow experiment.

    Without places, these are `outputs` and `multirun`, of which runs with `tracking=none` stay where they are. A run
    whose process has gone is recorded as KILLED; one that still trains is left to its process.

    Raises:
        InputError: if there is nothing to send, or the store cannot be reached, or does not get all.
    """
    settings = commands.stored(compose(overrides).config.tracking)
    keys = {Override.of(text).key for text in overrides}
    folders = _found(places or [Path(name) for name in PLACES if Path(name).is_dir()], untracked=bool(places))
    from mnist_exp.tracking import store

    here = store.recorded_address(settings.uri)
    for folder, record in folders if "tracking.uri" not in keys else ():
        uri = record.tracking.get("uri", here)
        if store.recorded_address(uri) != here:
            raise InputError(f"{folder.path}: was tracked in {uri}; type tracking.uri={uri}, or that of another store")
        if record.tracking and not folder.path.is_relative_to(Path.cwd()):
            raise InputError(
                f"{folder.path}: is of another project; type this there, or tracking.uri={uri} to send it here"
            )
    named = {record.tracking.get("experiment", settings.experiment) for _, record in folders}
    with store.store_errors(settings.uri):
        client, chosen = store.connect(settings)
        ids = dict.fromkeys(named, chosen)
        if "tracking.experiment" not in keys:
            ids |= {name: store.connect(replace(settings, experiment=name))[1] for name in named}
    waiting = [(folder, ids[record.tracking.get("experiment", settings.experiment)]) for folder, record in folders]
    left = _send(client, waiting, settings.register)
    from mnist_exp.tracking.mirror import show_all

    for experiment_id in {experiment_id for _, experiment_id in waiting}:
        show_all(client, experiment_id)
    sent = len({folder.path for folder, _ in waiting} - left.keys())
    print(f"{counted(sent, 'folder')} up to date in {shown_address(settings.uri)}")
    if left:
        path, reason = next(iter(left.items()))
        lacks = f"has not all of {counted(len(left), 'folder')}, such as {path}"
        raise InputError(f"{shown_address(settings.uri)}: {lacks} ({reason})")


def _send(client: "MlflowClient", folders: Sequence[tuple[Folder, str]], register: str | None) -> dict[Path, str]:
    """Send folders, each to the MLflow experiment with an id, until all are there or 30 seconds bring no progress.

    Return why some are left, by their paths.
    """
    from rich.progress import track

    from mnist_exp.tracking import store
    from mnist_exp.tracking.mirror import mirror

    waiting, left, last = list(folders), dict[Path, str](), time.monotonic()
    while waiting and time.monotonic() - last < FINISHED.seconds:
        now, waiting = waiting, []
        for folder, experiment_id in track(now, "Sending", transient=True, disable=not sys.stdout.isatty()):
            if time.monotonic() - last > FINISHED.seconds:
                waiting.append((folder, experiment_id))
                continue
            try:
                registered = mirror(client, experiment_id, folder, register=register).registered
            except Exception as error:  # a store raises anything
                if isinstance(error, InputError) or isinstance(error.__cause__, UnicodeError | OverflowError):
                    left[folder.path] = store.explained(error)  # no other try changes it, such as a lone surrogate
                    continue
                left[folder.path] = f"{store.explained(error)}; type the command again"
                waiting.append((folder, experiment_id))
                time.sleep(_SECONDS_AFTER_A_FAILURE)
            else:
                left.pop(folder.path, None)
                last = time.monotonic()
                if registered:
                    print(printable(registered))
    return {folder.path: "no answer; type the command again" for folder, _ in waiting} | left


def _found(places: Iterable[Path], *, untracked: bool) -> list[tuple[Folder, Record]]:
    """Return the folders with what they record, each sweep before its jobs, and again after them.

    Its first time, a sweep gives its jobs the id of their parent; its second, it learns that of the best of them.
    """
    from mnist_exp.tracking import abandoned

    found: dict[Path, Record] = {}
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112, a name of any length
            raise InputError(f"{place}: no such folder; type the folder of a run or a sweep, or one above")
        for path in sorted(place.absolute().rglob("run.json"), key=lambda path: path.parent):
            abandoned.close([path])
            try:
                record = Folder(path.parent).read()
            except InputError as error:
                print(error, file=sys.stderr)
                continue
            if record.status == "RUNNING":
                print(printable(f"{path.parent}: still runs; its process sends it"), file=sys.stderr)
            elif record.tracking or untracked:
                found[path.parent] = record
    if not found:
        raise InputError("nothing to send: no run or sweep that ended lies in outputs, multirun or the folders given")
    sweeps = [(Folder(path), record) for path, record in found.items() if record.is_sweep]
    return [*((Folder(path), record) for path, record in found.items()), *sweeps]


if __name__ == "__main__":
    main()
