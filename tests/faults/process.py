"""A command that is started, hurt by signals or by a terminal that closes, and looked at from outside."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import mnist_exp

ROOT = Path(mnist_exp.__file__).parents[1]
SECONDS = 600  # for a command that takes some 20
STEP = 0.01  # between two signals, and two looks at files
OWN = {"KERAS_BACKEND", "MLFLOW_TRACKING_URI", "TF_NUM_INTRAOP_THREADS"}  # each test sets these itself
TRY = "MNIST_EXP_FAULTS_TRY"  # marks all that a process starts


@dataclass(frozen=True)
class Fault:
    """Signals, 10 ms apart, to the process or its group; none: the terminal is closed."""

    signals: tuple[signal.Signals, ...]
    to_group: bool = False

    def __str__(self) -> str:
        names = ", ".join(number.name for number in self.signals) or "terminal closed"
        return f"{names} to the group" if self.to_group else names


def environment(**more: str) -> dict[str, str]:
    """Return the variables of a command, which tests this checkout and keeps what XLA compiles."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "mnist_exp-tests-jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {**kept, **compiled, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


class Process:
    """`python -m mnist_exp`, the first process of a session and a group of its own, on a terminal if asked.

    `at` is the beginning of a command that starts it elsewhere, as its one child.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, on_terminal: bool = False, at: Sequence[str] = ()
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._screen: int | None = None
        inner: int | None = None
        if on_terminal:
            self._screen, inner = os.openpty()
        self._errors = folder.with_name(f"{folder.name}.{len(list(folder.parent.glob(f'{folder.name}.*')))}")
        self._mark = str(self._errors)
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*at, sys.executable, "-m", "mnist_exp", *arguments],
                cwd=folder,
                env=environment(**{TRY: self._mark}),
                stdin=subprocess.DEVNULL if inner is None else inner,
                stdout=subprocess.DEVNULL if inner is None else inner,
                stderr=errors,
                preexec_fn=partial(_as_from_a_shell, inner),
            )
        if inner is not None:
            os.close(inner)
        self.pid, self._elsewhere = self._process.pid, bool(at)

    def wait_until(self, there: Callable[[], bool]) -> None:
        """Wait until something is there, or the process has ended."""
        deadline = monotonic() + SECONDS
        while not there() and monotonic() < deadline:
            if self._screen is not None:
                self._read_screen()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STEP)
                return

    def _read_screen(self) -> None:
        assert self._screen is not None
        os.set_blocking(self._screen, False)
        with suppress(OSError):  # there is nothing to read
            while os.read(self._screen, 65536):
                pass

    def hurt(self, fault: Fault) -> None:
        """Send signals 10 ms apart, or close the terminal; whoever has gone by then gets none."""
        if self._screen is not None:
            os.close(self._screen)
            self._screen = None
        for number in fault.signals:
            with suppress(ProcessLookupError):
                (os.killpg if fault.to_group else os.kill)(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STEP)

    def end(self) -> int:
        """Return the exit code, less than 0 after a signal that nothing has handled; kill what does not end."""
        self.wait_until(lambda: False)
        if self._process.poll() is None:
            self._process.kill()
        return self._process.wait()

    def lives(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, with signal 9 and without what it has started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with suppress(ProcessLookupError, FileNotFoundError):  # it has ended
            os.kill(int(children.read_text()) if self._elsewhere else self.pid, signal.SIGKILL)
        self.end()

    def errors(self) -> list[str]:
        """Return what standard error has from the first traceback on."""
        _, found, rest = self._errors.read_text(errors="replace").partition("Traceback")
        return [found + rest.rstrip()] if found else []

    def last_line(self) -> str:
        """Return the last line on standard error, or ""."""
        return (self._errors.read_text(errors="replace").strip().splitlines() or [""])[-1]

    def remains(self, seconds: float = 10) -> list[str]:
        """Return, and kill, what it has started and is left; those that see their parent gone have some seconds."""
        found, deadline = [], monotonic() + seconds
        for pid in self._others():
            with suppress(ProcessLookupError):
                ended = os.pidfd_open(pid)
                if not select.select([ended], [], [], max(deadline - monotonic(), 0))[0]:
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"a process is left: {line[-200:]}")
                    signal.pidfd_send_signal(ended, signal.SIGKILL)
                os.close(ended)
        return found

    def _others(self) -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"{TRY}={self._mark}\0".encode() in path.read_bytes():
                    yield int(path.parent.name)


def _as_from_a_shell(terminal: int | None) -> None:
    """Begin a session, on a terminal if any, in which SIGHUP is not ignored, as it is below `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    if terminal is not None:
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
