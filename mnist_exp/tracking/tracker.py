"""Choose the tracker by `tracking`, in one place. Imports nothing heavy."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import shown_address
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.errors import InputError

if TYPE_CHECKING:
    from mnist_exp.tracking.record import Parent, SweepRecord, Tracker


def tracker_of(settings: MLflowTracking | NoTracking) -> "Tracker":
    """Return the tracker that is configured."""
    if isinstance(settings, MLflowTracking):
        from mnist_exp.tracking.mlflow_tracker import MLflowTracker

        return MLflowTracker(settings)
    from mnist_exp.tracking.record import Tracker

    return Tracker()


def join_sweep(parent: "Parent", own_uri: object) -> "SweepRecord":
    """Return a sweep's record in the process of one of its jobs.

    The password, which `parent` lacks, comes from `own_uri`, the store's address in this process's configuration.

    Raises:
        InputError: if the sweep is not in the store that this process reaches.
    """
    settings = parent.tracking
    if isinstance(settings, MLflowTracking) and shown_address(str(own_uri)) == settings.uri:
        parent = replace(parent, tracking=replace(settings, uri=str(own_uri)))
    return tracker_of(parent.tracking).join_sweep(parent)


def stored(settings: MLflowTracking | NoTracking) -> MLflowTracking:
    """Return the settings of a store that can be read.

    Raises:
        InputError: for `tracking=none`.
    """
    if isinstance(settings, NoTracking):
        raise InputError("tracking=none: has no store to read; tracking=mlflow, the default, has one")
    return settings
