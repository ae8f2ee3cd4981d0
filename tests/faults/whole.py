"""Compare what output folders record with what a store has of them."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from mnist_exp.tracking.folder import Folder, Measured, Record

from ..conftest import artifacts
from .table import Row


@dataclass
class Lacks:
    """What is lost, there twice, left open or wrong, as `Row` counts it, with a line for each.

    >>> lacks = Lacks()
    >>> lacks.add("lost", "no run", 3)
    >>> lacks.row("outages").lost
    3
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, note: str, number: int = 1) -> None:
        """Count so many, unless there are none."""
        if number:
            self.counts[what] += int(number)
            self.notes.append(f"{what} {int(number)}: {note}")

    def row(self, what: str, *notes: str) -> Row:
        """Return the row of one try."""
        return Row(what, **self.counts, notes=(*notes, *self.notes))


def records(folder: Path) -> list[tuple[Folder, Record]]:
    """Return all runs and sweeps below `outputs` and `multirun`, each once, though a resumed sweep has two folders."""
    found: dict[str, tuple[Folder, Record]] = {}
    paths = [path for name in ("outputs", "multirun") for path in (folder / name).rglob("run.json")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        record = Folder(path.parent).read()
        found[record.id] = (Folder(path.parent), record)
    return list(found.values())


def compare(folder: Path, client: MlflowClient, experiment: str, lacks: Lacks, jobs: int = 0) -> None:
    """Count what of the folders the store lacks, or has twice, and what is open; `jobs` are a sweep's."""
    known = client.get_experiment_by_name(experiment)
    stored = list(client.search_runs([known.experiment_id], max_results=1000)) if known else []
    mirrored: dict[str, list[Run]] = {}
    for run in stored:
        mirrored.setdefault(run.data.tags.get("mnist_exp.folder", ""), []).append(run)
    best = {record.tags.get("mnist_exp.best_run") for _, record in records(folder)}
    for place, record in records(folder):
        lacks.add("running", f"{record.name} in {place.path}", record.status == "RUNNING")
        found = mirrored.pop(record.id, [])
        lines = _of_the_folder(place, lacks)
        if not found:
            lacks.add("lost", f"{record.name} has no run", 1 + len(lines))
            continue
        lacks.add("twice", f"{record.name} has several runs", len(found) - 1)
        _compare_run(client, found[0], place, record, lines, lacks)
        alone = "mlflow.parentRunId" not in record.tags and "mnist_exp.sweep" not in record.tags
        if record.status == "FINISHED" and (alone or found[0].info.run_id in best):
            models = found[0].outputs.model_outputs if found[0].outputs is not None else []
            lacks.add("lost", f"the model of {record.name}", not models)
            lacks.add("twice", f"models of {record.name}", max(len(models) - 1, 0))
    for runs in mirrored.values():
        lacks.add("twice", f"{len(runs)} runs of the store have no folder", len(runs))
    count_open(client, experiment, lacks)
    if jobs:
        _compare_jobs((record for _, record in records(folder)), jobs, lacks)


def count_open(client: MlflowClient, experiment: str, lacks: Lacks) -> None:
    """Count what is RUNNING or PENDING in the store, and models that a run has twice."""
    if (known := client.get_experiment_by_name(experiment)) is None:
        return
    stored = client.search_runs([known.experiment_id], max_results=1000)
    lacks.add("running", "runs of the store", sum(run.info.status == "RUNNING" for run in stored))
    models = client.search_logged_models([known.experiment_id])
    lacks.add("pending", "logged models", sum(model.status != "READY" for model in models))
    sources = Counter(model.source_run_id for model in models)
    lacks.add("twice", "logged models of a run", sum(number - 1 for number in sources.values()))


def _of_the_folder(place: Folder, lacks: Lacks) -> dict[tuple[str, int], Measured]:
    """Return the line for each metric and step."""
    lines: dict[tuple[str, int], Measured] = {}
    for line in place.measured()[0]:
        for name in line.metrics:
            lacks.add("twice", f"{name} of step {line.step} in {place.path}", (name, line.step) in lines)
            lines[name, line.step] = line
    return lines


def _compare_run(
    client: MlflowClient,
    run: Run,
    place: Folder,
    record: Record,
    lines: dict[tuple[str, int], Measured],
    lacks: Lacks,
) -> None:
    name = record.name
    points: dict[tuple[str, int], list[float]] = {}
    for metric in {metric for metric, _ in lines} | run.data.metrics.keys():
        for point in client.get_metric_history(run.info.run_id, metric):
            points.setdefault((metric, point.step), []).append(point.value)
    lacks.add("lost", f"metrics of {name}", len(lines.keys() - points.keys()))
    lacks.add("twice", f"metrics of {name}", sum(len(values) - 1 for values in points.values()))
    lacks.add("wrong", f"metrics of {name} that no folder has", len(points.keys() - lines.keys()))
    differ = [key for key in lines.keys() & points.keys() if not _equal(lines[key].metrics[key[0]], points[key][0])]
    lacks.add("wrong", f"values of {name}", len(differ))
    lacks.add("lost", f"parameters of {name}", len(record.parameters.items() - run.data.params.items()))
    lacks.add("lost", f"the data of {name}", record.data is not None and not (run.inputs and run.inputs.dataset_inputs))
    if run.info.status not in (record.status, "RUNNING"):
        lacks.add("wrong", f"{name} is {record.status}, in the store {run.info.status}")
    base = place.path
    files = {path.relative_to(base).as_posix() for path in place.files()} - {"code.patch"}
    if record.status != "RUNNING":
        missing = files - artifacts(client, run.info.run_id)
        lacks.add("lost", f"files of {name}: {' '.join(sorted(missing))}", len(missing))


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _compare_jobs(found: Iterable[Record], jobs: int, lacks: Lacks) -> None:
    """Count the jobs of a sweep that did not finish, and those that finished twice."""
    finished = Counter(
        json.dumps(record.tags["mnist_exp.swept"])
        for record in found
        if "mnist_exp.swept" in record.tags and record.status == "FINISHED"
    )
    lacks.add("lost", f"of {jobs} jobs", max(jobs - len(finished), 0))
    lacks.add("twice", "jobs that finished", sum(number - 1 for number in finished.values()))
