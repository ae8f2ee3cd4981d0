"""Record a sweep in MLflow as a parent run with its jobs below it."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import printable
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder, now
from mnist_exp.tracking.job import Job, swept_values
from mnist_exp.tracking.mirror import Sent, has_model, known_run, mirror, register_model, save_model
from mnist_exp.tracking.reading import REUSED, curve, is_over, newest_finished, read_config, recorded_job, search
from mnist_exp.tracking.record import Complete, Parent, SweepRecord, without_weights

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as RecordedRun

_SECONDS_FOR_JOBS_TO_END = 20.0
_DESCRIPTION = "mlflow.note.content"
_LONGEST_DESCRIPTION = 8000  # characters, the most that MLflow takes
_RANKING = "### Ranking of the jobs"  # all below it in a description is ours
_MILLISECONDS_THAT_CLOCKS_DIFFER = 60_000  # between the machines of a cluster


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
        """Return the try of each job that is whole, or else its last one."""
        tries: dict[str, list[Job]] = {}
        for job in [*map(recorded_job, self._children()), *self._reused()]:
            tries.setdefault(json.dumps(job.values), []).append(job)
        return [max(reversed(jobs), key=lambda job: job.is_whole) for jobs in tries.values()]

    def recent(self) -> list[Job]:
        asked = now()
        ended = list(self._children(f"attributes.end_time >= {self._since}"))
        running = self._children("attributes.status = 'RUNNING'")
        found = list(map(recorded_job, [*ended, *running]))
        self._since = asked - _MILLISECONDS_THAT_CLOCKS_DIFFER
        return [*found, *self._reused()]

    def curve(self, job: Job, metric: str) -> list[float]:
        return curve(self._client, job.run_id, metric)

    def configuration(self, job: Job) -> str:
        return read_config(self._client, self._client.get_run(job.run_id))

    def reuse(self, signature: str, values: Mapping[str, str]) -> Job | None:
        job = newest_finished(self._client, self._experiment_id, signature)
        if job is not None and job.parent != self.parent.run_id:
            self._client.set_tag(self.parent.run_id, f"{REUSED}{job.run_id}", json.dumps(values))
        return job

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
                return without_weights(job)
            save_model(*complete(folder.path), folder)
            mirror(self._client, self._experiment_id, folder, known_run(run))
        name = self._settings.register
        return register_model(self._client, name, job.run_id) if name is not None else ""

    def is_over(self) -> bool:
        return is_over(self._client, self.parent.run_id)

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
        """End the sweep, and put the ranking below what the user has written into the run's description."""
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
        return search(self._client, self._experiment_id, query)

    def _reused(self) -> list[Job]:
        tags: Mapping[str, str] = self._client.get_run(self.parent.run_id).data.tags
        reused = {name.removeprefix(REUSED): value for name, value in tags.items() if name.startswith(REUSED)}
        for run_id in reused.keys() - self._reused_jobs.keys():
            job = recorded_job(self._client.get_run(run_id))
            self._reused_jobs[run_id] = replace(job, values=swept_values(reused[run_id]))
        return list(self._reused_jobs.values())
