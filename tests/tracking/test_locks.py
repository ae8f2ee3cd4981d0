"""Which runs still have a process, in the eyes of other processes, containers and machines."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import pytest

import mnist_exp
from mnist_exp.tracking import abandoned, leases, locks
from mnist_exp.tracking.folder import Folder, Record

pytestmark = pytest.mark.fast

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
WORKS = """
import os, subprocess, sys
from pathlib import Path
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder, Record

def say(what):
    os.write(1, f"{what}\\n".encode())  # at once, so that no two lines mix

top, folder = Path(sys.argv[1]), Folder(Path(sys.argv[2]))
locks.hold(top)
folder.write(Record("works", {}, **locks.hold(folder.path)))
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
from mnist_exp.tracking import leases, locks
from mnist_exp.tracking.folder import Folder
leases.SECONDS_OF_A_LEASE = -1
folder = Folder(Path(sys.argv[1]))
print({locks.is_alive(folder, folder.read()) for _ in range(int(sys.argv[2]))})
"""
IN_ANOTHER_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


@contextmanager
def working(*arguments: str | Path, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that works on a run."""
    program = [*before, sys.executable, "-c", WORKS, *map(str, arguments)]
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


def alive(path: Path) -> bool:
    return locks.is_alive(Folder(path), Folder(path).read())


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lease counts."""
    monkeypatch.setattr(leases, "SECONDS_OF_A_LEASE", -1.0)


@pytest.mark.usefixtures("stale")
def test_a_run_is_dead_once_its_process_is(tmp_path: Path) -> None:
    job = tmp_path / "sweep" / "deep" / "0"
    with working(tmp_path / "sweep", job) as process:
        assert line(process) == "works"
        assert Folder(job).read().lock.startswith("../../.locks/")
        assert alive(job)
        process.send_signal(signal.SIGSTOP)
        assert alive(job)
        process.kill()
        process.wait()
        assert not alive(job)
    assert not locks.is_alive(Folder(tmp_path), Record("had no process", {}))


def test_a_run_that_was_closed_is_not_waited_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "sweep" / "0")
    folder.path.mkdir(parents=True)
    with working(tmp_path / "sweep", folder.path) as process:
        assert line(process) == "works"
        process.kill()
        process.wait()
    assert abandoned.close([folder.path / "run.json"]) == 0
    assert folder.read().status == "KILLED"
    rmtree(tmp_path / "sweep" / ".locks")  # as the next process does in the end
    assert locks.is_left(folder)


@pytest.mark.usefixtures("stale")
def test_children_that_outlive_a_process_do_not_keep_its_runs_alive(tmp_path: Path) -> None:
    with working(tmp_path, tmp_path, "with children") as process:
        lines = {line(process) for _ in range(3)}
        assert "works" in lines
        children = map(int, lines - {"works"})
        assert alive(tmp_path)
        process.kill()
        process.wait()
        for child in children:
            os.kill(child, 0)
        assert not alive(tmp_path)


def _holds_own(folder: Path) -> tuple[locks.Held, bool]:
    before = bool(leases.are_open())
    return locks.hold(folder), before


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_a_process_that_this_one_makes_has_a_lock_of_its_own(tmp_path: Path, start: str) -> None:
    mine = locks.hold(tmp_path)
    with multiprocessing.get_context(start).Pool(1) as pool:
        its, inherited = pool.apply(_holds_own, (tmp_path,))
        assert its["boot"] == mine["boot"]
        assert its["lock"] != mine["lock"]
        assert not inherited
        assert (tmp_path / ".lease").exists()
    locks.release(tmp_path)


def test_jobs_share_the_lock_of_their_sweep_and_nothing_is_left(tmp_path: Path) -> None:
    sweep, job, other = tmp_path / "sweep", tmp_path / "sweep" / "0", tmp_path / "other"
    of_sweep, of_job, of_other = map(locks.hold, (sweep, job, other))
    assert of_job == of_sweep | {"lock": f"../{of_sweep['lock']}"}
    assert of_other["lock"] != of_sweep["lock"]
    for folder, fields in ((sweep, of_sweep), (job, of_job), (other, of_other)):
        Folder(folder).write(Record("mine", {}, **fields))
        assert alive(folder)
    for folder in (job, other, sweep):
        locks.release(folder)
        assert not alive(folder)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"run.json"}
    assert not list(tmp_path.rglob(".locks"))


@pytest.mark.usefixtures("stale")
def test_testers_do_not_take_each_other_for_a_run(tmp_path: Path) -> None:
    with working(tmp_path, tmp_path) as process:
        assert line(process) == "works"
    ask = [sys.executable, "-c", ASKS, str(tmp_path), "2000"]
    asking = [subprocess.Popen(ask, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in asking] == ["{False}\n"] * 4


@pytest.mark.usefixtures("stale")
def test_process_namespaces_see_each_others_runs(tmp_path: Path) -> None:
    if subprocess.run([*IN_ANOTHER_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare --pid is not allowed here")

    def asked(path: Path) -> str:
        ask = [*IN_ANOTHER_NAMESPACE, sys.executable, "-c", ASKS, str(path), "1"]
        return subprocess.run(ask, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout.strip()

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    with working(inside, inside, before=IN_ANOTHER_NAMESPACE) as one, working(outside, outside) as two:
        assert (line(one), line(two)) == ("works", "works")
        assert alive(inside)
        assert asked(outside) == "{True}"
        assert asked(inside) == "{True}"
        for process in (one, two):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # until nothing writes any more, in the namespace either
        deadline = time.monotonic() + 60
        while alive(inside) and time.monotonic() < deadline:
            pass  # it has closed its output, and ends
        assert not alive(inside)
        assert asked(outside) == "{False}"


@pytest.mark.parametrize("change", [{"boot": "another start"}, {"lock": ""}, {"lock": "../etc/.locks/passwd"}])
def test_where_no_lock_says_it_the_lease_does(tmp_path: Path, change: dict[str, str]) -> None:
    with working(tmp_path, tmp_path) as process:
        assert line(process) == "works"
    folder = Folder(tmp_path)
    assert not alive(tmp_path)
    folder.change(**change)
    assert alive(tmp_path)  # as far as anybody there can know
    old = (tmp_path / ".lease").stat().st_mtime - leases.SECONDS_OF_A_LEASE
    os.utime(tmp_path / ".lease", (old, old))
    assert not alive(tmp_path)
    (tmp_path / ".lease").unlink()
    assert not alive(tmp_path)


def test_a_lease_is_renewed_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_thread", None)
    monkeypatch.setattr(leases, "SECONDS_BETWEEN_RENEWALS", 0.0)
    leases.begin(tmp_path)
    (tmp_path / ".lease").unlink()
    while not (tmp_path / ".lease").exists():
        pass
    monkeypatch.undo()
    leases.end(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_locks_has_a_lease(tmp_path: Path) -> None:
    (tmp_path / ".locks").touch()  # where the folder for locks would be
    fields = locks.hold(tmp_path)
    assert fields == {"lock": "", "boot": locks.boot_id()}
    Folder(tmp_path).write(Record("mine", {}, **fields))
    assert alive(tmp_path)
    locks.release(tmp_path)
    assert not alive(tmp_path)
