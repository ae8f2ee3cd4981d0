"""Record runs and sweeps in MLflow, by mirroring their folders."""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import shown_address
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.errors import InputError, printable, show
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.learning.datasets import Data
from mnist_exp.tracking import differences, limits, reading, store
from mnist_exp.tracking.environment import code_patch, run_record, sweep_record
from mnist_exp.tracking.folder import Folder, Record, now
from mnist_exp.tracking.job import Job, swept_values
from mnist_exp.tracking.mirror import Sent, create_run, has_model, known_run, mirror, register, reopen_sweep, save_model
from mnist_exp.tracking.record import Complete, Parent, Run, SweepRecord, Tracker, ended, failure_reason, no_weights

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run as RecordedRun

_SECONDS_BETWEEN_BATCHES = 2.0
_SECONDS_BETWEEN_BATCHES_AT_MOST = 30.0
_SECONDS_AFTER_AN_OUTAGE = 60.0
_SECONDS_FOR_JOBS_TO_END = 20.0
_DESCRIPTION = "mlflow.note.content"
_LONGEST_DESCRIPTION = 8000  # characters, the most that MLflow takes
_RANKING = "### Ranking of the jobs"  # all below it in a description is ours
_MILLISECONDS_THAT_CLOCKS_DIFFER = 60_000  # between the machines of a cluster

log = logging.getLogger(__name__)


class MLflowTracker(Tracker):
    """`tracking=mlflow` and `tracking=server`."""

    def __init__(self, settings: MLflowTracking) -> None:
        self._settings = settings
        self._own_tags = {key: show(value) for key, value in (settings.tags or {}).items()}
        if settings.note is not None:
            self._own_tags[_DESCRIPTION] = settings.note

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
            before = reopen_sweep(client, experiment_id, record) if sweep.config.resume else None
            record, sent = before or (record, create_run(client, experiment_id, record))
            parent = Parent(sent.run_id, _for_jobs(self._settings), tuple(sweep.swept), sweep.folder)
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
            return reading.newest_finished(client, experiment_id, signature)

    def why_not(self, experiment: Experiment, data: str) -> str:
        with store.store_errors(self._settings.uri):
            client, experiment_id = store.connect(self._settings)
            return differences.why_not(client, experiment_id, run_record(experiment, 1, None, {}), data)


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
        """Open the run in the store; raises what `create_run` does."""
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
            over = child is not None and reading.is_over(self._client, child.parent)
        except MlflowException as error:  # an outage does not end the training; the metrics are sent later
            limits.explained(error)  # raises what a signal in a statement stands for
            over = False
            self._next_batch = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE
            text = "the store does not answer, metrics are kept back: %s"
            log.warning(text, failure_reason(error), extra={"output": self.folder.path})
        if over:  # a signal reached the sweep but not this process
            raise SystemExit(143)

    def log_model(self, model: "keras.Model", data: Data) -> None:
        save_model(model, data, self.folder)

    def end(self, status: str, reason: str = "") -> None:
        super().end(status, reason)
        if self.id is None:  # it is not in the store
            return
        self._send()
        if self._settings.register is not None and status == "FINISHED" and self._experiment.child is None:
            self._registered = register(self._client, self._settings.register, self.id)
        if status != "FINISHED" and self._experiment.child is None:
            log.info("Run %s is %s", self.id, status)
            if self._experiment.prints:
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


class MLflowSweep(SweepRecord):
    """A sweep whose jobs, on any machine, are read from the store."""

    def __init__(
        self, parent: Parent, own_tags: Mapping[str, str], client: "MlflowClient", experiment_id: str, sent: Sent
    ) -> None:
        super().__init__(parent, own_tags)
        assert isinstance(parent.tracking, MLflowTracking)
        self._settings = parent.tracking
        self._client, self._experiment_id, self._sent = client, experiment_id, sent
        self._since = 0
        self._reused_jobs: dict[str, Job] = {}

    def jobs(self) -> list[Job]:
        """Return each job's last whole try, or else its last."""
        tries: dict[str, list[Job]] = {}
        for job in [*map(reading.recorded_job, self._children()), *self._reused()]:
            tries.setdefault(json.dumps(job.values), []).append(job)
        return [max(reversed(jobs), key=lambda job: job.is_whole) for jobs in tries.values()]

    def recent(self) -> list[Job]:
        asked = now()
        ended = list(self._children(f"attributes.end_time >= {self._since}"))
        running = self._children("attributes.status = 'RUNNING'")
        found = list(map(reading.recorded_job, [*ended, *running]))
        self._since = asked - _MILLISECONDS_THAT_CLOCKS_DIFFER
        return [*found, *self._reused()]

    def curve(self, job: Job, metric: str) -> list[float]:
        return reading.curve(self._client, job.run_id, metric)

    def configuration(self, job: Job) -> str:
        return reading.read_config(self._client, self._client.get_run(job.run_id))

    def reuse(self, signature: str, values: Mapping[str, str]) -> Job | None:
        job = reading.newest_finished(self._client, self._experiment_id, signature)
        if job is not None and job.parent != self.parent.run_id:
            self._client.set_tag(self.parent.run_id, f"{reading.REUSED}{job.run_id}", json.dumps(values))
        return job

    def why_none(self, data: set[str]) -> str:
        return differences.why_none(self._client, self._experiment_id, self.folder.read(), data)

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> None:
        super().log_refused(values, output, error)
        mirror(self._client, self._experiment_id, Folder(output))

    def log_best(self, job: Job, complete: Complete) -> str:
        """Record the best job's id, configuration, figures and model, and register the model if the user wants it."""
        (self.folder.path / "best.yaml").write_text(self.configuration(job))
        self.folder.change(tags={"mnist_exp.best_run": job.run_id})
        run, folder = self._client.get_run(job.run_id), Folder(Path(job.output))
        if not has_model(run):  # nor, perhaps, figures, which are sent before it
            # A later run may have taken the folder.
            if not folder.has_weights() or folder.read().id != run.data.tags.get("mnist_exp.folder"):
                return no_weights(job)
            save_model(*complete(folder.path), folder)
            mirror(self._client, self._experiment_id, folder, known_run(run))
        name = self._settings.register
        return register(self._client, name, job.run_id) if name is not None else ""

    def is_over(self) -> bool:
        return reading.is_over(self._client, self.parent.run_id)

    def close_jobs(self, status: str | None = None) -> None:
        """Give jobs a moment to end; then record as KILLED those whose process, on this host, has gone."""
        if status is not None:
            self._client.set_terminated(self.parent.run_id, status)
        deadline = time.monotonic() + _SECONDS_FOR_JOBS_TO_END
        here = f"attributes.status = 'RUNNING' AND tags.mnist_exp.host = '{socket.gethostname()}'"
        store.close_abandoned(self._client, self._experiment_id)
        while any(self._children(here)) and time.monotonic() < deadline:
            time.sleep(0.2)
            store.close_abandoned(self._client, self._experiment_id)
        super().close_jobs(status)

    def end(self, status: str, ranking: Callable[[int], str]) -> None:
        """End the sweep, and put the ranking into the run's description, below what the user has written by now."""
        written = self._client.get_run(self.parent.run_id).data.tags.get(_DESCRIPTION, "")
        begun = f"{written.partition(_RANKING)[0].rstrip()}\n\n{_RANKING}\n\n".lstrip()
        if text := ranking(_LONGEST_DESCRIPTION - len(begun)):
            self._client.set_tag(self.parent.run_id, _DESCRIPTION, begun + text)
        super().end(status, ranking)
        mirror(self._client, self._experiment_id, self.folder, self._sent)

    def describe(self) -> str:
        page = store.page(self._settings, self._experiment_id, self.parent.run_id)
        return printable(f"Sweep {self.parent.run_id} in experiment {self._settings.experiment}; {page}")

    def _children(self, condition: str = "") -> Iterator["RecordedRun"]:
        query = f"tags.mlflow.parentRunId = '{self.parent.run_id}'" + (f" AND {condition}" if condition else "")
        return reading.search(self._client, self._experiment_id, query)

    def _reused(self) -> list[Job]:
        tags, start = self._client.get_run(self.parent.run_id).data.tags, reading.REUSED
        reused = {name.removeprefix(start): value for name, value in tags.items() if name.startswith(start)}
        for run_id in reused.keys() - self._reused_jobs.keys():
            job = reading.recorded_job(self._client.get_run(run_id))
            self._reused_jobs[run_id] = replace(job, values=swept_values(reused[run_id]))
        return list(self._reused_jobs.values())


def _for_jobs(settings: MLflowTracking) -> MLflowTracking:
    """Return the settings with an absolute address without its password."""
    path = store.sqlite_path(settings.uri)
    return replace(settings, uri=shown_address(settings.uri if path is None else f"sqlite:///{path}"))


def tracker_of(settings: MLflowTracking | NoTracking) -> Tracker:
    """Return the tracker that the configuration chooses."""
    return MLflowTracker(settings) if isinstance(settings, MLflowTracking) else Tracker()


def join_sweep(parent: Parent, own_uri: object) -> SweepRecord:
    """Return a sweep's record in the process of one of its jobs.

    The password, which `parent` lacks, comes from `own_uri`, the store's address in this process's configuration.

    Raises:
        InputError: if the sweep is not in the store that this process reaches.
    """
    settings = parent.tracking
    if isinstance(settings, MLflowTracking) and shown_address(str(own_uri)) == settings.uri:
        parent = replace(parent, tracking=replace(settings, uri=str(own_uri)))
    return tracker_of(parent.tracking).join_sweep(parent)
