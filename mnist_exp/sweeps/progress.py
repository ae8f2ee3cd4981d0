"""A sweep's lines on the terminal while its jobs run."""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from mnist_exp.errors import printable, wrapped
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.jobs import Stage
from mnist_exp.sweeps.kind import Kind
from mnist_exp.tracking.job import Job, job_name
from mnist_exp.tracking.record import failure_reason
from mnist_exp.tracking.sweep_record import SweepRecord

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 10.0

_ENDED = ("FINISHED", "FAILED")  # a job that was KILLED goes on, or its sweep ends, too

log = logging.getLogger(__name__)


def tell(sweep: Sweep, text: str, to: TextIO | None = None) -> None:
    """Print a text on standard output or `to`, unless the sweep is silent, and log it."""
    if sweep.verbose:
        print(wrapped(text), file=to, flush=True)
    log.info("%s", text, extra={"output": sweep.folder})  # not in the log of a job


class Progress:
    """Prints a line for each job that ends, with the time left; on a terminal also what is running.

    It looks into the jobs' folders, in a thread of its own, since launchers block.
    `before`: how many jobs had finished before this command.
    """

    def __init__(self, record: SweepRecord, sweep: Sweep, kind: Kind, stage: Stage, before: int) -> None:
        self._record, self._sweep, self._kind, self._stage, self._before = record, sweep, kind, stage, before
        self._shown = {_name(job) for job in record.jobs() if job.status in _ENDED}
        self._ends: list[float] = []  # of this command's jobs, by the monotonic clock
        self._at_once = 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown_stage, self._next_line = "", 0.0
        self._stacked = False
        self._running: list[str] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._erase()

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()
            if self._draws:
                doing = self._stage.text or (self._running and f"running: {', '.join(self._running)}")
                running = f"; {doing}" if doing else ""
                self._erase()
                print(f"{self._counts()}{running}"[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            elif (stage := self._stage.text) not in ("", self._shown_stage) and time.monotonic() >= self._next_line:
                if self._sweep.verbose:
                    print(stage, flush=True)
                self._shown_stage, self._next_line = stage, time.monotonic() + _SECONDS_BETWEEN_LINES

    def _look(self) -> None:
        """Print a line for each job that ended since the last look."""
        self._stacked |= bool(self._stage.text)
        try:
            recent = self._record.jobs()
        except Exception as error:  # a job that meets an outage of the store shows it
            log.warning("no progress can be shown: %s", failure_reason(error))
            return
        self._running = [job_name(one.values, self._sweep.swept) for one in recent if one.status == "RUNNING"]
        self._at_once = max(self._at_once, len(self._running))
        for job in recent:
            if job.status not in _ENDED or _name(job) in self._shown:
                continue
            self._shown.add(_name(job))
            self._ends.append(time.monotonic())
            name = job_name(job.values, self._sweep.swept) or "the job"
            if job.status != "FINISHED":
                what = printable(f"{job.status} {job.reason}".strip())
            else:
                value = "none" if job.objective is None else decimals(job.objective)
                what = f"{self._sweep.config.objective} {value}, {job.seconds or 0.0:.1f} s"
                what = f"pruned after epoch {job.pruned}, {what}" if job.pruned is not None else what
            self._erase()
            tell(self._sweep, f"{self._counts()}: {name}: {what}")
        while self._stage.news:
            self._erase()
            tell(self._sweep, printable(self._stage.news.pop(0)))

    def _counts(self) -> str:
        done = self._before + len(self._ends)
        text = f"{done} of {max(done, self._stage.jobs)} done"
        seconds = seconds_left(self._ends, self._at_once, self._stage.jobs - done)
        if not seconds or self._stacked or self._kind.is_open:  # jobs of a stack end together
            return text
        return f"{text}, about {seconds:.0f} s left" if seconds < 120 else f"{text}, about {seconds / 60:.0f} min left"

    @property
    def _draws(self) -> bool:
        """Whether the last line is drawn again and again."""
        return self._sweep.verbose and sys.stdout.isatty()

    def _erase(self) -> None:
        if self._draws:
            print("\r\033[K", end="", flush=True)


def _name(job: Job) -> tuple[str, str]:
    """Return what tells jobs apart, of other machines, too."""
    return job.host, job.output


def seconds_left(ends: Sequence[float], at_once: int, left: int) -> float | None:
    """Return about how long the jobs that are left take; None while that cannot be told.

    `ends` are the times at which jobs ended, in order; the first `at_once` of them also waited for TensorFlow.

    >>> seconds_left([30.0, 32.0, 34.0], 1, 5), seconds_left([30.0, 31.0], 2, 5)
    (10.0, None)
    """
    later = ends[at_once:]
    return (later[-1] - ends[at_once - 1]) / len(later) * max(left, 0) if later else None
