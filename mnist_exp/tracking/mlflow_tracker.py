"""Record runs and sweeps in MLflow, by mirroring their folders."""

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import shown_address
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError, printable, show
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.learning.datasets import Data
from mnist_exp.tracking import store
from mnist_exp.tracking.environment import code_patch, run_record, sweep_record
from mnist_exp.tracking.folder import Record
from mnist_exp.tracking.job import Job
from mnist_exp.tracking.mirror import Sent, create_run, known_run, mirror, register_model, save_model
from mnist_exp.tracking.mlflow_sweep import MLflowSweep
from mnist_exp.tracking.reading import is_over, newest_finished, search
from mnist_exp.tracking.record import Parent, Run, SweepRecord, Tracker, ended, failure_reason

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run as RecordedRun

_SECONDS_BETWEEN_BATCHES = 2.0
_SECONDS_BETWEEN_BATCHES_AT_MOST = 30.0
_SECONDS_AFTER_AN_OUTAGE = 60.0

log = logging.getLogger(__name__)


class MLflowTracker(Tracker):
    """`tracking=mlflow` and `tracking=server`."""

    def __init__(self, settings: MLflowTracking) -> None:
        self._settings = settings
        self._own_tags = {key: show(value) for key, value in (settings.tags or {}).items()}
        if settings.note is not None:
            self._own_tags["mlflow.note.content"] = settings.note

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            if experiment.child is None:
                store.close_abandoned(client, experiment_id)
            record = run_record(experiment, together, self._settings.run_name, self._own_tags)
            run = MLflowRun(client, experiment_id, self._settings, experiment, record, together)
            with ended(run):
                run.begin(record)
                yield run

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            store.close_abandoned(client, experiment_id)
            record = sweep_record(sweep, signature, self._settings.run_name, self._own_tags)
            before = _interrupted(client, experiment_id, signature) if sweep.config.resume else None
            if before is None:
                sent = create_run(client, experiment_id, record)
            else:
                record = _as_before(client, experiment_id, record, before)
                sent = replace(known_run(before), ended=False)
            keys, process = tuple(sweep.swept), os.getpid()
            parent = Parent(sent.run_id, _for_jobs(self._settings), keys, sweep.folder, Path.cwd(), process)
            opened = MLflowSweep(parent, self._own_tags, client, experiment_id, sent)
            opened.folder.begin(record, sweep.config.code, code_patch())
            mirror(client, experiment_id, opened.folder, sent)
            yield opened

    def join_sweep(self, parent: Parent) -> SweepRecord:
        path = store.sqlite_path(self._settings.uri)
        runs: list[RecordedRun] = []
        if path is None or path.exists():
            client, experiment_id = store.connect(self._settings)
            runs = client.search_runs([experiment_id], f"attributes.run_id = '{parent.run_id}'")
        if not runs:
            raise InputError(
                f"tracking.uri={shown_address(self._settings.uri)}: {socket.gethostname()} finds no store "
                "with this sweep; jobs on several machines need a store that all can reach, such as tracking=server"
            )
        return MLflowSweep(parent, self._own_tags, client, experiment_id, known_run(runs[0]))

    def finished(self, signature: str) -> Job | None:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            return newest_finished(client, experiment_id, signature)


class MLflowRun(Run):
    """A run that sends its folder to the store as it grows, several short epochs at a time."""

    _sent: Sent

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        settings: MLflowTracking,
        experiment: Experiment,
        record: Record,
        together: int,
    ) -> None:
        super().__init__(experiment, record, keeps_all=experiment.child is None or settings.keep == "all")
        self._client, self._experiment_id, self._settings = client, experiment_id, settings
        self._registered = ""
        self._seconds_between_batches = min(_SECONDS_BETWEEN_BATCHES * together, _SECONDS_BETWEEN_BATCHES_AT_MOST)
        self._next_batch = 0.0

    def begin(self, record: Record) -> None:
        """Open the run in the store.

        Raises:
            InputError: if the store would keep its artifacts where it may not.
        """
        self._sent = create_run(self._client, self._experiment_id, record)
        self.id = self._sent.run_id
        self._send()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.exceptions import MlflowException

        super().log_epoch(epoch, metrics)
        if time.monotonic() < self._next_batch:
            return
        child = self._experiment.child
        try:
            self._send()
            over = child is not None and is_over(self._client, child.parent)
        except MlflowException as error:  # an outage does not end the training; the metrics are sent later
            over = False
            self._next_batch = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE
            text = "the store does not answer, metrics are kept back: %s"
            log.warning(text, failure_reason(error), extra={"output": self.folder.path})
        if over:  # Ctrl-C or SIGTERM reached the sweep but not this process
            raise SystemExit(143)

    def log_model(self, model: "keras.Model", data: Data) -> None:
        save_model(model, data, self.folder)

    def end(self, status: str, reason: str = "") -> None:
        super().end(status, reason)
        if self.id is None:  # it is not in the store
            return
        self._send()
        if self._settings.register is not None and status == "FINISHED" and self._experiment.child is None:
            self._registered = register_model(self._client, self._settings.register, self.id)
        if status != "FINISHED" and self._experiment.child is None:
            # A progress bar may have left the cursor in the middle of a line.
            print(f"{os.linesep if sys.stdout.isatty() else ''}Run {self.id} is {status}", file=sys.stderr)

    def describe(self) -> str:
        if self.id is None:
            return super().describe()
        page = store.page(self._settings, self._experiment_id, self.id)
        where = printable(f"Run {self.id} in experiment {self._settings.experiment}; {page}")
        return f"{printable(self._registered)}\n{where}" if self._registered else where

    def _send(self) -> None:
        mirror(self._client, self._experiment_id, self.folder, self._sent)
        self._next_batch = time.monotonic() + self._seconds_between_batches


def _for_jobs(settings: MLflowTracking) -> MLflowTracking:
    """Return the settings with an absolute address without its password."""
    path = store.sqlite_path(settings.uri)
    return replace(settings, uri=shown_address(settings.uri if path is None else f"sqlite:///{path}"))


def _interrupted(client: "MlflowClient", experiment_id: str, signature: str) -> "RecordedRun | None":
    """Return the last sweep with this signature, unless it may still run."""
    query = f"tags.mnist_exp.sweep = '{signature}'"
    found = client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"], max_results=1)
    return found[0] if found and found[0].info.status != "RUNNING" else None


def _as_before(client: "MlflowClient", experiment_id: str, record: Record, before: "RecordedRun") -> Record:
    """Make a sweep RUNNING again, in this process, and return its record."""
    left = f"tags.mlflow.parentRunId = '{before.info.run_id}' AND attributes.status = 'RUNNING'"
    for job in search(client, experiment_id, left):
        # On this host, `close_abandoned` knows which still run.
        if job.data.tags.get("mnist_exp.host") != socket.gethostname():
            client.set_terminated(job.info.run_id, "KILLED")
    own = ("mnist_exp.host", "mnist_exp.process")
    for name in own:  # first, or another command would close the RUNNING sweep, whose old process has gone
        client.set_tag(before.info.run_id, name, record.tags[name])
    client.update_run(before.info.run_id, status="RUNNING")
    new = (*own, "mlflow.source.git.commit", "mnist_exp.packages", "mnist_exp.machine", "mnist_exp.threads")
    tags = record.tags | {
        key: value for key, value in before.data.tags.items() if key in record.tags and key not in new
    }
    folder_id = before.data.tags.get("mnist_exp.folder", record.id)
    return replace(record, id=folder_id, name=before.info.run_name, start=before.info.start_time, tags=tags)
