"""Close the runs that lost their process, by a kill -9 or a power cut."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mnist_exp.errors import InputError
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import search
from mnist_exp.tracking.store import Store


def close(records: Iterable[Path]) -> int:
    """Record as KILLED the runs, given by their `run.json`, whose process has gone; return how many still run."""
    running = 0
    for folder in (Folder(path.parent) for path in records):
        with suppress(OSError, InputError):  # deleted, damaged, or of another program
            if folder.read().status == "RUNNING":
                if locks.is_held_here(folder.path):
                    running += 1
                    continue
                with locks.held(folder.top) as has_sweep, locks.held(folder.path) as has_run:
                    if not (has_sweep and has_run):
                        running += 1
                    elif folder.read().status == "RUNNING":
                        folder.end("KILLED")
    return running


def _is_running(path: Path) -> bool:
    with suppress(InputError):
        return Folder(path.parent).read().status == "RUNNING"
    return False


def close_in_store(store: Store) -> list[Folder]:
    """Close the RUNNING runs of a store that nobody works on; return the folders of those that are to be mirrored.

    The lock of its folder decides. A run on this host whose folder is gone has nobody; one on another host is left.
    """
    folders = []
    for run in search(store.client, store.experiment_id, "attributes.status = 'RUNNING'"):
        folder = Folder(Path(run.output))
        is_here = False
        with suppress(InputError):
            is_here = folder.read().id == run.id
        if is_here:
            # The store may lack those of a sweep's jobs that had just begun.
            records = [folder.path / "run.json", *filter(_is_running, folder.path.glob("*/run.json"))]
            if not close(records):
                folders += [Folder(path.parent) for path in records]
        elif run.host == socket.gethostname():
            store.client.set_terminated(run.run_id, "KILLED")
    return folders
