"""Some of `python -m tests.faults interruptions` and `moments`: nothing is lost, and nothing there twice."""

import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest

from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

from ..conftest import in_process, installed
from . import interruptions, moments
from .interruptions import exit_codes, fewer_lines, first_epochs, lines_in
from .process import Fault, Process

pytestmark = pytest.mark.slow


@pytest.mark.fast
def test_wrong_exits_tracebacks_and_leftovers_are_reported(tmp_path: Path) -> None:
    started = "sleep 1000 & until grep -q ^sleep /proc/$!/cmdline; do :; done"  # no environment before
    process = Process((), tmp_path / "folder", at=("sh", "-c", f"echo Traceback >&2; {started}; exit 3"))
    assert process.end() == 3
    assert process.errors() == ["Traceback"]
    assert process.remains(0) == ["a process is left: sleep 1000 "]
    assert process.remains() == []


@pytest.mark.fast
@pytest.mark.parametrize(
    ("code", "signals", "right"),
    [
        (143, [signal.SIGTERM], True),
        (130, [signal.SIGTERM, signal.SIGINT], True),
        (129, [], True),
        (-signal.SIGTERM, [signal.SIGTERM], True),
        (-signal.SIGKILL, [signal.SIGHUP, signal.SIGKILL], True),
        (130, [signal.SIGTERM], False),
        (1, [signal.SIGHUP], False),
        (137, [signal.SIGKILL], False),
        (0, [signal.SIGTERM], False),
    ],
)
def test_an_exit_code_is_that_of_a_signal(
    code: int, signals: list[signal.Signals], right: bool, tmp_path: Path
) -> None:
    Folder(tmp_path / "outputs" / "day" / "time").write(Record("a run that is not over", {}))
    assert (exit_codes(code, Fault(tuple(signals)), tmp_path) == []) == right


@pytest.mark.fast
def test_lost_lines_and_repeated_epochs_are_reported(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "outputs" / "day" / "time")
    folder.write(Record("a run", {}))
    for epoch in (1, 2):
        folder.measure(epoch, {"loss": 0.5})
    before = lines_in(tmp_path)
    assert fewer_lines(before) == []
    (folder.path / "metrics.jsonl").write_text("")
    assert fewer_lines(before) == [f"{folder.path / 'metrics.jsonl'} had 2 lines, now less"]
    (folder.path / "run.log").write_text("DEBUG epoch 1 {}\nDEBUG epoch 11 {}\nDEBUG epoch 1 {}\n")
    assert first_epochs(tmp_path) == 2


@pytest.mark.parametrize(
    ("name", "fault"), [("run", Fault((signal.SIGHUP, signal.SIGTERM))), ("joblib", Fault((signal.SIGKILL,)))], ids=str
)
def test_a_resumed_command_has_each_result_once(name: str, fault: Fault, tmp_path: Path) -> None:
    if not installed(needs := interruptions.COMMANDS[name].needs):
        pytest.skip(f"needs {needs}")
    reference = partial(interruptions.reference, tmp_path)
    row = interruptions.one_try(name, fault, True, reference, tmp_path / "interrupted", Random(0))
    assert row.bad() == 0, row.notes


@pytest.mark.parametrize(
    "name",
    [
        "a sweep completes its best job",
        "the last metrics are lost",
        *(pytest.param(name, marks=pytest.mark.release) for name in list(moments.MOMENTS)[2:]),
    ],
)
def test_a_command_killed_at_a_moment_has_each_result_once(name: str, tmp_path: Path) -> None:
    moment = moments.MOMENTS[name]
    if not moments.may(moment):
        pytest.skip("needs jax")
    is_alone = moment.signs and "backend=jax" not in moment.command.typed
    row = moments.one_try(name, tmp_path / "killed", Random(0), in_process if is_alone else moments.to_end)
    assert row.bad() == 0, row.notes
