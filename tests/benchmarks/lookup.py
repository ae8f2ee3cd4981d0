"""How long `resume=true` takes to look a job up: python -m tests.benchmarks.lookup [RUNS]

Fills a store with copies of one real run, 10,000 unless told otherwise, and prints the median and the worst of 50
lookups: of an experiment that has finished, and of one that has not.
"""

import logging
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.tracking.reading import newest_finished
from mnist_exp.tracking.store import connect

_TABLES = {
    "runs": "run_uuid",
    "tags": "run_uuid",
    "params": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
}


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        store = f"tracking.uri=sqlite:///{database}"
        quick = ("dataset.limit=1000", "training.epochs=1", f"hydra.run.dir={folder}/run")
        result = run(*quick, store)
        assert result.run_id is not None
        _copy(database, result.run_id, count - 1)
        tracking = compose([store]).config.tracking
        assert isinstance(tracking, MLflowTracking)
        client, experiment_id = connect(tracking)
        signature = client.get_run(result.run_id).data.tags["mnist_exp.signature"]
        for name, wanted in (("finished", signature), ("not finished", "f" * 64)):
            seconds = []
            for _ in range(50):
                start = time.perf_counter()
                found = newest_finished(client, experiment_id, wanted)
                seconds.append(time.perf_counter() - start)
                assert (found is not None) == (name == "finished")
            median, worst = statistics.median(seconds) * 1000, max(seconds[1:]) * 1000
            print(
                f"{count} runs, {name}: median {median:.1f} ms, worst {worst:.1f} ms, first {seconds[0] * 1000:.1f} ms"
            )


def _copy(database: Path, run_id: str, count: int) -> None:
    """Copies of a run with all its rows, each with a signature of its own."""
    with sqlite3.connect(database) as connection:
        for table, key in _TABLES.items():
            cursor = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run_id,))
            columns = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
            copies = []
            for number in range(count):
                name = uuid.UUID(int=number).hex
                for row in rows:
                    copy = dict(zip(columns, row, strict=True)) | {key: name}
                    if copy.get("key") == "mnist_exp.signature":
                        copy["value"] = name * 2
                    copies.append(tuple(copy.values()))
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


if __name__ == "__main__":
    logging.disable()
    main()
