"""The disk is full, closed or gone, and folders have names that are no words, at several moments of a run and a sweep.

A try takes the better part of a minute. What needs root, or Linux, is skipped elsewhere, and the table says so.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient

from ..conftest import command, serving, store
from .damages import BEFORE, FAULTS, OUTPUTS, TRAINING, Damage, cases, nothing
from .left import left, open_in_store, runs_of_folders
from .outages import LONGEST_WAIT, SYNC, shown
from .proxy import Fault, proxied
from .table import Lacks, Row
from .watched import COMMANDS, Watched, epochs, watch

NEXT = ("dataset.limit=500", "training.epochs=1")
JOBS = {"run": None, "sweep": 4}  # as `left` counts them; another command runs in the same folder
NAMES = ("100% b", "it's", 'say "hi"', "a; b", "#1", "two words", "Zürich 京都")


def tries(count: int, seed: int) -> Iterator[Row]:  # noqa: ARG001, nothing is drawn
    """Try damages of disks, three quarters of the tries, then names of folders, and a store that takes no files."""
    with tempfile.TemporaryDirectory() as name:
        for number, (what, moment, typed) in enumerate(islice(cases(), count * 3 // 4)):
            folder = Path(name, f"try-{number}")
            folder.mkdir()
            with ExitStack() as mounted:
                yield try_one(folder, what, moment, typed, mounted)
        places = [(place, typed) for typed in ("run", "sweep") for place in NAMES]
        for number, (place, typed) in enumerate(places[: max(count // 4 - 2, 1)]):
            folder = Path(name, str(number), place)
            folder.mkdir(parents=True)
            yield try_name(folder, typed)
        yield from _refused_artifacts(Path(name, "server"), ("run", "sweep")[: count // 4])


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


def try_name(folder: Path, typed: str) -> Row:
    """Run a command in a folder of a difficult name, and in an output folder of that name."""
    lacks = Lacks()
    ended = watch(*COMMANDS[typed], cwd=folder)
    lacks.add("wrong", f"exit {ended.code}: {ended.messages()}", ended.code != 0 or bool(ended.err))
    lacks.add("wrong", "no scores are shown", ended.scores() is None)
    elsewhere = [path for path in folder.parent.rglob("mlflow.db") if path.parent != folder]
    lacks.add("wrong", f"the store lies in {elsewhere}", len(elsewhere))
    if (folder / "mlflow.db").exists():
        with closing(sqlite3.connect(folder / "mlflow.db")) as connection:  # MLflow would read the name its own way
            copy = folder.parent / "mlflow.db"
            connection.execute("VACUUM INTO ?", (str(copy),))
        lacks.include(left(folder, JOBS[typed], store(copy.parent)))
    else:
        lacks.add("lost", "the store")
    return lacks.row("disks: names of folders", f"{folder.name}, {typed}: exit {ended.code}")


def _refused_artifacts(folder: Path, commands: tuple[str, ...]) -> Iterator[Row]:
    """Run commands whose server takes metrics but no files."""
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    folder.mkdir()
    damage = Damage(nothing, nothing, (), of_the_store=True)
    with serving(folder) as (uri, server):
        threading.Thread(target=lambda: list(server.stderr or ()), daemon=True).start()
        for typed in commands:
            lacks, place = Lacks(), folder / typed
            place.mkdir()
            with proxied(uri) as proxy:
                proxy.fail(Fault(500, of="^PUT .*mlflow-artifacts"))
                ended = watch(
                    *COMMANDS[typed],
                    f"tracking.experiment={typed}",
                    cwd=place,
                    environment={"MLFLOW_TRACKING_URI": proxy.uri},
                )
                proxy.heal()
                judge(ended, place, lacks, damage, TRAINING)
                done = command(cwd=place, module=SYNC, MLFLOW_TRACKING_URI=proxy.uri)
                lacks.add("wrong", f"sync: {done.stderr.strip()[-200:]}", done.returncode != 0)
                lacks.include(left(place, JOBS[typed], MlflowClient(proxy.uri), typed))
            yield lacks.row("disks: files are answered 500", f"{typed}: exit {ended.code}{shown(ended)}")
