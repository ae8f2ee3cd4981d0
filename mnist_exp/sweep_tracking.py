"""What is recorded of a sweep: in MLflow a parent run with its jobs below it, without a store a folder of files."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import store, tracking
from mnist_exp.composition import Sweep
from mnist_exp.config import MLflowTracking, NoTracking
from mnist_exp.datasets import Data
from mnist_exp.errors import InputError, printable
from mnist_exp.ranking import Job, job_name
from mnist_exp.redaction import traceback_text, without_secrets

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run

_REUSED = "mnist_exp.reused."  # a tag of a sweep for each run of before that it counts among its jobs
_SECONDS_FOR_JOBS_TO_END = 20.0
_MILLISECONDS_THAT_CLOCKS_DIFFER = 60_000  # between the machines of a cluster


@dataclass(frozen=True)
class Parent:
    """What a job, wherever it runs, needs to know of its sweep.

    `run_id`: empty without tracking. `tracking`: its address holds on other machines, if the store does. `keys`: what
    varies. `cwd`: where the sweep was started, which relative paths in the configuration count from. `process`: the
    one that the sweep was started in.
    """

    run_id: str
    tracking: MLflowTracking | NoTracking
    keys: tuple[str, ...]
    folder: Path
    cwd: Path
    process: int


def open_sweep(sweep: Sweep, signature: str) -> "SweepRecord":
    """Open the sweep's parent run, or with `resume` go on with that of the last sweep of this signature.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    settings = sweep.config.tracking
    keys = tuple(sweep.swept)
    if not isinstance(settings, MLflowTracking):
        return SweepRecord(Parent("", settings, keys, sweep.folder, Path.cwd(), os.getpid()))
    path = store.sqlite_path(settings.uri)
    if path is not None:
        settings = replace(settings, uri=f"sqlite:///{path}")
    client, experiment_id = store.connect(settings)
    store.close_abandoned(client, experiment_id)
    run_id = _interrupted(client, experiment_id, signature) if sweep.config.resume else None
    tags = tracking.process_tags(settings) | {
        "mnist_exp.overrides": " ".join(sweep.overrides),
        "mnist_exp.sweep": signature,
    }
    if run_id is None:
        name = settings.run_name or " ".join(sweep.overrides)
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name[:250]).info.run_id)
        tracking.check_artifacts(client, run_id)
    else:
        left = f"tags.mlflow.parentRunId = '{run_id}' AND attributes.status = 'RUNNING'"
        for job in search(client, experiment_id, left):
            # Of those on this host it is known whether they run.
            if job.data.tags.get("mnist_exp.host") != tags["mnist_exp.host"]:
                client.set_terminated(job.info.run_id, "KILLED")
        for name in ("mnist_exp.host", "mnist_exp.process"):
            client.set_tag(run_id, name, tags[name])
        client.update_run(run_id, status="RUNNING")
    return MLflowSweepRecord(
        Parent(run_id, settings, keys, sweep.folder, Path.cwd(), os.getpid()), client, experiment_id
    )


def record_in_job(parent: Parent) -> "SweepRecord":
    """The record of a sweep, from the process of one of its jobs.

    Raises:
        InputError: if the parent run is not in the store that this process reaches.
    """
    if not isinstance(parent.tracking, MLflowTracking):
        return SweepRecord(parent)
    path = store.sqlite_path(parent.tracking.uri)
    found = path is None or path.exists()
    if found:
        client, experiment_id = store.connect(parent.tracking)
        found = bool(client.search_runs([experiment_id], f"attributes.run_id = '{parent.run_id}'"))
    if not found:
        raise InputError(
            f"tracking.uri={without_secrets(parent.tracking.uri)}: {socket.gethostname()} has no such store "
            "with this sweep; jobs on several machines need one that all reach, such as tracking=server"
        )
    return MLflowSweepRecord(parent, client, experiment_id)


class SweepRecord:
    """A sweep without a store: a job.json in the folder of each job."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """The job that has finished what `signature` stands for, if any."""
        return None

    def reuse(self, job: Job) -> None:
        """Count a finished run, of whatever sweep, among the jobs of this one."""

    def log_refused(self, job: Job, error: Exception) -> None:  # noqa: ARG002
        """Record a job that failed before it had a run."""
        self.log_ended(job)

    def log_ended(self, job: Job) -> None:
        """Record a job that ended and had a run."""
        Path(job.output).mkdir(parents=True, exist_ok=True)
        (Path(job.output) / "job.json").write_text(json.dumps(asdict(job), indent=1))

    def jobs(self) -> list[Job]:
        """All jobs."""
        return self.ended()

    def ended(self) -> list[Job]:
        """The jobs that ended, at least those since the last call, and those of before that the sweep reuses."""
        return [Job(**json.loads(path.read_text())) for path in sorted(self.parent.folder.glob("*/job.json"))]

    def running(self) -> list[str]:
        """The names of the jobs that run."""
        return []

    def curve(self, job: Job, metric: str) -> list[float]:
        """A metric of a finished job, a value an epoch."""
        history = json.loads((Path(job.output) / "result.json").read_text())["history"]
        return list(history[metric])

    def log_best(self, job: Job, objective: str) -> None:
        """Record the best job's scores and configuration as the sweep's."""

    def has_model(self, job: Job) -> bool:
        """Whether the figures and the model of a job were recorded."""
        return (Path(job.output) / "figures").is_dir()

    def log_model(self, job: Job, model: "keras.Model", data: Data) -> None:
        """Record the figures and the model of a job that were made after it had ended."""

    def register(self, job: Job) -> str:  # noqa: ARG002
        """Register a job's model, where `tracking.register` says so; what became of it, as a line."""
        return ""

    def parent_for_jobs(self) -> Parent:
        """What jobs are told; a launcher may write it down, so that it holds no password."""
        return self.parent

    def is_over(self) -> bool:
        """Whether the sweep was ended while this job waited or ran."""
        return False

    def end(self, status: str) -> None:
        """End the sweep, for its jobs to see, before its files are recorded."""

    def close_jobs(self) -> None:
        """Record the end of jobs whose process has gone."""

    def close(self, status: str) -> None:
        """Record the sweep's files and end it as FINISHED, FAILED or KILLED."""

    def describe(self) -> str:
        """Where to look at the sweep, for the terminal."""
        return f"Files in {self.parent.folder}"


class MLflowSweepRecord(SweepRecord):
    """A sweep in an MLflow store."""

    def __init__(self, parent: Parent, client: "MlflowClient", experiment_id: str) -> None:
        super().__init__(parent)
        self._client = client
        self._experiment_id = experiment_id
        self._since = int(time.time() * 1000)
        self._reused_jobs: dict[str, Job] = {}

    def finished(self, signature: str) -> Job | None:
        """The newest run that has finished what `signature` stands for, if any; one query."""
        query = f"tags.mnist_exp.signature = '{signature}' AND attributes.status = 'FINISHED'"
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        return job_of(found[0]) if found else None

    def reuse(self, job: Job) -> None:
        """Count a finished run among the jobs of this sweep; it stays where it is."""
        self._client.set_tag(self.parent.run_id, f"{_REUSED}{job.run_id}", json.dumps(job.values))

    def log_refused(self, job: Job, error: Exception) -> None:
        """Record a job that failed before it had a run, as a run with its traceback."""
        assert isinstance(self.parent.tracking, MLflowTracking)
        tags = tracking.process_tags(self.parent.tracking) | {
            "mlflow.parentRunId": self.parent.run_id,
            "mnist_exp.swept": json.dumps(job.values),
            "mnist_exp.error": job.reason,
            "mnist_exp.output": job.output,
        }
        name = job_name(job.values, self.parent.keys)[:250]
        run_id = self._client.create_run(self._experiment_id, tags=tags, run_name=name).info.run_id
        self._client.log_text(run_id, traceback_text(error), "error.txt")
        self._client.set_terminated(run_id, "FAILED")

    def log_ended(self, job: Job) -> None:
        """Nothing: the job's run has all of it."""

    def jobs(self) -> list[Job]:
        """All jobs, each once: finished, if it ever was, or as its last try ended."""
        tries: dict[str, list[Job]] = {}
        for job in [*map(job_of, self._children()), *self._reused()]:
            tries.setdefault(json.dumps(job.values), []).append(job)
        return [max(reversed(jobs), key=lambda job: job.status == "FINISHED") for jobs in tries.values()]

    def ended(self) -> list[Job]:
        """The jobs that ended since about the last call, and those of before that the sweep reuses."""
        now = int(time.time() * 1000)
        ended = map(job_of, list(self._children(f"attributes.end_time >= {self._since}")))
        self._since = now - _MILLISECONDS_THAT_CLOCKS_DIFFER
        return [*(job for job in ended if job.status != "RUNNING"), *self._reused()]

    def running(self) -> list[str]:
        """The names of the jobs that run."""
        return [str(run.info.run_name) for run in self._children("attributes.status = 'RUNNING'")]

    def curve(self, job: Job, metric: str) -> list[float]:
        """A metric of a finished job, a value an epoch."""
        return curve(self._client, job.run_id, metric)

    def log_best(self, job: Job, objective: str) -> None:
        """Record the best job's scores, the objective under its name and as `objective`, its id and configuration."""
        assert job.objective is not None
        for name, value in {**(job.scores or {}), objective: job.objective, "objective": job.objective}.items():
            self._client.log_metric(self.parent.run_id, name, value, step=0)
        self._client.set_tag(self.parent.run_id, "mnist_exp.best_run", job.run_id)
        config = Path(self._client.download_artifacts(job.run_id, "config.yaml"))
        (self.parent.folder / "best.yaml").write_text(config.read_text())

    def has_model(self, job: Job) -> bool:
        """Whether the figures and the model of a job were recorded; the model is the last of them."""
        outputs = self._client.get_run(job.run_id).outputs
        return outputs is not None and bool(outputs.model_outputs)

    def parent_for_jobs(self) -> Parent:
        """What jobs are told; a launcher may write it down, so that it holds no password."""
        assert isinstance(self.parent.tracking, MLflowTracking)
        uri = without_secrets(self.parent.tracking.uri)
        return replace(self.parent, tracking=replace(self.parent.tracking, uri=uri))

    def is_over(self) -> bool:
        """Whether the sweep was ended while this job waited or ran."""
        return tracking.is_over(self._client, self.parent.run_id)

    def end(self, status: str) -> None:
        """End the sweep, for its jobs to see, before its files are recorded."""
        self._client.set_terminated(self.parent.run_id, status)

    def log_model(self, job: Job, model: "keras.Model", data: Data) -> None:
        """Record the figures and the model of a job that were made after it had ended."""
        tracking.log_files(self._client, job.run_id, Path(job.output))
        tracking.log_model(self._client, self._experiment_id, job.run_id, model, data)

    def register(self, job: Job) -> str:
        """Register a job's model, where `tracking.register` says so; what became of it, as a line."""
        assert isinstance(self.parent.tracking, MLflowTracking)
        name = self.parent.tracking.register
        return tracking.register(self._client, name, job.run_id) if name is not None else ""

    def close(self, status: str) -> None:
        """Record the sweep's files and end it; what its gone processes left RUNNING ends KILLED with it."""
        folder = self.parent.folder
        for path in [*(folder / name for name in ("ranking.csv", "best.yaml")), *sorted(folder.glob("figures/*.png"))]:
            if path.is_file():
                artifact_folder = None if path.parent == folder else path.parent.name
                self._client.log_artifact(self.parent.run_id, str(path), artifact_folder)
        self._client.set_terminated(self.parent.run_id, status)

    def close_jobs(self) -> None:
        """Mark as KILLED what runs on this host and whose process has gone; give processes a moment to go."""
        deadline = time.monotonic() + _SECONDS_FOR_JOBS_TO_END
        here = f"attributes.status = 'RUNNING' AND tags.mnist_exp.host = '{socket.gethostname()}'"
        store.close_abandoned(self._client, self._experiment_id)
        while any(self._children(here)) and time.monotonic() < deadline:
            time.sleep(0.2)
            store.close_abandoned(self._client, self._experiment_id)

    def describe(self) -> str:
        """The sweep's page: on its server, or on the local one that `mlflow ui` starts."""
        assert isinstance(self.parent.tracking, MLflowTracking)
        page = store.page(self.parent.tracking, self._experiment_id, self.parent.run_id)
        return printable(f"Sweep {self.parent.run_id} in experiment {self.parent.tracking.experiment}; {page}")

    def _children(self, condition: str = "") -> Iterator["Run"]:
        query = f"tags.mlflow.parentRunId = '{self.parent.run_id}'" + (f" AND {condition}" if condition else "")
        return search(self._client, self._experiment_id, query)

    def _reused(self) -> list[Job]:
        tags: Mapping[str, str] = self._client.get_run(self.parent.run_id).data.tags
        reused = {name.removeprefix(_REUSED): value for name, value in tags.items() if name.startswith(_REUSED)}
        for run_id in reused.keys() - self._reused_jobs.keys():
            job = job_of(self._client.get_run(run_id))
            self._reused_jobs[run_id] = replace(job, values=_values(reused[run_id]))
        return list(self._reused_jobs.values())


def curve(client: "MlflowClient", run_id: str, metric: str) -> list[float]:
    """A metric of a run, a value an epoch."""
    return [point.value for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)]


def search(
    client: "MlflowClient", experiment_id: str, query: str, order: str = "attributes.start_time ASC"
) -> Iterator["Run"]:
    """All runs that fulfil a query in MLflow's search syntax, however many."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=[order], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def job_of(run: "Run") -> Job:
    """A job as its run has recorded it."""
    tags, metrics = run.data.tags, run.data.metrics
    finished = run.info.status == "FINISHED"
    return Job(
        values=_values(tags.get("mnist_exp.swept", "{}")),
        status=run.info.status,
        objective=metrics.get("objective") if finished else None,
        scores={name: value for name, value in metrics.items() if name.startswith("test_")} if finished else {},
        seconds=metrics.get("fit_seconds"),
        reason=tags.get("mnist_exp.error", ""),
        run_id=run.info.run_id,
        output=tags.get("mnist_exp.output", ""),
        host=tags.get("mnist_exp.host", ""),
        parent=tags.get("mlflow.parentRunId", ""),
    )


def _values(text: str) -> dict[str, str]:
    """What varies, from a tag, which anybody could have written."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _interrupted(client: "MlflowClient", experiment_id: str, signature: str) -> str | None:
    """The last sweep of this signature, unless it may still be running."""
    found = client.search_runs(
        [experiment_id], f"tags.mnist_exp.sweep = '{signature}'", order_by=["attributes.start_time DESC"], max_results=1
    )
    if not found or found[0].info.status == "RUNNING":
        return None
    return str(found[0].info.run_id)
