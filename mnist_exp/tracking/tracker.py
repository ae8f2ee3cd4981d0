"""Who records, chosen by `tracking` in one place. Imports nothing heavy."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mnist_exp.config.redaction import shown_address
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking.job import Job

if TYPE_CHECKING:
    from mnist_exp.tracking.record import Parent, Run, SweepRecord


class Tracker(Protocol):
    """Opens the records of runs and sweeps, and finds what has finished."""

    def open_run(self, experiment: Experiment, together: int) -> AbstractContextManager["Run"]:
        """Record a run from its start to its end.

        It ends FINISHED, FAILED after an exception, or KILLED after Ctrl-C or SIGTERM.

        Args:
            experiment: what runs.
            together: how many jobs train as one program with it.

        Raises:
            InputError: if the store cannot be reached or written.
        """

    def open_sweep(self, sweep: Sweep, signature: str) -> AbstractContextManager["SweepRecord"]:
        """Record a sweep, or with `resume` go on with the last one of this signature."""

    def join_sweep(self, parent: "Parent") -> "SweepRecord":
        """Return a sweep's record, from the process of one of its jobs."""

    def finished(self, signature: str) -> Job | None:
        """Return the newest run that has finished what `signature` stands for, if any."""

    def is_store(self, path: Path) -> bool:
        """Return whether a database file is this tracker's store."""


def tracker_of(settings: MLflowTracking | NoTracking) -> Tracker:
    """Return the tracker that is configured."""
    if isinstance(settings, MLflowTracking):
        from mnist_exp.tracking.mlflow_tracker import MLflowTracker

        return MLflowTracker(settings)
    from mnist_exp.tracking.folder_tracker import FolderTracker

    return FolderTracker()


def join_sweep(parent: "Parent", own_uri: object) -> "SweepRecord":
    """Return a sweep's record, from the process of one of its jobs.

    Args:
        parent: as the sweep sent it, without a password.
        own_uri: the store's address as this process has it, with the password.

    Raises:
        InputError: if the parent run is not in the store that this process reaches.
    """
    settings = parent.tracking
    if isinstance(settings, MLflowTracking) and shown_address(str(own_uri)) == settings.uri:
        parent = replace(parent, tracking=replace(settings, uri=str(own_uri)))
    return tracker_of(parent.tracking).join_sweep(parent)


def stored(settings: MLflowTracking | NoTracking) -> MLflowTracking:
    """Return the settings of a store that can be read.

    Raises:
        InputError: of `tracking=none`.
    """
    if isinstance(settings, NoTracking):
        raise InputError("tracking=none: has no store to read; tracking=mlflow, the default, has one")
    return settings
