"""Interrupt a command at a random moment, type it again with resume=true, and look at what there is in the end."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from random import Random
from time import monotonic

from ..conftest import installed, store
from .left import Found, differences, left, outputs, runs_of_folders
from .process import Fault, Process, environment
from .table import Row, row

FEW = ("dataset.limit=500", "training.batch_size=100", "model.dropout=0.2")
LONG = ("training.epochs=40", "training.callbacks={ReduceLROnPlateau:{monitor:loss,patience:1,min_delta:0.1}}")
SHORT = ("training.epochs=15",)
FOUR = ("-m", "model.hidden=4,8", "seed=0,1")
SEARCH = ("hydra.sweeper.n_trials=4", "dataset.validation=100")


@dataclass(frozen=True)
class Command:
    """What is typed; it has so many jobs, 0 if it is a single run, and needs what is not always installed."""

    typed: tuple[str, ...]
    jobs: int = 0
    needs: str = "keras"


COMMANDS = {
    "run": Command((*FEW, *LONG)),
    "run on JAX": Command((*FEW, *LONG, "backend=jax")),
    "run without a store": Command((*FEW, *LONG, "tracking=none")),
    "sweep": Command((*FOUR, *FEW, *SHORT), 4),
    "joblib": Command(
        (*FOUR, *FEW, *SHORT, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), 4, "hydra-joblib-launcher"
    ),
    "stacked": Command(("-m", "seed=range(4)", *FEW, *LONG[:1], "hydra/launcher=stacked", "backend=jax"), 4),
    "random search": Command(("-m", "sweep=random", *SEARCH, *FEW, *SHORT), 4, "optuna"),
    "Optuna search": Command(("-m", "sweep=optuna", *SEARCH, *FEW, *SHORT), 4, "optuna"),
}
# Of 60 tries 28 are single runs, three of four in training.
ORDER = (
    *("run", "joblib", "run on JAX", "stacked", "run", "sweep", "run without a store", "random search"),
    *("run", "joblib", "run on JAX", "stacked", "run", "sweep", "Optuna search"),
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


FAULTS = (
    Fault((signal.SIGKILL,)),
    Fault((signal.SIGKILL,), to_group=True),
    *(Fault((number,), to_group) for number in SIGNALS[:3] for to_group in (False, True)),
    *(Fault((first, two), to_group) for first in SIGNALS[:3] for two in SIGNALS for to_group in (False, True)),
    Fault(()),
)


def tries(count: int, seed: int) -> Iterator[Row]:
    """Try `count` interruptions, of all kinds of commands that can be typed here."""
    names = [name for name in dict.fromkeys(ORDER) if installed(COMMANDS[name].needs)]
    for name in dict.fromkeys(ORDER):
        if name not in names:
            yield Row(f"{name} (skipped: needs {COMMANDS[name].needs})", tries=0)
    first, *others = FAULTS
    faults = {name: cycle([first, *Random(f"{seed} {name}").sample(others, len(others))]) for name in names}
    turns = {name: cycle((True, True, True, False)) for name in names}
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        references = cache(partial(reference, Path(temporary)))
        for index, name in enumerate(islice((name for name in cycle(ORDER) if name in names), count)):
            folder = Path(temporary) / str(index)
            yield one_try(name, next(faults[name]), next(turns[name]), references, folder, Random(f"{seed} {index}"))


def reference(temporary: Path, name: str) -> tuple[Path, float]:
    """Return the folder in which a command ran undisturbed, and its seconds since it had made an output folder."""
    folder = temporary / f"undisturbed {name}"
    process = Process(typed(name), folder)
    process.wait_until(lambda: _begun(folder))
    begun = monotonic()
    if process.end() != 0:
        raise RuntimeError(f"{name} fails undisturbed: {process.errors()}")
    if broken := {count: lines for count, lines in _left(name, folder).items() if lines}:
        raise RuntimeError(f"{name}, undisturbed, leaves {broken}")
    return folder, monotonic() - begun


def one_try(
    name: str,
    fault: Fault,
    in_training: bool,
    references: Callable[[str], tuple[Path, float]],
    folder: Path,
    random: Random,
) -> Row:
    """Start a command, break it, resume it until it ends well, and return what is wrong then."""
    reference, seconds = references(name)
    process = Process(typed(name), folder, on_terminal=not fault.signals)
    when, there = _moment(folder, reference, seconds, in_training, random)
    process.wait_until(there)
    moment = "too late" if not process.lives() else "in training" if in_training else "at another moment"
    process.hurt(fault)
    code, found = process.end(), Found()
    checkpoint, lines = any(outputs(folder, "checkpoint.npz")), lines_in(folder)
    found["wrong"] = [*exit_codes(code, fault, folder), *process.errors()]
    resumed = Process((*typed(name), "resume=true"), folder)
    if (code := resumed.end()) != 0:
        found["wrong"].append(f"exit code {code} of resume=true: {resumed.last_line()}")
    found["wrong"] += [*resumed.errors(), *process.remains()]
    found["wrong"] += [f"{line}, of resume=true" for line in resumed.remains()]
    for count, more in _left(name, folder).items():
        found.setdefault(count, []).extend(more)
    found["wrong"] += [*differences(folder, reference), *fewer_lines(lines)]
    if checkpoint and COMMANDS[name].jobs == 0 and (times := first_epochs(folder)) > 1:
        found["wrong"].append(f"epoch 1 was trained {times} times, in spite of a checkpoint")
    counted = row(f"{name}, {moment}", found)
    return replace(counted, notes=(f"{fault}, {when}:", *counted.notes))


def _left(name: str, folder: Path) -> Found:
    return left(folder, COMMANDS[name].jobs, None if "tracking=none" in COMMANDS[name].typed else store(folder))


@cache
def _checkpoints() -> tuple[str, ...]:
    """Return the override that lets a run of seconds have checkpoints, where there is one."""
    wanted = "training.checkpoint_seconds=0.5"
    probe = [sys.executable, "-m", "mnist_exp", "--cfg", "job", wanted]
    done = subprocess.run(probe, capture_output=True, check=False, env=environment(), cwd=tempfile.gettempdir())
    return (wanted,) if done.returncode == 0 else ()


def typed(name: str) -> tuple[str, ...]:
    """Return what is typed after `python -m mnist_exp`."""
    return (*COMMANDS[name].typed, *_checkpoints())


def _moment(
    folder: Path, reference: Path, seconds: float, in_training: bool, random: Random
) -> tuple[str, Callable[[], bool]]:
    """Return a random moment, in words and as a function that says whether it has come."""
    if in_training:
        wanted = random.randrange(1, sum(lines_in(reference).values()) - 1)
        checkpoint = bool(_checkpoints()) and random.random() < 0.75
        return (
            f"after {wanted} epochs in all{', and a checkpoint' if checkpoint else ''}",
            lambda: (
                sum(lines_in(folder).values()) >= wanted
                and not (checkpoint and not any(outputs(folder, "checkpoint.npz")))
            ),
        )
    if random.random() < 0.5:
        # In the order in which they come; in a sweep, those of the first job, and of the sweep.
        name = random.choice(["run.json", "mlruns", "model.keras", "figures", "ranking.csv", "report.html"])
        return f"as soon as there is {name}", lambda: any(outputs(folder, name)) or (folder / name).exists()
    share, begun = random.random(), list[float]()

    def there() -> bool:
        if not begun and _begun(folder):
            begun.append(monotonic())
        return bool(begun) and monotonic() - begun[0] >= share * seconds

    return f"after {share:.0%} of the time", there


def _begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("outputs", "multirun"))


def lines_in(folder: Path) -> dict[Path, int]:
    """Return how many whole lines each metrics.jsonl has."""
    return {path: path.read_bytes().count(b"\n") for path in outputs(folder, "metrics.jsonl")}


def fewer_lines(lines: Mapping[Path, int]) -> list[str]:
    """Return the folders that have fewer lines now than before."""
    return [
        f"{path} had {count} lines, now less"
        for path, count in lines.items()
        if not path.exists() or path.read_bytes().count(b"\n") < count
    ]


def first_epochs(folder: Path) -> int:
    """Return how often the first epoch was trained, in all folders."""
    return sum(path.read_text().count(" epoch 1 ") for path in outputs(folder, "run.log"))


def exit_codes(code: int, fault: Fault, folder: Path) -> list[str]:
    """Return what is wrong with the exit code after a fault, which may have come too late.

    A process that a signal ended before ours was installed, or after all was done, has that signal's number below zero,
    for which a shell says 128 and the number, as we do.
    """
    signals = fault.signals or (signal.SIGHUP,)
    if code in {status for number in signals for status in (-number, 128 + number) if status != 128 + signal.SIGKILL}:
        return []
    if code != 0:
        return [f"exit code {code} after {fault}"]
    unfinished = [run for run in runs_of_folders(folder) if run.status != "FINISHED"]
    return [f"exit code 0, but {run.job or 'the run'} is {run.status}" for run in unfinished]
