"""Signals, one or many, within any time: what was begun is recorded as ended."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnist_exp
from mnist_exp.tracking.folder import Folder

pytestmark = pytest.mark.fast

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
HEAD = """
import sys, threading, time
from mnist_exp import signals
signals.install()
"""
PROGRAM = """
def close():
    for part in range(400):  # about 40 ms
        time.sleep(0.0001)
    print("closed", flush=True)

def work():
    for _ in range(10_000):
        if "trains" in sys.argv:
            with signals.defer_signals():
                for batch in range(10):
                    time.sleep(0.001)
                    signals.raise_if_received()
        else:
            time.sleep(0.001)

done = False
try:
    try:
        print("begun", flush=True)
        work()
    except BaseException:
        with signals.shield_end():
            close()
            done = True
        raise
    finally:
        with signals.shield_end():
            if not done:
                close()
except KeyboardInterrupt:
    sys.exit(130)
"""


def begin(text: str, *arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", HEAD + text, *arguments]
    process = subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """Let processes get SIGHUP, which those that `nohup` starts ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send_two(process: subprocess.Popen[str], rng: random.Random, within: float) -> tuple[int, int]:
    """Send two signals, the first within some seconds and the second soon after; return their numbers."""
    first, second = (rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) for _ in range(2))
    time.sleep(rng.uniform(0, within))
    process.send_signal(first)
    time.sleep(rng.uniform(0, 0.05))
    process.send_signal(second)
    return first, second


@pytest.mark.parametrize("pairs", [4, pytest.param(50, marks=pytest.mark.release)])
@pytest.mark.parametrize("arguments", [(), ("trains",)], ids=["anywhere", "in training"])
def test_a_second_signal_does_not_interrupt_the_first(pairs: int, arguments: tuple[str, ...]) -> None:
    rng = random.Random(0)
    for _ in range(pairs):
        process = begin(PROGRAM, *arguments)
        first, second = send_two(process, rng, 0.02)
        output, errors = process.communicate(timeout=60)
        assert (output, errors) == ("closed\n", "")
        assert process.returncode in {128 + first, 128 + second}  # a process that was not run meanwhile has both


def test_a_second_signal_ends_a_batch_that_hangs() -> None:
    program = """
signals._SECONDS_OF_ONE = 0.0
with signals.defer_signals():
    print("begun", flush=True)
    batch = threading.Event()
    while not signals._State.received:
        batch.wait(0.01)
    print("deferred", flush=True)
    batch.wait()
"""
    process = begin(program)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "deferred\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_signal_in_a_finalizer_is_raised_afterwards(sent: signal.Signals) -> None:
    program = """
class Held:
    def __del__(self):
        print("begun", flush=True)
        threading.Event().wait(60)
held = Held()
try:
    del held
    print("the finalizer ended", flush=True)
    threading.Event().wait(60)
    print("goes on")
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = begin(program)
    process.send_signal(sent)
    assert process.communicate(timeout=60) == ("the finalizer ended\n", "")
    assert process.returncode == 128 + sent


def test_signals_around_the_handlers_change_no_exit_code(tmp_path: Path) -> None:
    program = """
import os, signal
from mnist_exp.commands import exit_on_errors
class Last:
    def __del__(self, os=os, signal=signal):
        os.kill(os.getpid(), signal.SIGINT)
last_one = Last()
with exit_on_errors():
    exec("os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(9)]")
"""
    (tmp_path / "program.py").write_text(program)
    module = [sys.executable, "-m", "program"]
    done = subprocess.run(module, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_signal_ends_only_the_waits_of_a_closing_run() -> None:
    program = """
with signals.shield_end():
    print("begun", flush=True)
    while not signals.is_interrupted_again():
        pass
    print("closed", flush=True)
print("goes on")
"""
    process = begin(program)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("closed\n", "", 143)


def test_nohup_ignores_hangups_and_programs_keep_handlers() -> None:
    program = """
import signal
signal.raise_signal(signal.SIGHUP)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with signals.shield_end():
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_reader_of_the_output_may_end_with_the_terminal(tmp_path: Path) -> None:
    program = """
import os, select
from pathlib import Path
reader = select.poll()
reader.register(os.dup(1), 0)
try:
    print("begun", flush=True)
    time.sleep(3600)
except SystemExit as signal:
    with signals.shield_end():
        reader.poll()  # until it has gone
        print("closing", flush=True)
        Path("new").write_text(str(signal.code))
        Path("new").rename("closed")
"""
    (tmp_path / "program.py").write_text(HEAD + program)
    pid, terminal = pty.fork()
    if not pid:
        os.execve("/bin/sh", ["sh", "-c", f"{sys.executable} program.py 2>&1 | cat"], ENVIRONMENT)
    assert os.read(terminal, 100).startswith(b"begun")
    os.close(terminal)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 60
    while not (tmp_path / "closed").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "closed").read_text() == "129"


@pytest.mark.parametrize("pairs", [4, pytest.param(50, marks=pytest.mark.release)])
def test_no_run_stays_running_after_two_signals(tmp_path: Path, pairs: int) -> None:
    program = """
from dataclasses import replace
from pathlib import Path
from mnist_exp.config.composition import compose
from mnist_exp.tracking.record import Run, recording

experiment = replace(compose(["tracking=none"]), output=Path(sys.argv[1]))
try:
    print("begun", flush=True)
    with recording(Run(experiment)) as run:
        for epoch in range(1, 100_000):
            run.log_epoch(epoch, {"loss": 0.5})
except KeyboardInterrupt:
    sys.exit(130)
"""
    rng = random.Random(0)
    for index in range(pairs):
        process = begin(program, str(index))
        first, second = send_two(process, rng, 0.2)
        _, errors = process.communicate(timeout=60)
        # While Python ends, a signal does what it does by default.
        assert process.returncode in {128 + first, 128 + second, -second}, errors
        path = tmp_path / str(index)
        if (path / "run.json").exists():
            assert Folder(path).read().status == "KILLED", errors
            assert not list(path.glob(".l*"))
