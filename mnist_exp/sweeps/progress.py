"""A sweep's lines on the terminal while its jobs run."""

import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from mnist_exp.experiment import Sweep
from mnist_exp.resume import run_name
from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.jobs import SweepProgress
from mnist_exp.sweeps.kind import Kind
from mnist_exp.text import printable_lines, truncate, wrap_text
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.record import failure_reason
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import SweepRecord

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 10.0

_ENDED = ("FINISHED", "FAILED")  # a job that was KILLED goes on, or its sweep ends, too

log = logging.getLogger(__name__)


def announce(sweep: Sweep, text: str, to: TextIO | None = None) -> None:
    """Print a text, unless the sweep is silent, and log it.

    Args:
        sweep: has the log and whether it is silent.
        text: may have several lines.
        to: standard output by default.
    """
    if sweep.verbose:
        print(wrap_text(printable_lines(text)), file=to, flush=True)
    log.info("%s", text, extra={"output": sweep.folder})  # not in the log of a job


class Progress:
    """Print a line for each job that ends, with the time that is left.

    Jobs that train together have one line, beside those of failures. On a terminal, a bar below the lines shows how
    many jobs have ended, which run, and the time left. It looks into the jobs' folders, in a thread of its own, since
    launchers block.
    `before`: how many jobs had finished before this command.
    """

    def __init__(self, record: SweepRecord, sweep: Sweep, kind: Kind, stage: SweepProgress, before: int) -> None:
        self._record, self._sweep, self._kind, self._stage, self._before = record, sweep, kind, stage, before
        self._shown = {_name(job) for job in record.jobs() if job.status in _ENDED}
        self._ends: list[float] = []  # ends of this command's jobs, by the monotonic clock
        self._at_once = 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown_stage, self._next_line = "", 0.0
        self._running: list[str] = []
        console = Console()  # not rich's own, on which the program that calls `sweep` may draw
        self._bar = Bar(
            BarColumn(10),
            TextColumn("{task.description}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
            disable=not (sweep.verbose and sys.stdout.isatty() and console.is_interactive),
        )
        self._task = self._bar.add_task(self._counts(), total=stage.jobs, completed=before)

    def __enter__(self) -> None:
        self._bar.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            self._stop.set()
            self._thread.join()
            self._look()
        finally:
            self._bar.stop()

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()
            if not self._bar.disable:
                doing = self._stage.text or ", ".join(self._running)
                text = f"{self._counts()}{self._format_left()}{f'; {doing}' if doing else ''}"
                shown = truncate(text, self._bar.console.width - 14)  # beside the bar, and ^C, which a terminal echoes
                total, done = self._stage.jobs, self._done
                self._bar.update(self._task, total=total, completed=done, description=shown, refresh=True)
            elif (stage := self._stage.text) not in ("", self._shown_stage) and time.monotonic() >= self._next_line:
                if self._sweep.verbose:
                    print(stage, flush=True)
                self._shown_stage, self._next_line = stage, time.monotonic() + _SECONDS_BETWEEN_LINES

    def _look(self) -> None:
        """Print a line for each job that ended since the last look."""
        try:
            recent = self._record.jobs()
        except Exception as error:  # a job that meets an outage of the store shows it
            log.warning("no progress can be shown: %s", failure_reason(error))
            return
        self._running = [job_name(job.values, self._sweep.swept) for job in recent if job.status == "RUNNING"]
        self._at_once = max(self._at_once, len(self._running))
        is_told = True
        for job in recent:
            if job.status not in _ENDED or _name(job) in self._shown:
                continue
            self._shown.add(_name(job))
            is_reused = Path(job.output).parent != self._sweep.folder  # a run of another sweep, or a single one
            if is_reused:
                self._before += 1
            else:
                self._ends.append(time.monotonic())
            if self._stage.together and job.status == "FINISHED":
                is_told = False
                continue
            left = self._format_left() if self._bar.disable else ""
            name = job_name(job.values, self._sweep.swept) or "the job"
            if is_reused:
                what = f"finished before, as {run_name(job)}"
            elif job.status != "FINISHED":
                what = f"{job.status} {job.reason}".strip()
            else:
                value = "none" if job.objective is None else decimals(job.objective)
                what = f"{self._sweep.config.objective} {value}, {job.seconds or 0.0:.1f} s"
                what = f"pruned after epoch {job.pruned}, {what}" if job.pruned is not None else what
            announce(self._sweep, f"{self._counts()}{left}: {name}: {what}")
        if self._bar.disable and not is_told:
            announce(self._sweep, self._counts())
        while self._stage.news:
            announce(self._sweep, self._stage.news.pop(0))

    @property
    def _done(self) -> int:
        return self._before + len(self._ends)

    def _counts(self) -> str:
        return f"{self._done} of {max(self._done, self._stage.jobs)} done"

    def _format_left(self) -> str:
        """Return how long the jobs that are left take, if that can be told."""
        seconds = seconds_left(self._ends, self._at_once, self._stage.jobs - self._done)
        if not seconds or self._stage.together or self._kind.is_open:
            return ""
        return f", about {seconds:.0f} s left" if seconds < 120 else f", about {seconds / 60:.0f} min left"


def _name(job: Record) -> tuple[str, str]:
    """Return a name that is unique to a job, on other machines, too."""
    return job.host, job.output


def seconds_left(ends: Sequence[float], at_once: int, left: int) -> float | None:
    """Return about how long the remaining jobs take, or None if unknown.

    Args:
        ends: times at which jobs ended, in seconds, in order; the first `at_once` also waited for TensorFlow.
        at_once: the number of jobs that run together.
        left: the number of remaining jobs.

    >>> seconds_left([30.0, 32.0, 34.0], 1, 5), seconds_left([30.0, 31.0], 2, 5)
    (10.0, None)
    """
    later = ends[at_once:]
    return (later[-1] - ends[at_once - 1]) / len(later) * max(left, 0) if later else None
