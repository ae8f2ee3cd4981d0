"""Record a sweep in its folder, in which each job has its own, and read it."""

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mnist_exp import signals
from mnist_exp.config.files import NoFileError, read_text, write_text
from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.ends import CTRL_C, FINISHED
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.text import printable, traceback_text
from mnist_exp.tracking import index, locks, store, views
from mnist_exp.tracking.environment import code_patch, make_failed_record
from mnist_exp.tracking.folder import Folder, read_reused
from mnist_exp.tracking.record import Run, failure_reason, recording
from mnist_exp.tracking.records import REUSED, Record, latest_attempts, parse_place
from mnist_exp.tracking.uploads import Uploads

_SECONDS_FOR_JOBS_TO_END, _SECONDS_TO_SETTLE = 20.0, 3.0
_MAX_RANKING_CHARS = 6000  # MLflow takes 8,000 with the user's own words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """A sweep as its jobs, in other processes or on other machines, know it.

    `id` and `attempt` are its record's, and `run_id` is MLflow's, empty without tracking. `tracking` has no password,
    since a launcher may write it down. `keys` vary. Relative paths in the configuration start from `cwd`.
    """

    id: str
    run_id: str
    tracking: MLflowTracking | NoTracking
    keys: tuple[str, ...]
    folder: Path
    attempt: str = ""
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def is_this_process(self) -> bool:
        """Whether the sweep was started in this process."""
        return locks.is_held_here(self.folder)


@dataclass
class SweepRecord:
    """The record of a sweep: a folder, in which each job has its own.

    `uploads` mirrors them, in the sweep's process, if there is a store; `has_view` says whether the store has a view of
    the sweep, None before there are jobs.
    """

    parent: Parent
    uploads: Uploads | None = None
    has_view: bool | None = None
    _left_out: str = field(default="", init=False)
    _read: dict[Path, tuple[tuple[int, ...], Record | None]] = field(default_factory=dict, init=False)

    @property
    def folder(self) -> Folder:
        """The sweep's own folder."""
        return Folder(self.parent.folder)

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        """Record a job, as `tracker.open_run` does."""
        with recording(Run(experiment, together)) as run:
            yield run

    def jobs(self) -> list[Record]:
        """Return each job's last whole try, or else its last."""
        return latest_attempts(self.tries())

    def tries(self) -> list[Record]:
        """Return the jobs' records in order, from their folders or `reused.json`."""
        for name in ("run.json", "reused.json"):
            for path in self.folder.path.glob(f"*/{name}"):
                try:
                    ids = path.with_name("mlflow.json")
                    state = (path.stat().st_ino, path.stat().st_mtime_ns, ids.stat().st_ino if ids.exists() else 0)
                    if path not in self._read or self._read[path][0] != state:
                        self._read[path] = state, self._job_in(path)
                except FileNotFoundError:  # deleted meanwhile
                    self._read.pop(path, None)
                except (OSError, ValueError, TypeError):  # damaged, or of another program
                    self._read[path] = state, None
        known = sorted(self._read.copy().items(), key=lambda item: parse_place(item[0].parent.name))
        return [job for _, (_, job) in known if job is not None]

    def _job_in(self, path: Path) -> Record | None:
        """Return the job of a file, or None for a job of another sweep in the same folder."""
        if path.name == "reused.json":
            return read_reused(path)
        job = Folder(path.parent).read()
        return job if job.fact("parent") == self.parent.id else None

    def reused(self) -> list[Record]:
        """Return the earlier runs that count as jobs, as far as `tries` has seen them."""
        return [job for path, (_, job) in list(self._read.items()) if path.name == "reused.json" and job]

    def curve(self, job: Record, metric: str) -> list[float]:
        """Return a finished job's values of a metric, one an epoch."""
        return Folder(Path(job.output)).history()[metric]

    def configuration(self, job: Record) -> str:
        """Return a job's config.yaml."""
        return read_text(Path(job.output) / "config.yaml", folder=Path(job.output))

    def reuse(self, job: Record, values: Mapping[str, str], output: Path) -> None:
        """Count an earlier run as a job of this sweep.

        A run of this sweep needs no such note.

        Args:
            job: the earlier run.
            values: of the job, by key.
            output: the folder of the job.
        """
        if Path(job.output).parent == self.folder.path:
            return
        output.mkdir(parents=True, exist_ok=True)
        is_near = Path(job.output).is_relative_to(Path.cwd())  # both stay beside each other if the project is moved
        place = os.path.relpath(job.output, output) if is_near else job.output
        write_text(output / "reused.json", json.dumps({"output": place, "values": dict(values)}))

    def log_refused(self, values: dict[str, str], output: Path, error: Exception) -> Folder:
        """Record a job that failed before it had a run, and return its folder.

        Args:
            values: the varied keys of the job.
            output: its folder.
            error: the reason.
        """
        parent, folder = self.parent, Folder(locks.free_folder(output))  # an earlier try may have a checkpoint
        folder.begin(make_failed_record(values, parent.run_id, parent.id, parent.tracking, failure_reason(error)))
        write_text(folder.path / "error.txt", traceback_text(error))
        folder.end("FAILED")
        return folder

    def log_best(self, job: Record, complete: Callable[[Folder], None]) -> None:
        """Record the best job's configuration.

        Call `complete` if the job's figures are missing.
        """
        write_text(self.folder.path / "best.yaml", self.configuration(job))
        folder = Folder(Path(job.output))
        self.folder.change(best=os.path.relpath(job.output, self.folder.path))
        if folder.read().stage != "completed":
            complete(folder)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record the scores of the best row, unless an earlier start of the sweep has."""
        self.folder.measure(0, scores)

    def is_over(self) -> bool:
        """Return whether the sweep has ended, has lost its process, or was started again."""
        try:
            return self.folder.read().status != "RUNNING" or self.is_orphan()
        except NoFileError:  # deleted
            return True

    def is_orphan(self) -> bool:
        """Return whether the sweep's process is gone, or another resumed it."""
        try:
            record = self.folder.read()
        except InputError:
            return False
        is_left = record.attempt != self.parent.attempt or locks.is_free(self.folder.path)
        return record.status == "RUNNING" and is_left

    def close_jobs(self, status: str | None = None) -> None:
        """Wait a moment for jobs to end, and record those whose process is gone as KILLED.

        The sweep first gets `status`, unless that is None; its jobs see it and end.
        """
        if status is not None:
            self.folder.change(status=status)
        deadline = time.monotonic() + _SECONDS_FOR_JOBS_TO_END
        while locks.close(self.folder.path.glob("*/run.json")) and time.monotonic() < deadline:
            if signals.is_interrupted_again():
                return
            time.sleep(0.2)

    def settle(self) -> None:
        """Give the store a moment to catch up, so that the jobs have ids there."""
        if self.uploads is not None:
            self.uploads.wait(_SECONDS_TO_SETTLE, at_most=3 * _SECONDS_TO_SETTLE)

    def end(self, status: str, ranking: Callable[[int], str]) -> None:
        """Record the sweep's files, and end it as FINISHED, FAILED or KILLED.

        `ranking` returns the ranking as Markdown of at most so many characters, for the sweep's page in a store.
        """
        if status != "KILLED":
            self.settle()
        write_text(self.folder.path / "ranking.md", ranking(_MAX_RANKING_CHARS))
        reused = [(Folder(Path(job.output)).read().run_id, job.values) for job in self.reused()]
        self.folder.end(status, tags={f"{REUSED}{run_id}": json.dumps(values) for run_id, values in reused if run_id})
        if self.uploads is not None:
            self._left_out = self.uploads.finish(CTRL_C if status == CTRL_C.status else FINISHED)

    def describe(self) -> str:
        """Return where to look at the sweep."""
        run_id, settings = self.parent.run_id, self.parent.tracking
        if self.uploads is None or isinstance(settings, NoTracking):
            return f"Files in {self.folder.path}"
        experiment_id = self.uploads.store.experiment_id
        page = f"#/experiments/{experiment_id}/runs/{run_id}"
        if self.has_view:
            page = views.make_path(experiment_id, views.make_key(run_id))
        where = store.add_link(f"Sweep {run_id} in experiment {settings.experiment}", settings, page)
        return "\n".join(map(printable, filter(None, [*self.uploads.report_registrations(), *where, self._left_out])))


@contextmanager
def begin_sweep(sweep: Sweep, record: Record) -> Iterator[Record]:
    """Begin or resume a sweep in its locked folder, and yield the record."""
    folder = Folder(sweep.folder)
    tags = record.tags | {index.KEY: record.tags["mnist_exp.sweep"]}
    record = replace(record, tags=tags, attempt=uuid.uuid4().hex)
    try:
        if sweep.resumes:
            record = folder.reopen(record)
            locks.close(folder.path.glob("*/run.json"))
        else:
            folder.begin(record, sweep.config.code, code_patch())
            index.add(record.tags["mnist_exp.sweep"], folder.path)
        yield record
    finally:  # also where a signal came before `shield_end`
        with signals.shield_end(), suppress(OSError, InputError):
            if folder.read().status == "RUNNING":
                folder.end("KILLED")
