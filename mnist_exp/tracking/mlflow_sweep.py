"""Sweeps in MLflow: in the process that runs one, and in that of a job which does not reach its folder."""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import signals
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.ends import CTRL_C, FINISHED
from mnist_exp.errors import printable
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking import differences, reading, store, views
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.job import REUSED, Job
from mnist_exp.tracking.mirror import save_model, show_sweep
from mnist_exp.tracking.record import Run
from mnist_exp.tracking.sweep_record import Complete, SweepRecord
from mnist_exp.tracking.uploads import Uploads

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SECONDS_TO_SETTLE = 3.0
_SECONDS_OF_A_SHORT_JOB = 10.0
_SECONDS_BETWEEN_LOOKS = 5.0  # of a job on another machine, after its sweep
_SECONDS_FOR_JOBS_ELSEWHERE = 60.0
_LAUNCHERS_HERE = ("BasicLauncher", "StackedLauncher", "JoblibLauncher")  # the jobs of others may run elsewhere

log = logging.getLogger(__name__)


@dataclass
class MLflowSweep(SweepRecord):
    """A sweep in its own process, which mirrors all folders that it reaches; the store has jobs on other machines."""

    client: "MlflowClient"
    experiment_id: str
    sweep: Sweep
    abandoned: Sequence[Folder]
    _elsewhere: list[Job] = field(default_factory=list, init=False)
    _left_out: str = field(default="", init=False)
    _has_view: bool | None = field(default=None, init=False)  # None before there are jobs

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.client, self.experiment_id, self._folders, self._look, self._settings.register)

    @property
    def _settings(self) -> MLflowTracking:
        assert isinstance(self.parent.tracking, MLflowTracking)
        return self.parent.tracking

    def begin(self) -> None:
        """Open the sweep in the store; raises what `Uploads.begin` does."""
        self.parent = replace(self.parent, run_id=self.uploads.begin(self.folder))

    def _folders(self) -> list[Folder]:
        short = {Path(job.output) for job in super()._tries() if job.status == "RUNNING" and _has_just_begun(job)}
        jobs = [Folder(path.parent) for path in sorted(self.folder.path.glob("*/run.json")) if path.parent not in short]
        reused = [Folder(Path(job.output)) for job in self._reused() if Folder(Path(job.output)).is_there()]
        return [self.folder, *jobs, *self.abandoned, *reused]

    @property
    def _reaches_others(self) -> bool:
        """Whether the launcher may start jobs on other machines."""
        return str(self.sweep.launcher.get("_target_", "")).rpartition(".")[2] not in _LAUNCHERS_HERE

    def _look(self) -> None:
        self._look_elsewhere()
        if self._has_view is None and any(job.run_id for job in self._tries()):
            args = self.client, self.experiment_id, self.folder, self.folder.read(), self.parent.run_id
            self._has_view = show_sweep(*args)

    def _look_elsewhere(self) -> None:
        """Read the jobs of other machines, which report to the store alone."""
        if self._reaches_others:
            found = reading.jobs_of(self.client, self.experiment_id, self.parent.run_id)
            here = {job.run_id for job in super()._tries()}
            self._elsewhere = [job for job in found if job.run_id not in here]

    def _tries(self) -> list[Job]:
        here = super()._tries()
        ids = {job.run_id for job in here}
        return [*here, *(job for job in self._elsewhere if job.run_id not in ids)]

    def _is_elsewhere(self, job: Job) -> bool:
        return any(job.run_id == one.run_id for one in self._elsewhere) or not Folder(Path(job.output)).is_there()

    def curve(self, job: Job, metric: str) -> list[float]:
        return reading.curve(self.client, job.run_id, metric) if self._is_elsewhere(job) else super().curve(job, metric)

    def configuration(self, job: Job) -> str:
        if self._is_elsewhere(job):
            return reading.read_config(self.client, self.client.get_run(job.run_id))
        return super().configuration(job)

    def why_none(self, data: set[str]) -> str:
        with store.store_errors(self._settings.uri):
            return differences.why_none(self.client, self.experiment_id, self.folder.read(), data)

    def _keep(self, folder: Folder, complete: Complete) -> None:
        save_model(*complete(folder.path), folder)

    def close_jobs(self, status: str | None = None) -> None:
        super().close_jobs(status)
        if self._reaches_others:
            self.settle()  # so that it knows which run there
        deadline = time.monotonic() + _SECONDS_FOR_JOBS_ELSEWHERE
        while any(job.status == "RUNNING" for job in self._elsewhere) and time.monotonic() < deadline:
            if signals.hurried():
                return
            self.uploads.wait(1.0)  # which sends the sweep's status, and reads theirs

    def settle(self) -> None:
        self.uploads.wait(_SECONDS_TO_SETTLE, at_most=3 * _SECONDS_TO_SETTLE)

    def end(self, status: str, ranking: Callable[[int], str]) -> None:
        if status != "KILLED":
            self.settle()
        super().end(status, ranking)
        self._left_out = self.uploads.finish(self._settings, CTRL_C if status == CTRL_C.status else FINISHED)

    def describe(self) -> str:
        run_id, registered = self.parent.run_id, self.uploads.registered(self.folder)
        page = f"#/experiments/{self.experiment_id}/runs/{run_id}"
        if self._has_view:
            page = views.path_of(self.experiment_id, views.key_of(run_id))
        where = store.linked(f"Sweep {run_id} in experiment {self._settings.experiment}", self._settings, page)
        return "\n".join(map(printable, filter(None, [registered, *where, self._left_out])))


def _has_just_begun(job: Job) -> bool:
    """Return whether a job began less than ten seconds ago; one that ends before is sent once."""
    with suppress(OSError):
        return 0 <= time.time() - Path(job.output, "run.json").stat().st_mtime < _SECONDS_OF_A_SHORT_JOB
    return False


@dataclass
class RemoteSweep(SweepRecord):
    """A sweep as a job on another machine knows it, which reads the store, and mirrors its own folder."""

    client: "MlflowClient"
    experiment_id: str
    _is_over: bool = field(default=False, init=False)

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        with self._mirrored() as folders, super().open_run(experiment, together) as run:
            folders.append(run.folder)
            yield run

    @contextmanager
    def _mirrored(self) -> Iterator[list[Folder]]:
        """Mirror the folders that the block adds to a list."""
        folders: list[Folder] = []
        uploads = Uploads(
            self.client, self.experiment_id, lambda: list(folders), self.look, pause=_SECONDS_BETWEEN_LOOKS
        )
        uploads.start()
        try:
            yield folders
        finally:
            assert isinstance(self.parent.tracking, MLflowTracking)
            if left_out := uploads.finish(self.parent.tracking):
                log.warning("%s, on %s", left_out, socket.gethostname())

    def look(self) -> None:
        with suppress(Exception):  # an outage, in which a job may begin
            self._is_over = self.client.get_run(self.parent.run_id).info.status != "RUNNING"

    def is_over(self) -> bool:
        return self._is_over

    def is_orphan(self) -> bool:
        return False

    def _tries(self) -> list[Job]:
        return reading.jobs_of(self.client, self.experiment_id, self.parent.run_id)

    def curve(self, job: Job, metric: str) -> list[float]:
        return reading.curve(self.client, job.run_id, metric)

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> Folder:
        with self._mirrored() as folders:
            folders.append(super().log_refused(values, output, error))
            return folders[0]

    def reuse(self, job: Job, values: Mapping[str, str], output: Path) -> None:  # noqa: ARG002
        self.client.set_tag(self.parent.run_id, f"{REUSED}{job.run_id}", json.dumps(dict(values)))
