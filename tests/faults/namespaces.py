"""Use a folder from two process namespaces, as containers with one host name do: each takes only the dead for dead."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

from ..conftest import in_process, installed, store
from .left import THE_SWEEP, Found, outputs, runs_of_folders, runs_of_store
from .process import Process
from .table import Row, row

OWN = ("unshare", "--pid", "--fork", "--mount-proc")
ENDLESS = ("dataset.limit=500", "training.epochs=100000")
QUICK = ("dataset.limit=500", "training.epochs=1")
PLACES = {"here": (), "in a namespace": OWN}
LAUNCHERS = {"sweep": (), "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")}


def may() -> bool:
    """Return whether this user may make namespaces."""
    with suppress(FileNotFoundError):
        return subprocess.run([*OWN, "true"], capture_output=True, check=False).returncode == 0
    return False


def tries(count: int, seed: int) -> Iterator[Row]:  # noqa: ARG001
    """Try `count` pairs of a sweep and another command, at least one of them in a namespace of its own."""
    if not may():
        yield Row("namespaces (skipped: needs the right to make them)", tries=0)
        return
    launchers = [name for name in LAUNCHERS if name == "sweep" or installed("hydra-joblib-launcher")]
    pairs = [pair for pair in product(launchers, PLACES, PLACES) if OWN in map(PLACES.get, pair[1:])]
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        for index, (launcher, first, second) in enumerate(islice(cycle(pairs), count)):
            found = one_try(launcher, PLACES[first], partial(quick, PLACES[second]), Path(temporary) / str(index))
            yield row(f"{launcher} {first}, a command {second}", found)


def quick(at: Sequence[str], folder: Path) -> str:
    """Run a command that takes moments; return what is wrong with it, or ""."""
    process = Process(QUICK, folder, at=at)
    return "" if (code := process.end()) == 0 else f"exit code {code} {process.errors()}"


def in_this_process(folder: Path) -> str:
    """Do what `quick` does, within moments."""
    done = in_process(*QUICK, cwd=folder)
    return done.stderr if done.returncode else ""


def one_try(launcher: str, at: Sequence[str], other: Callable[[Path], str], folder: Path) -> Found:
    """Start a sweep, use another command, kill the sweep, use the other again, and return what is wrong.

    `at` starts the sweep in a namespace of its own; `other` returns what is wrong with the other command itself.
    """
    sweep = Process(("-m", *ENDLESS, "seed=0,1", *LAUNCHERS[launcher]), folder, at=at)
    sweep.wait_until(lambda: any(outputs(folder, "metrics.jsonl")))
    found: Found = {"wrong": [other(folder)]}
    found["lost"] = _not("RUNNING", folder)
    if not sweep.lives():
        found["lost"].append(f"the sweep ended with {sweep.end()} {sweep.errors()}")
    sweep.kill()
    found["wrong"] += [*sweep.remains(), other(folder)]
    found["running"] = _not("KILLED", folder)
    return {count: [line for line in lines if line] for count, lines in found.items()}


def _not(status: str, folder: Path) -> list[str]:
    """Return the sweep and its jobs, in folders and store, that have another status, or that they are not there."""
    runs = [run for run in (*runs_of_folders(folder), *runs_of_store(store(folder))) if run.job]
    assert {run.job == THE_SWEEP for run in runs} == {True, False}, "the sweep has no job yet"
    return [f"{run.job} is {run.status} in {run.files}" for run in runs if run.status != status]
