"""Sweeps in MLflow."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.schema import MLflowTracking
from mnist_exp.ends import CTRL_C, FINISHED
from mnist_exp.errors import printable
from mnist_exp.tracking import store, views
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.mirror import show_sweep
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import SweepRecord
from mnist_exp.tracking.uploads import Uploads

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SECONDS_TO_SETTLE = 3.0
_SECONDS_OF_A_SHORT_JOB = 10.0


@dataclass
class MLflowSweep(SweepRecord):
    """A sweep in its own process, which mirrors its folder and those of its jobs."""

    client: "MlflowClient"
    experiment_id: str
    abandoned: Sequence[Folder]
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
        short = {Path(job.output) for job in self._tries() if job.status == "RUNNING" and _has_just_begun(job)}
        jobs = [Folder(path.parent) for path in sorted(self.folder.path.glob("*/run.json")) if path.parent not in short]
        reused = [Folder(Path(job.output)) for job in self._reused() if Folder(Path(job.output)).is_there()]
        return [self.folder, *jobs, *self.abandoned, *reused]

    def _look(self) -> None:
        if self._has_view is None and any(job.run_id for job in self._tries()):
            args = self.client, self.experiment_id, self.folder, self.folder.read(), self.parent.run_id
            self._has_view = show_sweep(*args)

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


def _has_just_begun(job: Record) -> bool:
    """Return whether a job began less than ten seconds ago; one that ends before is sent once."""
    with suppress(OSError):
        return 0 <= time.time() - Path(job.output, "run.json").stat().st_mtime < _SECONDS_OF_A_SHORT_JOB
    return False
