"""Record runs and sweeps in their folders, which a store mirrors."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mnist_exp.config.redaction import traceback_text, without_secrets
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.errors import InputError, printable
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
from mnist_exp.tracking.folder import Folder, Record, has_gone
from mnist_exp.tracking.job import Job, make_job

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

# Makes the figures and predictions in a job's folder from its weights, and returns its model and data.
Complete = Callable[[Path], "tuple[keras.Model, Data]"]


@dataclass(frozen=True)
class Parent:
    """A sweep as its jobs, in other processes or on other machines, know it.

    `run_id` is empty without tracking. `tracking` has no password, since a launcher may write it down. `keys` vary. The
    sweep was started in `process` and in `cwd`, from which relative paths in the configuration start.
    """

    run_id: str
    tracking: MLflowTracking | NoTracking
    keys: tuple[str, ...]
    folder: Path
    cwd: Path = field(default_factory=Path.cwd)
    process: int = field(default_factory=os.getpid)


class Run:
    """The record of an experiment.

    `id` is MLflow's, once the run is there too. Unless `keeps_all`, the run is a sweep's job, whose figures and logged
    model are made only if it is the best.
    """

    id: str | None = None

    def __init__(self, experiment: Experiment, record: Record, *, keeps_all: bool) -> None:
        self.keeps_all = keeps_all
        self.folder = Folder(experiment.output)
        self._experiment = experiment
        self._tags_of_the_end: dict[str, str] = {}
        if experiment.child is None:
            log.info("%s begins, in %s", record.name, experiment.output)
        patch = code_patch() if experiment.child is None else ""  # a job's sweep has it
        self.folder.begin(record, experiment.config.code, patch)
        OmegaConf.save(OmegaConf.create(recorded_config(experiment.config)), self.folder.path / "config.yaml")

    def log_data(self, data: Data) -> None:
        """Record the data, and the experiment's signature, which depends on it."""
        signature = experiment_signature(self._experiment.config, data.digest)
        self.folder.change(data=recorded_data(data), tags={"mnist_exp.signature": signature})
        self._send()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, counted from 1."""
        self.folder.measure(epoch, metrics)

    def log_pruned(self, epoch: int) -> None:
        """Mark the run as stopped as hopeless after an epoch, counted from 1."""
        log.debug("pruned after epoch %d", epoch, extra={"output": self.folder.path})
        self._tags_of_the_end = {"mnist_exp.pruned": str(epoch)}

    def log_scores(self, scores: Mapping[str, float], kept_epoch: int) -> None:
        """Record the scores of the weights of `kept_epoch`, counted from 1."""
        self.folder.measure(0, scores)
        self.folder.change(scores=dict(scores), kept_epoch=kept_epoch, tags=self._tags_of_the_end)
        self._send()

    def log_model(self, model: "keras.Model", data: Data) -> None:
        """Record the model, which takes raw images; its weights are in the folder already."""

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED for a reason, or KILLED."""
        self.folder.end(status, tags={"mnist_exp.error": reason} if reason else {})

    def describe(self) -> str:
        """Return where to look at the run."""
        return printable(f"Files in {self.folder.path}")

    def _send(self) -> None:
        """Send the folder's changes to the store, if there is one."""


class SweepRecord:
    """The record of a sweep: a folder, in which each job has its own."""

    def __init__(self, parent: Parent, own_tags: Mapping[str, str]) -> None:
        self.parent = parent
        self._own_tags = own_tags
        self.folder = Folder(parent.folder)

    def jobs(self) -> list[Job]:
        """Return all jobs, each once."""
        records = [Folder(path.parent).read() for path in sorted(self.folder.path.glob("*/run.json"))]
        return [make_job(record.tags, record.scores, record.status, data=record.data) for record in records]

    def recent(self) -> list[Job]:
        """Return the jobs that run, are reused, or ended since the last call or shortly before it."""
        return self.jobs()

    def curve(self, job: Job, metric: str) -> list[float]:
        """Return a finished job's values of a metric, one an epoch."""
        return Folder(Path(job.output)).history()[metric]

    def configuration(self, job: Job) -> str:
        """Return a job's config.yaml."""
        return (Path(job.output) / "config.yaml").read_text()

    def reuse(self, signature: str, values: Mapping[str, str]) -> Job | None:  # noqa: ARG002
        """Return the newest finished run with this signature, if any, and count it as the job with these values."""
        return None

    def why_none(self, data: set[str]) -> str:  # noqa: ARG002
        """Return why no job of an earlier sweep counts as one of this; `data` has the digests of today's data."""
        return ""

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> None:
        """Record a job that failed before it had a run."""
        folder = Folder(output)
        folder.begin(refused_record(values, self.parent.run_id, output, failure_reason(error), self._own_tags))
        (output / "error.txt").write_text(traceback_text(error), encoding="utf-8", errors="backslashreplace")
        folder.end("FAILED")

    def log_best(self, job: Job, complete: Complete) -> str:
        """Record the best job's configuration, figures and model; return a line about them, or "".

        `complete` is called with the job's folder if the figures, or the store's model, are missing.
        """
        (self.folder.path / "best.yaml").write_text(self.configuration(job))
        folder = Folder(Path(job.output))
        if (folder.path / "figures").is_dir():
            return ""
        if not folder.has_weights():
            return no_weights(job)
        complete(folder.path)
        return ""

    def is_over(self) -> bool:
        """Return whether the sweep has ended."""
        return (self.folder.path / "run.json").is_file() and self.folder.read().status != "RUNNING"

    def close_jobs(self, status: str | None = None) -> None:
        """Record as KILLED the jobs whose process, on this host, has gone.

        The sweep first gets `status`, unless that is None; its jobs see it and end.
        """
        if status is not None:
            self.folder.change(status=status)
        for path in self.folder.path.glob("*/run.json"):
            folder = Folder(path.parent)
            record = folder.read()
            if record.status == "RUNNING" and has_gone(record.tags["mnist_exp.host"], record.tags["mnist_exp.process"]):
                folder.end("KILLED")

    def end(self, status: str, ranking: Callable[[int], str]) -> None:  # noqa: ARG002
        """Record the sweep's files, and end it as FINISHED, FAILED or KILLED.

        `ranking` returns the ranking as Markdown of at most so many characters, for the sweep's page in a store.
        """
        self.folder.end(status)

    def describe(self) -> str:
        """Return where to look at the sweep."""
        return printable(f"Files in {self.folder.path}")


def no_weights(job: Job) -> str:
    """Return the line about a best job whose weights cannot be read here."""
    return (
        f"The best job's weights are on {job.host} in {job.output}, which cannot be read here, so its figures and "
        "model are missing; tracking.keep=all lets each job make its own"
    )


class Tracker:
    """Open records of runs and sweeps, and find finished runs. This one, of `tracking=none`, has no store."""

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        """Record a run to its end, FINISHED, FAILED after an exception, or KILLED after a signal.

        This one and the others, `together` in number, train as one program.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        record = run_record(experiment, together, None, {})
        with ended(Run(experiment, record, keeps_all=experiment.child is None)) as run:
            yield run

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        """Record a sweep, or with `resume` continue the last one with this signature.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        parent = Parent("", sweep.config.tracking, tuple(sweep.swept), sweep.folder)
        opened = SweepRecord(parent, {})
        opened.folder.begin(sweep_record(sweep, signature, None, {}), sweep.config.code, code_patch())
        yield opened

    def join_sweep(self, parent: Parent) -> SweepRecord:
        """Return the record of a sweep whose `parent` has the store's password; see the function `join_sweep`."""
        return SweepRecord(parent, {})

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """Return the newest finished run with this signature, if any."""
        return None

    def why_not(self, experiment: Experiment, data: str) -> str:  # noqa: ARG002
        """Return why no earlier run counts as this experiment, whose data have a digest."""
        return ""


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """End a run with the block; write an exception's traceback to `error.txt`."""
    output = run.folder.path
    try:
        yield run
        run.end("FINISHED")
    except BaseException as error:
        failed = isinstance(error, Exception)
        # A complete run stays so if only its store was missing in the end.
        complete = run.folder.read().status == "FINISHED"
        status = "FINISHED" if complete else "FAILED" if failed else "KILLED"
        log.error("%s", "not recorded whole" if complete else status, exc_info=error, extra={"output": output})
        if failed:
            (output / "error.txt").write_text(traceback_text(error), encoding="utf-8", errors="backslashreplace")
        try:
            run.end(status, failure_reason(error) if status == "FAILED" else "")
        except Exception as second:  # the first error is the one to show
            print(f"{run.describe()} could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
            print(printable(f"Its files are in {output}"), file=sys.stderr)
        raise


def failure_reason(error: BaseException) -> str:
    """Return the first line of an error, printable, with its class unless it is bad input; at most 300 characters."""
    line = printable((without_secrets(str(error)).splitlines() or [""])[0])
    return (line if isinstance(error, InputError) else f"{type(error).__name__}: {line}")[:300]
