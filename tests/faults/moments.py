"""Kill a command at a moment that is soon over, type it again with resume=true, and look at what there is then."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from mnist_exp.config.files import CHECKPOINT, NEW_MODEL

from ..conftest import installed, store
from .interruptions import FEW, LONG, Command
from .left import Found, finished_once, left, outputs
from .process import SECONDS, Process, environment
from .table import Row, row

Run = Callable[..., subprocess.CompletedProcess[str]]
BEST = ("best.yaml", "figures/confusion_matrix.png", f"{NEW_MODEL}/MLmodel", "model/MLmodel")
CHECKPOINTS = "training.checkpoint_seconds=0.1"


@dataclass(frozen=True)
class Moment:
    """A command, and signs in its folders, one of which is waited for; without any, it is started twice at once.

    `damage` is done to the folders of what was killed.
    """

    command: Command
    signs: tuple[Callable[[Path], bool], ...] = ()
    damage: Callable[[Path, Random], object] = lambda _, __: None


def has(name: str, folder: Path, count: int = 1) -> bool:
    """Return whether so many folders have a file."""
    return len(outputs(folder, name)) >= count


def says(key: str, value: str, folder: Path) -> bool:
    """Return whether a record has a value."""
    return any(record[key] == value for record in records(folder))


def trains(epochs: int, folder: Path) -> bool:
    """Return whether a run has a checkpoint, and so many epochs."""
    return has(CHECKPOINT, folder) and any(
        path.read_bytes().count(b"\n") >= epochs for path in outputs(folder, "metrics.jsonl")
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the content of all run.json."""
    return [json.loads(path.read_text()) for path in outputs(folder, "run.json")]


def lose_lines(folder: Path, random: Random) -> None:
    """Remove the last half of a run's metrics, or more, as a power cut does; its checkpoint was synced to disk."""
    [path] = outputs(folder, "metrics.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: random.randrange((len(lines) + 1) // 2)]))


RUN = Command((*FEW, *LONG, CHECKPOINTS))
TWO = ("-m", "model.hidden=4,8", *FEW, "training.epochs=2")
STACK = ("-m", "seed=range(8)", *FEW, *LONG[:1], "hydra/launcher=stacked", "backend=jax", CHECKPOINTS)
MOMENTS = {
    "a sweep completes its best job": Moment(Command(TWO, 2), tuple(partial(has, name) for name in BEST)),
    "the last metrics are lost": Moment(RUN, tuple(partial(trains, epochs) for epochs in (3, 10, 25)), lose_lines),
    "a stack is recorded": Moment(
        Command(STACK, 8), tuple(partial(has, "model.keras", count=count) for count in (1, 2, 4, 6, 8))
    ),
    "a run is sent": Moment(
        RUN,
        (
            *(partial(says, "stage", stage) for stage in ("scored", "completed")),
            *[partial(says, "status", "FINISHED")] * 2,
        ),
    ),
    "the same run twice at once": Moment(RUN),
    "the same sweep twice at once": Moment(Command(TWO, 2)),
}


def may(moment: Moment) -> bool:
    """Return whether what a command needs is installed."""
    return "backend=jax" not in moment.command.typed or installed("jax")


def tries(count: int, seed: int) -> Iterator[Row]:
    """Try `count` moments, each kind in its turn."""
    names = [name for name, moment in MOMENTS.items() if may(moment)]
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        for index, name in enumerate(islice(cycle(names), count)):
            yield one_try(name, Path(temporary) / str(index), Random(f"{seed} {index}"))


def to_end(*arguments: str, cwd: Path, module: str = "mnist_exp") -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own."""
    program = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        program, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def one_try(name: str, folder: Path, random: Random, run: Run = to_end) -> Row:
    """Kill a command at a moment, resume it and send the rest, in any order, and return what is wrong then.

    `run` runs a command to its end.
    """
    moment, found, scored, what, note = MOMENTS[name], Found(wrong=[]), set[str](), name, "at once"
    resume = partial(run, *moment.command.typed, "resume=true", cwd=folder)
    sync = partial(run, cwd=folder, module="mnist_exp.sync")
    if moment.signs:
        place = random.randrange(len(moment.signs))
        killed = Process(moment.command.typed, folder)
        killed.wait_until(partial(moment.signs[place], folder))
        what, note = (name, f"sign {place + 1}") if killed.lives() else (f"{name}, too late", "")
        killed.kill()
        found["wrong"] += [*killed.errors(), *killed.remains()]
        runs = [record for record in records(folder) if "mnist_exp.sweep" not in record["tags"]]
        scored = {record["id"] for record in runs if record["stage"] != "begun"}
        note += f", {len(scored)} of {len(runs)} scored"
        moment.damage(folder, random)
        if random.random() < 0.5:
            note += ", sent"
            done = [sync(), resume()]
        else:
            done = [resume(), sync()]
    else:
        folder.mkdir()
        with ThreadPoolExecutor() as both:
            done = [*both.map(lambda _: resume(), range(2)), sync()]
    for attempt in done:
        if attempt.returncode != 0 or "Traceback" in attempt.stderr:
            found["wrong"].append(f"exit code {attempt.returncode} of {attempt.args}: {attempt.stderr.strip()[-1000:]}")
    jobs = moment.command.jobs
    for more in (left(folder, jobs, store(folder)), finished_once(folder, jobs or 1)):
        for count, lines in more.items():
            found.setdefault(count, []).extend(lines)
    finished = {record["id"] for record in records(folder) if record["status"] == "FINISHED"}
    found["lost"] = [*found.get("lost", []), *(f"run {run_id}, which was scored" for run_id in scored - finished)]
    counted = row(what, found)
    return replace(counted, notes=(f"{note}:", *counted.notes))
