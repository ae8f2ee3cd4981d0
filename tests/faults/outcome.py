"""What comes of an input that nobody would think of: a run, whose training is left out, or a message of one line."""

import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from types import FrameType
from typing import Any

import pytest
from hypothesis import strategies as st

from mnist_exp.errors import InputError
from mnist_exp.text import printable

from ..conftest import in_process

SECONDS, BYTES = 5, 2**30  # of the processor, of memory

Texts = st.SearchStrategy[str]


@dataclass(frozen=True)
class Kind:
    """Inputs of a kind, and what is done with one in an empty folder: a message, or "" for a run.

    `ready` makes, before the first one, what all of them alter.
    """

    inputs: st.SearchStrategy[Any]
    use: Callable[[Any, Path], str]
    ready: Callable[[], object] = lambda: None


_begun: list[Path] = []  # the output folder of a run that was begun, and may fail, as when layers do not fit


class TooLongError(BaseException):
    """An input took more than it may; a BaseException, so that no handler of ours takes it for bad input."""


def outcome(kind: Kind, given: Any, seconds: float) -> str:
    """Return the message that an input brought, or "" for a run.

    Raises:
        AssertionError: if anything else came of it: a traceback, several lines, a file in spite of a refusal.
        TooLongError: after `seconds` of the processor.
    """
    with tempfile.TemporaryDirectory() as name, _at_most(seconds), _at_most_memory():
        folder, before = Path(name), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            message = kind.use(given, folder)
        except InputError as error:
            message = printable(str(error))
        except Exception as error:
            raise AssertionError("".join(traceback.format_exception(error))) from error
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert message == "" or (message.isprintable() and len(message) < 2000), message
    assert grown < BYTES, f"{grown} bytes"
    return message


@contextmanager
def _at_most_memory() -> Iterator[None]:
    """Let an input that asks for terabytes get a MemoryError, before the machine has none for others."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 3 * BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TooLongError after `seconds` of work, or a minute of waiting, since the machine may do much else."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise TooLongError("".join(traceback.format_stack(frame, 3)))

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, seconds + 60))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    try:
        for _, timer, limit in timers:
            signal.setitimer(timer, limit)
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def typed(arguments: list[str], folder: Path, module: str = "mnist_exp") -> str:
    """Type a command in a folder; return its message."""
    before = files(folder)
    done = in_process(*arguments, cwd=folder, module=module)
    message = said(done)
    begun, _begun[:] = bool(_begun), []
    assert not message or begun or files(folder) == before, (files(folder) - before, message)
    assert not (folder / "HACKED").exists()
    return message


def said(done: CompletedProcess[str]) -> str:
    """Return the message of a command that was refused, "" for one that ended well, and may have printed notes."""
    assert done.returncode in (0, 1), done.stderr
    lines = done.stderr.split("\n")
    assert len(lines) == 2 or done.returncode == 0, done.stderr
    assert all(line.isprintable() and "Warning" not in line and "Traceback" not in line for line in lines), done.stderr
    return "" if done.returncode == 0 else lines[0]


def files(folder: Path) -> set[str]:
    """Return all that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def without_training() -> Iterator[None]:
    """Let a run do all but train, on few images, and a sweep do all before its first job."""
    from mnist_exp import resume
    from mnist_exp.config.keras_backend import keras
    from mnist_exp.experiment import Result, SweepResult
    from mnist_exp.sweeps import sweep
    from mnist_exp.training import tensorflow_engine
    from mnist_exp.training.split import load_data

    def prepare(experiment: Any) -> Result:
        _begun.append(experiment.output)
        data = load_data(experiment.config.dataset)
        few = {
            part: getattr(data, part)[:100]
            for part in ("x_train", "y_train", "x_test", "y_test", "x_validation", "y_validation")
        }
        with suppress(TrainedError):
            tensorflow_engine.train([experiment], replace(data, **few), lambda *_: ())
        return Result({}, {}, 0.0, None, None, experiment.config, experiment.output)

    def fit(*_: object, **__: object) -> None:
        raise TrainedError

    def run_planned(planned: Any, *_: object) -> SweepResult:
        return SweepResult([], "", None, planned.folder, 0, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "run_experiment", prepare)
        patch.setattr(sweep, "run_planned", run_planned)
        patch.setattr(keras.Model, "fit", fit)
        yield


class TrainedError(Exception):
    """Everything before the first epoch is done."""
