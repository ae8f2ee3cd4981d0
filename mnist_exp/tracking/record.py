"""What is recorded of runs and sweeps in their folders, which a store mirrors."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mnist_exp.config.redaction import traceback_text, without_secrets
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep, experiment_signature
from mnist_exp.learning.datasets import Data
from mnist_exp.tracking.environment import (
    code_patch,
    recorded_config,
    recorded_data,
    refused_record,
    run_record,
    sweep_record,
)
from mnist_exp.tracking.folder import Folder, Record
from mnist_exp.tracking.job import Job, job_of
from mnist_exp.tracking.processes import has_gone

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """What a job, wherever it runs, needs to know of its sweep.

    `run_id`: empty without tracking. `tracking`: its address holds on other machines, if the store does; as the sweep
    hands it out it has no password, since a launcher may write it down. `keys`: what varies. `cwd`: where the sweep was
    started, which relative paths in the configuration count from. `process`: the one that the sweep was started in.
    """

    run_id: str
    tracking: MLflowTracking | NoTracking
    keys: tuple[str, ...]
    folder: Path
    cwd: Path
    process: int


class Run:
    """What is recorded of one experiment.

    `id`: MLflow's, if it is there too. `keeps_all`: whether figures and the logged model belong to it; of a sweep's job
    they are made later, if it is the best.
    """

    id: str | None = None

    def __init__(self, experiment: Experiment, record: Record, *, keeps_all: bool) -> None:
        self.keeps_all = keeps_all
        self.folder = Folder(experiment.output)
        self._experiment = experiment
        self._tags_of_the_end: dict[str, str] = {}
        patch = code_patch() if experiment.child is None else ""  # which its sweep has
        self.folder.begin(record, experiment.config.code, patch)
        OmegaConf.save(OmegaConf.create(recorded_config(experiment.config)), self.folder.path / "config.yaml")

    def log_data(self, data: Data) -> None:
        """Record which images are used, and with them what makes the experiment the same as another."""
        signature = experiment_signature(self._experiment.config, data.digest)
        self.folder.change(data=recorded_data(data), tags={"mnist_exp.signature": signature})
        self._send()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, counted from 1."""
        self.folder.measure(epoch, metrics)

    def log_pruned(self, epoch: int) -> None:
        """Let what is measured at the end be that of a run that was stopped as hopeless after an epoch, from 1."""
        log.info("pruned after epoch %d", epoch, extra={"output": self.folder.path})
        self._tags_of_the_end = {"mnist_exp.pruned": str(epoch)}

    def log_scores(self, scores: Mapping[str, float], kept_epoch: int) -> None:
        """Record what was measured at the end, with the weights of an epoch, counted from 1."""
        self.folder.measure(0, scores)
        self.folder.change(scores=dict(scores), kept_epoch=kept_epoch, tags=self._tags_of_the_end)
        self._send()

    def log_model(self, model: "keras.Model", data: Data) -> None:
        """Record the model, which takes raw images; its weights lie in the folder already."""

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED for a reason, or KILLED."""
        self.folder.end(status, tags={"mnist_exp.error": reason} if reason else {})

    def describe(self) -> str:
        """Return where to look at the run, for the terminal."""
        return f"Files in {self.folder.path}"

    def _send(self) -> None:
        """Let the store, where there is one, have what is new in the folder."""


class SweepRecord:
    """What is recorded of a sweep; its jobs are the folders in its own."""

    def __init__(self, parent: Parent, own_tags: Mapping[str, str]) -> None:
        self.parent = parent
        self._own_tags = own_tags
        self.folder = Folder(parent.folder)

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """Return the job that has finished what `signature` stands for, if any."""
        return None

    def reuse(self, job: Job) -> None:
        """Count a finished run, of whatever sweep, among the jobs of this one."""

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> None:
        """Record a job that failed before it had a run."""
        folder = Folder(output)
        folder.begin(refused_record(values, self.parent.run_id, output, failure_reason(error), self._own_tags))
        (output / "error.txt").write_text(traceback_text(error), encoding="utf-8", errors="backslashreplace")
        folder.end("FAILED")

    def jobs(self) -> list[Job]:
        """Return all jobs, each once."""
        records = [Folder(path.parent).read() for path in sorted(self.parent.folder.glob("*/run.json"))]
        return [job_of(record.tags, record.scores, record.status) for record in records]

    def ended(self) -> list[Job]:
        """Return the jobs that ended, at least those since the last call, and those of before that the sweep reuses."""
        return [job for job in self.jobs() if job.status != "RUNNING"]

    def running(self) -> list[str]:
        """Return the names of the jobs that run."""
        return []

    def curve(self, job: Job, metric: str) -> list[float]:
        """Return a metric of a finished job, a value an epoch."""
        return Folder(Path(job.output)).history()[metric]

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record what the sweep as a whole has measured."""
        self.folder.measure(0, scores)

    def log_best(self, job: Job) -> None:
        """Record which job is best, and its configuration."""
        (self.folder.path / "best.yaml").write_text(self.configuration(job))

    def show_ranking(self, markdown: Callable[[int], str]) -> None:
        """Show the ranking on the page of the sweep, where it has one; `markdown`: of at most so many characters."""

    def folder_of(self, job: Job) -> Folder | None:
        """Return the folder of a job that had a run, if it can be read here."""
        folder = Folder(Path(job.output))
        return folder if all((folder.path / name).is_file() for name in ("run.json", "model.keras")) else None

    def has_model(self, job: Job) -> bool:
        """Return whether the figures and the model of a job were recorded."""
        return (Path(job.output) / "figures").is_dir()

    def log_model(self, job: Job, model: "keras.Model", data: Data) -> None:
        """Record the figures and the model of a job that were made after it had ended."""

    def register(self, job: Job) -> str:  # noqa: ARG002
        """Register a job's model, where `tracking.register` says so; return what became of it, as a line."""
        return ""

    def is_over(self) -> bool:
        """Return whether the sweep was ended while this job waited or ran."""
        return False

    def stop(self, status: str) -> None:
        """End the sweep, for its jobs to see, before its files are recorded."""

    def close_jobs(self) -> None:
        """Record as KILLED the jobs whose process, on this host, has gone."""
        for path in self.folder.path.glob("*/run.json"):
            folder = Folder(path.parent)
            record = folder.read()
            if record.status == "RUNNING" and has_gone(record.tags["mnist_exp.host"], record.tags["mnist_exp.process"]):
                folder.end("KILLED")

    def end(self, status: str) -> None:
        """Record the sweep's files and end it as FINISHED, FAILED or KILLED."""
        self.folder.end(status)

    def describe(self) -> str:
        """Return where to look at the sweep, for the terminal."""
        return f"Files in {self.parent.folder}"

    def data(self, job: Job) -> dict[str, str]:
        """Return the `name`, `digest` and `profile` of a finished job's dataset; nothing where that is unknown."""
        return Folder(Path(job.output)).read().data or {}

    def configuration(self, job: Job) -> str:
        """Return the config.yaml of a job."""
        return (Path(job.output) / "config.yaml").read_text()


class Tracker:
    """Opens the records of runs and sweeps, and finds what has finished. This one, of `tracking=none`, has no store."""

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        """Record a run from its start to its end.

        It ends FINISHED, FAILED after an exception, or KILLED after Ctrl-C or SIGTERM.

        Args:
            experiment: what runs.
            together: how many jobs train as one program with it.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        record = run_record(experiment, together, None, {})
        with ended(Run(experiment, record, keeps_all=experiment.child is None)) as run:
            yield run

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        """Record a sweep, or with `resume` go on with the last one of this signature.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        parent = Parent("", sweep.config.tracking, tuple(sweep.swept), sweep.folder, Path.cwd(), os.getpid())
        opened = SweepRecord(parent, {})
        opened.folder.begin(sweep_record(sweep, signature, None, {}), sweep.config.code, code_patch())
        yield opened

    def join_sweep(self, parent: Parent) -> SweepRecord:
        """Return a sweep's record, from the process of one of its jobs.

        Raises:
            InputError: if the parent run is not in the store that this process reaches.
        """
        return SweepRecord(parent, {})

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """Return the newest run that has finished what `signature` stands for, if any."""
        return None


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """End a run with the status that fits how the block ends; after an exception, with its traceback as `error.txt`."""
    output = run.folder.path
    try:
        yield run
        run.end("FINISHED")
    except BaseException as error:
        failed = isinstance(error, Exception)
        # What is complete stays so, if only the store was not there in the end.
        complete = run.folder.read().status == "FINISHED"
        status = "FINISHED" if complete else "FAILED" if failed else "KILLED"
        log.error("%s", "not recorded whole" if complete else status, exc_info=error, extra={"output": output})
        if failed:
            (output / "error.txt").write_text(traceback_text(error), encoding="utf-8", errors="backslashreplace")
        try:
            run.end(status, failure_reason(error) if status == "FAILED" else "")
        except Exception as second:  # the first error is the one to show
            print(f"{run.describe()} could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
            print(f"Its files are in {output}", file=sys.stderr)
        raise


def failure_reason(error: BaseException) -> str:
    """Return the first line of an error, for tables; of an exception that is no bad input, with its class."""
    lines = without_secrets(str(error)).splitlines() or [""]
    return lines[0][:300] if isinstance(error, InputError) else f"{type(error).__name__}: {lines[0]}"[:300]
