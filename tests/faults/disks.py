"""The disk is full, closed or gone, at several moments of a run and a sweep.

A try takes the better part of a minute. What needs root, or Linux, is skipped elsewhere, and the table says so.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient

from ..conftest import command
from .damages import BEFORE, FAULTS, OUTPUTS, TRAINING, Damage, cases
from .left import left, open_in_store, runs_of_folders
from .outages import LONGEST_WAIT, SYNC, shown
from .table import Lacks, Row
from .watched import COMMANDS, Watched, epochs, watch

NEXT = ("dataset.limit=500", "training.epochs=1")
JOBS = {"run": None, "sweep": 4}  # as `left` counts them; another command runs in the same folder


def tries(count: int, seed: int) -> Iterator[Row]:  # noqa: ARG001, nothing is drawn
    """Try damages of disks, each at its moments."""
    with tempfile.TemporaryDirectory() as name:
        for number, (what, moment, typed) in enumerate(islice(cases(), count)):
            folder = Path(name, f"try-{number}")
            folder.mkdir()
            with ExitStack() as mounted:
                yield try_one(folder, what, moment, typed, mounted)


def prefix() -> tuple[str, ...]:
    """Return a command that runs another as root who obeys the modes of files, if this is root."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def _mount(folder: Path, size: str, mounted: ExitStack) -> bool:
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        return False
    mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
    return True


def try_one(folder: Path, what: str, moment: str, typed: str, mounted: ExitStack) -> Row:
    """Run a command whose disk is damaged, then another in the same folder."""
    damage, lacks, arguments = FAULTS[what], Lacks(), COMMANDS[typed]
    disk = folder if damage.small else folder / Path(damage.store).parent if damage.store else None
    if disk is not None and not _mount(disk, "30m", mounted):
        return Row(f"disks: {what} (skipped: needs the right to mount a disk)", tries=0)
    if (by := prefix()) and shutil.which(by[0]) is None:
        return Row(f"disks: {what} (skipped: needs {by[0]}, since root may write anywhere)", tries=0)
    if damage.store:
        arguments = (*arguments, f"tracking.uri=sqlite:///{damage.store}")
    done: list[str] = []

    def begin(seen: Watched) -> None:
        damage.begin(folder, seen.process.pid)
        done.append("begun")

    if moment == BEFORE:
        damage.begin(folder, None)
        done.append("begun")
    ended = watch(
        *arguments,
        cwd=folder,
        moment=None if moment == BEFORE else lambda _: is_now(folder, moment),
        act=begin,
        prefix=by,
    )
    if done:
        damage.end(folder)
    judge(ended, folder, lacks, damage, moment)
    lacks.add("wrong", "the fault never began", not done)
    nothing_ran = moment == BEFORE and ended.code == 1 and not epochs(folder)
    check_afterwards(
        folder, folder / (damage.store or "mlflow.db"), lacks, damage.of_the_store and not nothing_ran, typed
    )
    return lacks.row(f"disks: {what}", f"{what} {moment}, {typed}: exit {ended.code}{shown(ended)}")


def is_now(folder: Path, moment: str) -> bool:
    """Return whether a moment of the first run has come."""
    if moment == TRAINING:
        return epochs(folder) > 4
    return any(any(folder.glob(f"{pattern}/model.keras")) for pattern in OUTPUTS)


def judge(ended: Watched, folder: Path, lacks: Lacks, damage: Damage, moment: str) -> None:
    """Count what is wrong with how a command ended."""
    messages = ended.messages()
    if ended.code is None:
        lacks.add("wrong", f"had to be killed; {messages}")
        return
    tracebacks = sum("Traceback" in line for _, line in ended.err)
    lacks.add("wrong", f"tracebacks: {messages[-1:]}", tracebacks)
    failed = sum(run.status == "FAILED" for run in runs_of_folders(folder))
    too_many = len(ended.err) - max(damage.failures, failed + 1)
    lacks.add("wrong", f"{len(ended.err)} lines on standard error: {messages}", not tracebacks and too_many > 0)
    if moment == BEFORE and ended.code == 1 and not epochs(folder):
        lacks.add("wrong", f"not one message: {messages}", len(ended.err) != 1)
        return
    right = (0,) if damage.of_the_store else (0, 1)
    lacks.add("wrong", f"exit {ended.code}: {messages}", ended.code not in right)
    lacks.add("wrong", f"exit {ended.code} without a message", ended.code != 0 and not messages)
    last = any(line.startswith("Epoch 20/20") for _, line in ended.out)
    finished = any(run.status == "FINISHED" for run in runs_of_folders(folder))
    lacks.add("wrong", f"no scores are shown: {messages[-1:]}", (last or finished) and ended.scores() is None)
    if (scored := ended.scores()) is not None:
        lacks.add("wrong", f"waited {ended.end - scored:.0f} s at the end", ended.end - scored > LONGEST_WAIT)


def check_afterwards(folder: Path, path: Path, lacks: Lacks, whole: bool, typed: str) -> None:
    """Run the next command, and `sync`; then the store is to be `whole`, or at least nothing left open."""
    uri = f"tracking.uri=sqlite:///{path.relative_to(folder)}"
    done = command(*NEXT, uri, cwd=folder)
    lacks.add("wrong", f"the next command: {done.stderr.strip()[-200:]}", done.returncode != 0)
    done = command(uri, cwd=folder, module=SYNC)
    lacks.add("wrong", f"sync: {done.stderr.strip()[-200:]}", done.returncode != 0)
    client = MlflowClient(f"sqlite:///{path}")
    if whole:
        lacks.include(left(folder, JOBS[typed], client))
    else:
        lacks.include(open_in_store(client, "mnist_exp"))
