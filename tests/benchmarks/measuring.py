"""Time and memory of one command, and tables of them."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
COMPILED = ("backend=jax",)
RATES = "0.001,0.003,0.01,0.03"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclass(frozen=True)
class Measured:
    """Wall time in seconds, and the largest resident memory in MB."""

    seconds: float
    megabytes: float


def measure(folder: Path, *arguments: str, fails: bool = False) -> Measured:
    """Run Python with `arguments` in `folder`, with its output thrown away."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [PYTHON, *arguments], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert (os.waitstatus_to_exitcode(status) != 0) == fails, arguments
    return Measured(seconds, usage.ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2))


def say(text: str) -> None:
    """Show progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def median(measured: Sequence[Measured]) -> float:
    """Of the seconds."""
    return statistics.median(run.seconds for run in measured)


def against_reference(rows: dict[str, list[Measured]]) -> str:
    """Medians, and the medians of each round's ratios to the first row's."""
    reference = next(iter(rows.values()))
    lines = []
    for title, measured in rows.items():
        memory = statistics.median(run.megabytes for run in measured)
        times = statistics.median(a.seconds / b.seconds for a, b in zip(measured, reference, strict=True))
        sizes = statistics.median(a.megabytes / b.megabytes for a, b in zip(measured, reference, strict=True))
        lines.append([title, f"{median(measured):.2f}", f"{times:.2f}", f"{memory:.0f}", f"{sizes:.2f}"])
    return table(["", "seconds", "ratio", "peak MB", "ratio"], lines)


def plain(rows: dict[str, list[Measured]]) -> dict[str, list[dict[str, float]]]:
    """For JSON."""
    return {title: [vars(run) for run in measured] for title, measured in rows.items()}
