"""What is done to the disk of a command: filled, closed, deleted, at several moments of a run and a sweep."""

import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Damage:
    """What is done to a folder in which a command runs or will, and undone after it.

    The functions get the folder, and the process if it runs already. Where only the store is damaged, `of_the_store`,
    the output folder is to have all, and is sent later. `failures`: how many messages there may be. `small`: the folder
    is a disk of 30 MB. `store`: where the store is, if not in the folder. `cases`: moments, each with a command.
    """

    begin: Callable[[Path, int | None], object]
    end: Callable[[Path], object]
    cases: tuple[tuple[str, str], ...]
    of_the_store: bool = False
    small: bool = False
    failures: int = 1
    store: str = ""


def outputs(folder: Path) -> list[Path]:
    """Return the output folders of runs and jobs, the newest last."""
    found = [path.parent for pattern in OUTPUTS for path in folder.glob(f"{pattern}/run.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


OUTPUTS = ("outputs/*/*", "multirun/*/*/*")


def fill(folder: Path, _: int | None) -> None:
    """Write until nothing more fits."""
    with (folder / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
        for size in (1_000_000, 4096, 1):
            with suppress(OSError):
                while True:
                    ballast.write(b"x" * size)


def allow(folder: Path, writes: bool) -> None:
    """Close or open a folder, with all below it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o755 if path.is_dir() else 0o644) if writes else (0o555 if path.is_dir() else 0o444))


def close_outputs(folder: Path, process: int | None) -> None:
    """Close the newest output folder, or before there is one, where it would be."""
    for place in outputs(folder)[-1:] if process else [folder / "outputs", folder / "multirun"]:
        place.mkdir(exist_ok=True)
        allow(place, writes=False)


def open_outputs(folder: Path) -> None:
    """Open all output folders."""
    for place in filter(Path.is_dir, (folder / "outputs", folder / "multirun")):
        allow(place, writes=True)


def limit_files(_: Path, process: int | None) -> None:
    """Let no file of a process grow beyond 20 kB; before it starts, its children."""
    resource.prlimit(process or 0, resource.RLIMIT_FSIZE, (20_000, -1))


def close_store(folder: Path, _: int | None) -> None:
    """Let nobody write to the store's file."""
    (folder / "mlflow.db").touch()
    (folder / "mlflow.db").chmod(0o444)


def lock_store(folder: Path, _: int | None) -> None:
    """Hold the store's lock for three seconds."""
    holds = sqlite3.connect(folder / "mlflow.db", check_same_thread=False, isolation_level=None)
    holds.execute("BEGIN EXCLUSIVE")
    threading.Timer(3, holds.close).start()


def put_back(folder: Path) -> None:
    """Put the store back over whatever lies there now."""
    (folder / "away.db").replace(folder / "mlflow.db")


def close_artifacts(folder: Path, _: int | None) -> None:
    """Let nobody write below mlruns/."""
    (folder / "mlruns").mkdir(exist_ok=True)
    allow(folder / "mlruns", writes=False)


def replace_artifacts(folder: Path, _: int | None) -> None:
    """Delete mlruns/, with what is in it, and put a file there."""
    shutil.rmtree(folder / "mlruns", ignore_errors=True)
    (folder / "mlruns").touch()


BEFORE, TRAINING, END = "before the start", "in training", "at the end"
BOTH = tuple((moment, typed) for moment in (TRAINING, END) for typed in ("run", "sweep"))


def nothing(*_: object) -> None:
    """Do nothing."""


FAULTS: dict[str, Damage] = {
    "the disk is full": Damage(
        fill, lambda folder: (folder / "ballast").unlink(), ((BEFORE, "run"), *BOTH), small=True, failures=3
    ),
    "the store's disk is full": Damage(
        lambda folder, _: fill(folder / "disk", None),
        lambda folder: (folder / "disk" / "ballast").unlink(),
        BOTH,
        of_the_store=True,
        store="disk/mlflow.db",
    ),
    "files may not grow": Damage(
        limit_files,
        lambda _: resource.prlimit(0, resource.RLIMIT_FSIZE, (-1, -1)),
        ((BEFORE, "run"), *BOTH),
        failures=3,
    ),
    "the output folder is read-only": Damage(close_outputs, open_outputs, ((BEFORE, "run"), (BEFORE, "sweep"), *BOTH)),
    "the output folder is deleted": Damage(lambda folder, _: shutil.rmtree(outputs(folder)[-1]), nothing, BOTH),
    "the store's file is read-only": Damage(
        close_store,
        lambda folder: (folder / "mlflow.db").chmod(0o644),
        ((BEFORE, "run"), *BOTH),
        of_the_store=True,
    ),
    "the store's file is away": Damage(
        lambda folder, _: (folder / "mlflow.db").rename(folder / "away.db"), put_back, BOTH, of_the_store=True
    ),
    "the store is locked for 3 s": Damage(lock_store, nothing, BOTH, of_the_store=True),
    "mlruns/ is deleted, a file in its place": Damage(
        replace_artifacts, lambda folder: (folder / "mlruns").unlink(), BOTH, of_the_store=True
    ),
    "mlruns/ is read-only": Damage(
        close_artifacts,
        lambda folder: allow(folder / "mlruns", writes=True),
        ((BEFORE, "run"), *BOTH[:2]),
        of_the_store=True,
    ),
}


def cases() -> Iterator[tuple[str, str, str]]:
    """Return what is broken, when and of which command; each damage once before any is tried again."""
    for turn in range(5):
        for name, damage in FAULTS.items():
            if turn < len(damage.cases):
                yield (name, *damage.cases[turn])
