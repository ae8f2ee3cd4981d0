"""A command in a process of its own, watched until it ends: what it printed, and when."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO

import psutil

from .process import environment as process_environment

# Long enough in training for something to happen meanwhile, on few images; an epoch takes half a second or less.
FEW = ("dataset.limit=2000", "training.batch_size=10", "training.epochs=20")
SWEEP = ("-m", *FEW, "seed=0,1,2,3")
STACK = ("-m", "backend=jax", "hydra/launcher=stacked", *FEW[:2], "training.epochs=200", "seed=0,1,2,3")
COMMANDS = {"run": FEW, "sweep": SWEEP, "stack": STACK, "resumed sweep": (*SWEEP, "resume=true")}


@dataclass
class Watched:
    """A command that runs or has ended.

    `code` is its exit status, None if it had to be killed. `out` has the lines of standard output with the times, in
    seconds since 1970, at which they came, `err` those of standard error.
    """

    process: subprocess.Popen[str]
    out: list[tuple[float, str]] = field(default_factory=list)
    err: list[tuple[float, str]] = field(default_factory=list)
    code: int | None = None
    end: float = 0.0

    def scores(self) -> float | None:
        """Return when the last score was shown, a run's or the first row of a sweep's, or None."""
        return next((at for at, line in reversed(self.out) if re.match(r"TEST |1 +-?[0-9]", line)), None)

    def messages(self) -> list[str]:
        """Return the beginnings of the last lines of standard error."""
        return [line[:200] for _, line in self.err[-20:]]


def watch(
    *arguments: str,
    cwd: Path,
    limit: float = 600.0,
    moment: Callable[[Watched], bool] | None = None,
    act: Callable[[Watched], object] = lambda _: None,
    prefix: tuple[str, ...] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Watched:
    """Run `python -m mnist_exp`, by the command `prefix` if there is one, to its end; kill it after `limit` seconds.

    As soon as `moment` returns True, which is asked all the time, `act` is called, once; both get the command.
    """
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "mnist_exp", *arguments],
        cwd=cwd,
        env=process_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = Watched(process)
    assert seen.process.stdout is not None
    assert seen.process.stderr is not None
    readers = [
        threading.Thread(target=_read, args=pair, daemon=True)
        for pair in ((seen.process.stdout, seen.out), (seen.process.stderr, seen.err))
    ]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + limit
    while seen.process.poll() is None and time.monotonic() < deadline:
        if moment is not None and moment(seen):
            moment = None
            act(seen)
        time.sleep(0.01)
    seen.code = seen.process.poll()
    if seen.code is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        seen.process.wait()
    seen.end = time.time()
    for reader in readers:
        reader.join(10)
    return seen


def _read(stream: IO[str], lines: list[tuple[float, str]]) -> None:
    for line in stream:
        lines.append((time.time(), line.rstrip("\n")))


def epochs(folder: Path) -> int:
    """Return how many lines the runs below a folder have measured."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("metrics.jsonl"))
