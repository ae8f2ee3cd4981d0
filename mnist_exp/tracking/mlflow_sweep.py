"""A sweep in an MLflow store: a parent run with its jobs below it."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import printable
from mnist_exp.learning.datasets import Data
from mnist_exp.tracking import registry, store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.job import Job, swept_values
from mnist_exp.tracking.mirror import Sent, has_model, known_run, mirror, save_model
from mnist_exp.tracking.reading import REUSED, curve, is_over, newest_finished, read_config, recorded_job, search
from mnist_exp.tracking.record import Parent, SweepRecord

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run as RecordedRun

_SECONDS_FOR_JOBS_TO_END = 20.0
_DESCRIPTION = "mlflow.note.content"
_LONGEST_DESCRIPTION = 8000  # characters, the most that MLflow takes
_RANKING = "### Ranking of the jobs"  # whatever is below it in a description is ours
_MILLISECONDS_THAT_CLOCKS_DIFFER = 60_000  # between the machines of a cluster


class MLflowSweep(SweepRecord):
    """A sweep in an MLflow store: a parent run with its jobs below it."""

    def __init__(
        self, parent: Parent, own_tags: Mapping[str, str], client: "MlflowClient", experiment_id: str, sent: Sent
    ) -> None:
        super().__init__(parent, own_tags)
        assert isinstance(parent.tracking, MLflowTracking)
        self._settings = parent.tracking
        self._client, self._experiment_id, self._sent = client, experiment_id, sent
        self._since = 0
        self._reused_jobs: dict[str, Job] = {}

    def finished(self, signature: str) -> Job | None:
        """Return the newest run that has finished what `signature` stands for, if any."""
        return newest_finished(self._client, self._experiment_id, signature)

    def reuse(self, job: Job) -> None:
        """Count a finished run among the jobs of this sweep; it stays where it is."""
        self._client.set_tag(self.parent.run_id, f"{REUSED}{job.run_id}", json.dumps(job.values))

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> None:
        """Record a job that failed before it had a run, as a run with its traceback."""
        super().log_refused(values, output, error)
        mirror(self._client, self._experiment_id, Folder(output))

    def jobs(self) -> list[Job]:
        """Return all jobs, each once: finished to its end, if it ever was, or as its last try ended."""
        tries: dict[str, list[Job]] = {}
        for job in [*map(recorded_job, self._children()), *self._reused()]:
            tries.setdefault(json.dumps(job.values), []).append(job)
        return [max(reversed(jobs), key=lambda job: job.is_whole) for jobs in tries.values()]

    def ended(self) -> list[Job]:
        """Return the jobs that ended since about the last call, at first all, and those of before that are reused."""
        now = int(time.time() * 1000)
        ended = map(recorded_job, list(self._children(f"attributes.end_time >= {self._since}")))
        self._since = now - _MILLISECONDS_THAT_CLOCKS_DIFFER
        return [*(job for job in ended if job.status != "RUNNING"), *self._reused()]

    def running(self) -> list[str]:
        """Return the names of the jobs that run."""
        return [str(run.info.run_name) for run in self._children("attributes.status = 'RUNNING'")]

    def curve(self, job: Job, metric: str) -> list[float]:
        """Return a metric of a finished job, a value an epoch."""
        return curve(self._client, job.run_id, metric)

    def log_best(self, job: Job) -> None:
        """Record the best job's id and its configuration."""
        super().log_best(job)
        self.folder.change(tags={"mnist_exp.best_run": job.run_id})

    def show_ranking(self, markdown: Callable[[int], str]) -> None:
        """Put the ranking into the run's description, below what the user wrote, before or meanwhile."""
        written = self._client.get_run(self.parent.run_id).data.tags.get(_DESCRIPTION, "")
        begun = f"{written.partition(_RANKING)[0].rstrip()}\n\n{_RANKING}\n\n".lstrip()
        if text := markdown(_LONGEST_DESCRIPTION - len(begun)):
            self._client.set_tag(self.parent.run_id, _DESCRIPTION, begun + text)

    def folder_of(self, job: Job) -> Folder | None:
        """Return the folder of a job that had a run, if it can be read here and is still of that run."""
        folder = super().folder_of(job)
        id_in_store = self._client.get_run(job.run_id).data.tags.get("mnist_exp.folder")
        return folder if folder is not None and folder.read().id == id_in_store else None

    def has_model(self, job: Job) -> bool:
        """Return whether the figures and the model of a job were recorded; the model is the last of them."""
        return has_model(self._client, job.run_id)

    def log_model(self, job: Job, model: "keras.Model", data: Data) -> None:
        """Record the figures and the model of a job that were made after it had ended."""
        folder = Folder(Path(job.output))
        save_model(model, data, folder)
        mirror(self._client, self._experiment_id, folder, known_run(self._client.get_run(job.run_id)))

    def register(self, job: Job) -> str:
        """Register a job's model, where `tracking.register` says so; return what became of it, as a line."""
        name = self._settings.register
        return registry.register(self._client, name, job.run_id) if name is not None else ""

    def is_over(self) -> bool:
        """Return whether the sweep was ended while this job waited or ran."""
        return is_over(self._client, self.parent.run_id)

    def stop(self, status: str) -> None:
        """End the sweep, for its jobs to see, before its files are recorded."""
        self._client.set_terminated(self.parent.run_id, status)

    def close_jobs(self) -> None:
        """Mark as KILLED what runs on this host and whose process has gone; give processes a moment to go."""
        deadline = time.monotonic() + _SECONDS_FOR_JOBS_TO_END
        here = f"attributes.status = 'RUNNING' AND tags.mnist_exp.host = '{socket.gethostname()}'"
        store.close_abandoned(self._client, self._experiment_id)
        while any(self._children(here)) and time.monotonic() < deadline:
            time.sleep(0.2)
            store.close_abandoned(self._client, self._experiment_id)
        super().close_jobs()

    def end(self, status: str) -> None:
        """Record the sweep's files and end it."""
        super().end(status)
        mirror(self._client, self._experiment_id, self.folder, self._sent)

    def describe(self) -> str:
        """Return the sweep's page: on its server, or on the local one that `mlflow ui` starts."""
        page = store.page(self._settings, self._experiment_id, self.parent.run_id)
        return printable(f"Sweep {self.parent.run_id} in experiment {self._settings.experiment}; {page}")

    def data(self, job: Job) -> dict[str, str]:
        """Return the `name`, `digest` and `profile` of a finished job's dataset; nothing where that is unknown."""
        inputs = self._client.get_run(job.run_id).inputs
        if not inputs or not inputs.dataset_inputs:
            return {}
        found = inputs.dataset_inputs[0].dataset
        return {"name": found.name, "digest": found.digest, "profile": found.profile or ""}

    def configuration(self, job: Job) -> str:
        """Return the config.yaml of a job, as the store has it."""
        return read_config(self._client, self._client.get_run(job.run_id))

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
