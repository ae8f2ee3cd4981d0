"""This project against a plain Keras script and KerasTuner, in turn on one machine: python -m tests.benchmarks

Prints the tables of docs/speed.md and writes every single measurement to benchmarks.json; takes an hour and a half, in
which nothing else should run. Names of parts choose among them. Needs pip install -e '.[test,joblib]' and
-r tests/benchmarks/requirements.txt.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tests.benchmarks.measuring import (
    COMPILED,
    ENVIRONMENT,
    PYTHON,
    RATES,
    Measured,
    against_reference,
    measure,
    median,
    plain,
    say,
    table,
)
from tests.benchmarks.scale import large_store, thousand_jobs

SEEDS = 8


def one_run(rounds: int) -> dict[str, list[Measured]]:
    """The baseline, as a script and as a tracked run: the first in its folder, and one in a folder with a store."""
    rows: dict[str, list[Measured]] = {}
    for number in range(rounds):
        say(f"one run, round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for title, arguments in (
                ("plain Keras script, no tracking", ("tests.benchmarks.reference",)),
                ("`python -m mnist_exp`, first in its folder", ("mnist_exp",)),
                ("`python -m mnist_exp`, any later", ("mnist_exp",)),
                ("the same with `backend=jax`", ("mnist_exp", *COMPILED)),
            ):
                rows.setdefault(title, []).append(measure(folder, "-m", *arguments))
    return rows


def convolutions(rounds: int) -> dict[str, list[Measured]]:
    """Two epochs of a convolutional network, as scripts on arrays and as tracked runs."""
    rows: dict[str, list[Measured]] = {}
    network = ("mnist_exp", "experiment=convnet", "training.epochs=2")
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), "-m", "mnist_exp", "training.epochs=1")  # makes the store
        for number in range(rounds):
            say(f"convolutions, round {number + 1} of {rounds}")
            for title, arguments in (
                ("plain Keras script", ("tests.benchmarks.convnet", "2", "tensorflow")),
                ("`experiment=convnet`", network),
                ("plain Keras script on JAX", ("tests.benchmarks.convnet", "2", "jax")),
                ("`experiment=convnet backend=jax`", (*network, *COMPILED)),
            ):
                rows.setdefault(title, []).append(measure(Path(name), "-m", *arguments))
    return rows


def convolutional_sweep(jobs: int = 8) -> dict[str, list[Measured]]:
    """Two epochs of as many convolutional networks, two at a time: as scripts on arrays, and as a sweep."""
    rows: dict[str, list[Measured]] = {}
    say(f"{jobs} convolutional networks, two at a time")
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), "-m", "mnist_exp", "training.epochs=1")  # makes the store
        with ThreadPoolExecutor(2) as pool:
            start = time.perf_counter()
            script = ("-m", "tests.benchmarks.convnet", "2", "tensorflow")
            scripts = list(pool.map(lambda _: measure(Path(name), *script), range(jobs)))
            seconds = time.perf_counter() - start
        rows["plain Keras scripts, two at a time"] = [Measured(seconds, max(run.megabytes for run in scripts))]
        network = ("experiment=convnet", "training.epochs=2", f"seed=range({jobs})")
        joblib = ("-m", "mnist_exp", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *network)
        rows["`hydra/launcher=joblib hydra.launcher.n_jobs=2`"] = [measure(Path(name), *joblib)]
    return rows


def before_training(rounds: int) -> dict[str, list[Measured]]:
    """What needs no Keras, against importing it."""
    rows: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for title, arguments, fails in (
                ("`import keras`", ("-c", "import keras"), False),
                ("`python -m mnist_exp --help`", ("-m", "mnist_exp", "--help"), False),
                ("`python -m mnist_exp model.hiden=64`, an error", ("-m", "mnist_exp", "model.hiden=64"), True),
            ):
                rows.setdefault(title, []).append(measure(Path(name), *arguments, fails=fails))
    return rows


def show(rows: dict[str, list[Measured]]) -> dict[str, Any]:
    """Print a table, and return every measurement for JSON."""
    print(against_reference(rows), "\n", flush=True)
    return plain(rows)


def stages(rounds: int) -> dict[str, dict[str, float]]:
    """Print where the time of a run goes, in seconds: medians."""
    tables = {}
    for title, arguments in (("fit", ()), ("compiled", COMPILED)):
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), "-m", "mnist_exp", "training.epochs=1")
            found = []
            for _ in range(rounds):
                say(f"stages of {title}")
                command = [PYTHON, "-m", "tests.benchmarks.stages", *arguments]
                done = subprocess.run(command, cwd=name, env=ENVIRONMENT, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
        names = dict.fromkeys(stage for seconds in found for stage in seconds)
        medians = {stage: statistics.median(seconds.get(stage, 0.0) for seconds in found) for stage in names}
        lines = [[stage, f"{value:.2f}"] for stage, value in sorted(medians.items(), key=lambda item: -item[1])]
        print(table([f"stage, {title}", "seconds"], lines), "\n", flush=True)
        tables[title] = medians
    return tables


def jobs_of_a_sweep(jobs: int = 50) -> dict[str, float]:
    """A sweep one by one in one process: print what a job costs beyond `fit`, and memory as jobs go by."""
    say(f"a sweep of {jobs} jobs with the basic launcher")
    resident: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        command = [PYTHON, "-u", "-m", "mnist_exp", "-m", f"seed=range({jobs})"]
        process = subprocess.Popen(command, cwd=name, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"(\d+) of \d+ done", line):
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident[int(found[1])] = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        assert process.wait() == 0
        runs = children(Path(name))
    starts = [run.info.start_time / 1000 for run in runs]
    beyond = [
        after - before - run.data.metrics["fit_seconds"]
        for before, after, run in zip(starts[1:], starts[2:], runs[1:], strict=False)
    ]
    measured = {
        "beyond_fit": statistics.median(beyond),
        "fit": statistics.median(run.data.metrics["fit_seconds"] for run in runs[1:]),
        "megabytes_after_10": resident[10],
        f"megabytes_after_{jobs}": resident[jobs],
    }
    print(f"a job one by one: {measured}\n", flush=True)
    return measured


def children(folder: Path) -> list[Any]:
    """The jobs of the one sweep in the store of `folder`, oldest first."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name("mnist_exp")
    assert found is not None
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time"], max_results=1000)
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def sweeps(rounds: int) -> dict[str, Any]:
    """32 jobs, 8 seeds by 4 learning rates, each way; and stacks of other sizes: print what a job takes."""
    rows: dict[str, list[Measured]] = {}
    training: dict[int, list[float]] = {}
    swept = (f"seed=range({SEEDS})", f"optimizer.learning_rate={RATES}")
    for number in range(rounds):
        for title, arguments in (
            ("KerasTuner, grid search", ("tests.benchmarks.tuner", str(SEEDS), RATES)),
            ("`python -m mnist_exp -m`, one by one", ("mnist_exp", "-m", *swept)),
        ):
            say(f"32 jobs, round {number + 1} of {rounds}: {title}")
            with tempfile.TemporaryDirectory() as name:
                rows.setdefault(title, []).append(measure(Path(name), "-m", *arguments))
        say(f"32 jobs, round {number + 1} of {rounds}: plain scripts")
        with tempfile.TemporaryDirectory() as name:
            scripts = [measure(Path(name), "-m", "tests.benchmarks.reference") for _ in range(32)]
        total = Measured(sum(script.seconds for script in scripts), max(script.megabytes for script in scripts))
        rows.setdefault("32 plain Keras scripts, no tracking", []).append(total)
        for jobs, seeds in ((1, 1), (8, 2), (32, 8), (128, 32)):
            say(f"{jobs} stacked jobs, round {number + 1} of {rounds}")
            rates = RATES if jobs > 1 else "0.001"
            own = (f"seed=range({seeds})", f"optimizer.learning_rate={rates}")
            with tempfile.TemporaryDirectory() as name:
                stacked = ("mnist_exp", "-m", "hydra/launcher=stacked", *COMPILED, *own)
                rows.setdefault(stacked_title(jobs), []).append(measure(Path(name), "-m", *stacked))
                seconds = sum(run.data.metrics["fit_seconds"] for run in children(Path(name)))
                training.setdefault(jobs, []).append(seconds)
    marginal = [
        (a.seconds - b.seconds - (of_128 - of_32)) / 96
        for a, b, of_128, of_32 in zip(
            rows[stacked_title(128)], rows[stacked_title(32)], training[128], training[32], strict=True
        )
    ]
    print(of_sweeps(rows), "\n")
    print("training alone:", {jobs: round(statistics.median(seconds), 2) for jobs, seconds in training.items()})
    print(f"composing and recording a stacked job: {statistics.median(marginal):.3f} s\n", flush=True)
    return {"rows": plain(rows), "training": training, "composing_and_recording": marginal}


def stacked_title(jobs: int) -> str:
    """The name of a row."""
    return f"`hydra/launcher=stacked`, {jobs} job{'s' if jobs > 1 else ''}"


def of_sweeps(rows: dict[str, list[Measured]]) -> str:
    """Seconds in all and a job, and how many times the throughput of 32 stacked jobs is that of each other way."""
    best = rows[stacked_title(32)]
    lines = []
    for title, measured in rows.items():
        jobs = int(found[1]) if (found := re.search(r", (\d+) job", title)) else 32
        times = statistics.median(a.seconds / b.seconds for a, b in zip(measured, best, strict=True))
        shown = f"{times:.1f}" if jobs == 32 else ""
        lines.append([title, f"{median(measured):.1f}", f"{median(measured) / jobs:.2f}", shown])
    return table(["", "seconds", "seconds a job", "times 32 stacked"], lines)


# What can be asked for, in the order of all of it; each prints its tables and returns what JSON keeps.
PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "run": lambda rounds: show(one_run(rounds)),
    "convolutions": lambda rounds: show(convolutions(min(rounds, 3))),
    "convolutional-sweep": lambda _: show(convolutional_sweep()),
    "start": lambda rounds: show(before_training(rounds)),
    "stages": lambda rounds: stages(min(rounds, 3)),
    "memory": lambda _: jobs_of_a_sweep(),
    "sweeps": lambda rounds: sweeps(min(rounds, 3)),
    "thousand": lambda rounds: show(thousand_jobs(min(rounds, 3))),
    "store": lambda rounds: show(large_store(min(rounds, 3))),
}


def main() -> None:
    """Measure all of it, or the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of the shortest; others three at most (default: 5)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="(default: benchmarks.json)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(PARTS)}")
    processor = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    machine = f"{os.cpu_count()} cores, {processor}, {platform.system()}, Python {platform.python_version()}"
    results: dict[str, Any] = {"machine": machine}
    print(machine, "\n")
    for name in arguments.parts or PARTS:
        results[name] = PARTS[name](arguments.rounds)
        arguments.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
