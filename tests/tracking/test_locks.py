"""The lock of a folder, in the eyes of other processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import mnist_exp
from mnist_exp.errors import InputError
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.locks import has_no_owner, working
from mnist_exp.tracking.records import Record

pytestmark = pytest.mark.fast

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
WORKS = """
import os, subprocess, sys
from pathlib import Path
from mnist_exp.tracking.locks import Folder, working
from mnist_exp.tracking.records import Record

def say(what):
    os.write(1, f"{what}\\n".encode())  # at once, so that no two lines mix

top, folder = Path(sys.argv[1]), Folder(Path(sys.argv[2]))
with working(top), working(folder.path):
    Folder(top).write(sweep := Record("a sweep", {}))
    folder.write(Record("works", {"mnist_exp.parent": sweep.id} if folder.path != top else {}))
    if len(sys.argv) > 3:  # a child of each kind, which outlives this process
        started = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        say(started.pid)
        if not os.fork():
            say(os.getpid())
            sys.stdin.read()
            os._exit(0)
    say("works")
    sys.stdin.read()
"""
ASKS = """
import sys
from pathlib import Path
from mnist_exp.tracking.locks import Folder, has_no_owner
print({has_no_owner(Folder(Path(sys.argv[1]))) for _ in range(int(sys.argv[2]))})
"""


@contextmanager
def process_in(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works on a run."""
    program = [sys.executable, "-c", WORKS, *map(str, arguments)]
    process = subprocess.Popen(
        program, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_run_is_left_once_its_process_is_dead(tmp_path: Path) -> None:
    sweep, job = tmp_path / "sweep", tmp_path / "sweep" / "0"
    with process_in(sweep, job) as process:
        assert line(process) == "works"
        assert [path.name for path in job.iterdir()] == ["run.json"]  # it is under the sweep's lock
        assert not has_no_owner(Folder(job))
        assert has_no_owner(Folder(job), Folder(sweep).read().id)  # the sweep gave the job to another process
        process.send_signal(signal.SIGSTOP)
        assert not has_no_owner(Folder(job))
        assert locks.close([job / "run.json"]) == 1
        with pytest.raises(InputError, match="sweep: a run still writes here"), working(sweep):
            pass
        process.kill()
        process.wait()
        assert has_no_owner(Folder(job))
    assert locks.close([job / "run.json"]) == 0
    assert Folder(job).read().status == "KILLED"


def test_children_that_outlive_a_process_do_not_keep_its_lock(tmp_path: Path) -> None:
    with process_in(tmp_path, tmp_path, "with children") as process:
        lines = {line(process) for _ in range(3)}
        assert "works" in lines
        children = map(int, lines - {"works"})
        assert not has_no_owner(Folder(tmp_path))
        process.kill()
        process.wait()
        for child in children:
            os.kill(child, 0)
        assert has_no_owner(Folder(tmp_path))


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_a_process_that_this_one_makes_does_not_have_its_locks(tmp_path: Path, start: str) -> None:
    with locks.held(tmp_path) as mine, multiprocessing.get_context(start).Pool(1) as pool:
        assert (mine, pool.apply(locks.hold, (tmp_path,))) == (True, False)
        assert not pool.apply(locks.is_held_here, (tmp_path,))
        assert locks.is_held_here(tmp_path)
    assert locks.is_free(tmp_path)


def test_process_can_hold_a_lock_twice(tmp_path: Path) -> None:
    with locks.held(tmp_path) as first, locks.held(tmp_path, 60.0) as second:
        assert (first, second) == (True, True)
    assert not locks.is_held_here(tmp_path)


def test_who_begins_is_not_stopped_by_those_who_ask(tmp_path: Path) -> None:
    with working(tmp_path):
        Folder(tmp_path).write(Record("a run", {}))
    ask = [sys.executable, "-c", ASKS, str(tmp_path), "500"]
    asking = [subprocess.Popen(ask, env=ENVIRONMENT, stdout=subprocess.PIPE) for _ in range(4)]
    while any(process.poll() is None for process in asking):
        with working(tmp_path):
            pass
    assert [process.communicate()[0] and process.returncode for process in asking] == [0] * 4


def test_asking_makes_no_file_and_unlockable_runs_may_be_active(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a")
    folder.write(Record("a run", {"mnist_exp.host": "far"}))
    assert has_no_owner(folder)
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]
    (folder.path / locks.LOCK).mkdir()  # stands for a file system without locks
    assert not has_no_owner(folder)
    assert locks.close([folder.path / "run.json"]) == 1
    with pytest.raises(InputError, match="cannot be locked here, and its run may go on, on far"), working(folder.path):
        pass
