"""A thousand jobs, and a store of ten thousand runs."""

import re
import signal
import sqlite3
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from tests.benchmarks.measuring import COMPILED, ENVIRONMENT, PYTHON, RATES, Measured, measure, say

_PICTURE = Path(__file__).parents[2] / "docs" / "seven.png"
_SCRIPT = ("-m", "tests.benchmarks.reference")
_TABLES = {
    "runs": "run_uuid",
    "tags": "run_uuid",
    "params": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
}


def thousand_jobs(rounds: int) -> dict[str, list[Measured]]:
    """A thousand jobs as stacks, and the first of a thousand one by one, against a script."""
    rows: dict[str, list[Measured]] = {}
    for number in range(rounds):
        say(f"1,000 jobs, round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory() as name:
            rows.setdefault("plain Keras script", []).append(measure(Path(name), *_SCRIPT))
            swept = ("seed=range(250)", f"optimizer.learning_rate={RATES}")
            stacked = ("mnist_exp", "-m", "hydra/launcher=stacked", *COMPILED, *swept)
            rows.setdefault("1,000 jobs, stacked", []).append(measure(Path(name), "-m", *stacked))
        with tempfile.TemporaryDirectory() as name:
            rows.setdefault("the first of 1,000, one by one", []).append(_first_of_a_thousand(Path(name)))
    return rows


def _first_of_a_thousand(folder: Path) -> Measured:
    """Start a thousand jobs, and stop them when the first has ended."""
    command = [PYTHON, "-u", "-m", "mnist_exp", "-m", "seed=range(1000)"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.startswith("1 of 1000 done") for line in process.stdout)
    seconds = time.perf_counter() - start
    status = Path(f"/proc/{process.pid}/status").read_text()
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    process.wait()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    return Measured(seconds, int(peak[1]) / 1024)


def large_store(rounds: int, runs: int = 10_000) -> dict[str, list[Measured]]:
    """Commands that read a store of copies of one short run, against a script."""
    rows: dict[str, list[Measured]] = {}
    quick = ("mnist_exp", "dataset.limit=1000", "training.epochs=1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(folder, "-m", *quick)
        run_id = _fill(folder / "mlflow.db", runs)
        for number in range(rounds):
            say(f"{runs} runs in the store, round {number + 1} of {rounds}")
            for title, arguments in (
                ("plain Keras script", _SCRIPT),
                ("`compare --last 10`", ("-m", "mnist_exp.compare", "--last", "10")),
                ("`compare`, of all", ("-m", "mnist_exp.compare")),
                ("`resume=true`, of what has finished", ("-m", *quick, "resume=true")),
                ("`predict RUN_ID docs/seven.png`", ("-m", "mnist_exp.predict", run_id, str(_PICTURE))),
            ):
                rows.setdefault(title, []).append(measure(folder, *arguments))
    return rows


def _fill(database: Path, runs: int) -> str:
    """Copy the one run in a store with all its rows, as four seeds of each of many widths, and return the run's id."""
    with sqlite3.connect(database) as connection:
        ((run_id,),) = connection.execute("SELECT run_uuid FROM runs").fetchall()
        for table, key in _TABLES.items():
            cursor = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run_id,))
            columns = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
            copies = []
            for number in range(runs - 1):
                name = uuid.UUID(int=number).hex
                own = {"model.hidden": number // 4 + 1, "seed": number % 4, "mnist_exp.signature": name * 2}
                for row in rows:
                    copy = dict(zip(columns, row, strict=True)) | {key: name}
                    if copy.get("key") in own:
                        copy["value"] = str(own[copy["key"]])
                    copies.append(tuple(copy.values()))
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)
    return str(run_id)
