"""Record runs and sweeps in MLflow, whose store mirrors their folders."""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial

from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.ends import end_of
from mnist_exp.errors import InputError, printable, show
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking import store
from mnist_exp.tracking.abandoned import close_in_store
from mnist_exp.tracking.environment import run_record, sweep_record
from mnist_exp.tracking.folder import Folder, from_here
from mnist_exp.tracking.mirror import DESCRIPTION, show_all
from mnist_exp.tracking.mlflow_sweep import MLflowSweep
from mnist_exp.tracking.record import Run, ended
from mnist_exp.tracking.sweep_record import Parent, SweepRecord, begun_sweep
from mnist_exp.tracking.tracker import Tracker
from mnist_exp.tracking.uploads import Uploads

log = logging.getLogger(__name__)


class MLflowTracker(Tracker):
    """`tracking=mlflow` and `tracking=server`."""

    def __init__(self, settings: MLflowTracking) -> None:
        self._settings = settings
        self._own_tags = {key: show(value) for key, value in (settings.tags or {}).items()}
        if settings.note is not None:
            self._own_tags[DESCRIPTION] = settings.note
        self.tracking = {"uri": store.recorded_address(settings.uri), "experiment": settings.experiment}

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            abandoned = close_in_store(client, experiment_id)
        record = replace(
            run_record(experiment, together, self._settings.run_name, self._own_tags), tracking=self.tracking
        )
        run = MLflowRun(experiment, record, keeps_all=True)
        watch = cache(partial(show_all, client, experiment_id))
        uploads = Uploads(client, experiment_id, lambda: [run.folder, *abandoned], watch, self._settings.register)
        try:
            with ended(run):
                with store.store_errors(self._settings.uri):
                    run.id = uploads.begin(run.folder)
                text = f"Run {run.id} in experiment {self._settings.experiment}, files in {from_here(run.folder.path)}"
                page = f"#/experiments/{experiment_id}/runs/{run.id}/model-metrics?workflowType=machine_learning"
                run.place = store.linked(text, self._settings, page)
                yield run
        finally:
            error = sys.exc_info()[1]
            run.left_out = uploads.finish(self._settings, end_of(error))
            run.registered = uploads.registered(run.folder)
            if error is not None and run.left_out and experiment.prints:
                print(run.left_out, file=sys.stderr)

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            abandoned = close_in_store(client, experiment_id)
        made = sweep_record(sweep, signature, self._settings.run_name, self._own_tags)
        with begun_sweep(sweep, replace(made, tracking=self.tracking)) as record:
            settings = replace(self._settings, uri=self.tracking["uri"])  # without a login
            parent = Parent(record.id, "", settings, tuple(sweep.swept), sweep.folder, record.attempt)
            opened = MLflowSweep(parent, self._own_tags, self.tracking, client, experiment_id, abandoned)
            try:
                with store.store_errors(self._settings.uri):
                    opened.begin()
                yield opened
            finally:
                opened.uploads.close()

    def join_sweep(self, parent: Parent) -> SweepRecord:
        return SweepRecord(parent, self._own_tags, self.tracking)

    def send_rest(self, folder: Folder) -> str:
        with store.store_errors(self._settings.uri):
            uploads = Uploads(*store.connect(self._settings), lambda: [folder], register=self._settings.register)
        uploads.start()
        left_out = uploads.finish(self._settings)
        return "; ".join(filter(None, [uploads.registered(folder), left_out]))


class MLflowRun(Run):
    """A single run; `place`, `left_out` and `registered` are lines about it in the store."""

    place: Sequence[str] = ()
    left_out = registered = ""

    def end(self, status: str, reason: str = "") -> None:
        super().end(status, reason)
        if status != "FINISHED" and self.id is not None:
            log.info("Run %s is %s", self.id, status)
            if self._experiment.prints:
                # A progress bar may have left the cursor in the middle of a line.
                print(f"{os.linesep if sys.stdout.isatty() else ''}Run {self.id} is {status}", file=sys.stderr)

    def describe(self) -> str:
        if self.id is None:
            return super().describe()
        return "\n".join(map(printable, filter(None, [self.registered, *self.place, self.left_out])))


def tracker_of(settings: MLflowTracking | NoTracking) -> Tracker:
    """Return the tracker that the configuration chooses."""
    return MLflowTracker(settings) if isinstance(settings, MLflowTracking) else Tracker()


def join_sweep(parent: Parent) -> SweepRecord:
    """Return a sweep's record in the process of one of its jobs.

    Raises:
        InputError: if this process does not see the sweep's folder.
    """
    with suppress(InputError):
        if Folder(parent.folder).read().id == parent.id:
            return tracker_of(parent.tracking).join_sweep(parent)
    raise InputError(
        f"hydra.sweep.dir={parent.folder}: {socket.gethostname()} does not see this sweep's folder; jobs on several "
        "machines need a folder on a disk that all of them share"
    )
