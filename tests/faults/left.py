"""What a command left behind: whether its folders and its store have each run, and each metric, once."""

import json
import math
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import h5py
from mlflow import MlflowClient

Point = tuple[str, int]  # a metric and its step
Found = dict[str, list[str]]  # lines about what is wrong, by the names of a Row's counts
THE_SWEEP = "the sweep"


@dataclass(frozen=True)
class Run:
    """A run as a folder or a store has it; `job` has the values that vary, "" for a single run, or is THE_SWEEP."""

    id: str
    job: str
    status: str
    points: list[tuple[Point, float]]
    files: Path
    start: int
    run_id: str = ""  # the store's


def outputs(folder: Path, name: str) -> list[Path]:
    """Return the files of a name in the output folders of runs, sweeps and jobs, some of which may run."""
    return [
        path for place in ("outputs/*/*", "multirun/*/*", "multirun/*/*/*") for path in folder.glob(f"{place}/{name}")
    ]


def runs_of_folders(folder: Path) -> list[Run]:
    """Return what all run.json and metrics.jsonl below a folder say, the oldest first."""
    found = []
    for path in outputs(folder, "run.json"):
        record, metrics = json.loads(path.read_text()), path.with_name("metrics.jsonl")
        lines = map(json.loads, metrics.read_text().splitlines() if metrics.exists() else [])
        points = [((name, line["step"]), value) for line in lines for name, value in line["metrics"].items()]
        found.append(Run(record["id"], _job(record["tags"]), record["status"], points, path.parent, record["start"]))
    return sorted(found, key=lambda run: (run.start, run.files))


def experiment_id(client: MlflowClient, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return found.experiment_id


def runs_of_store(client: MlflowClient, experiment: str = "mnist_exp") -> list[Run]:
    """Return all runs of an experiment, the oldest first."""
    found = []
    for run in client.search_runs([experiment_id(client, experiment)], order_by=["attributes.start_time"]):
        tags, info = run.data.tags, run.info
        histories = {name: client.get_metric_history(info.run_id, name) for name in run.data.metrics}
        points = [((name, one.step), one.value) for name, history in histories.items() for one in history]
        files = Path(info.artifact_uri.removeprefix("file://"))
        folder_id = tags.get("mnist_exp.folder", "")
        found.append(Run(folder_id, _job(tags), info.status, points, files, info.start_time, info.run_id))
    return found


def _job(tags: Mapping[str, str]) -> str:
    return THE_SWEEP if "mnist_exp.sweep" in tags else tags.get("mnist_exp.swept", "")


def left(folder: Path, jobs: int, client: MlflowClient | None, experiment: str = "mnist_exp") -> Found:
    """Return what is wrong with what a command left below a folder, and in a store, if any, that nobody else used.

    `jobs` is how many jobs the command has if it is a sweep, or 0 for a single run. All must have FINISHED.
    """
    found: Found = defaultdict(list)
    folders = runs_of_folders(folder)
    places = {"folders": folders}
    if client is not None:
        places["store"] = runs_of_store(client, experiment)
    for place, runs in places.items():
        _count_runs(place, runs, jobs, found)
    for run in folders:
        if run.status == "FINISHED" and run.job != THE_SWEEP:
            _count_steps(run, found)
    if client is not None:
        _compare_with_store(folders, places["store"], found)
        models = client.search_logged_models([experiment_id(client, experiment)])
        found["pending"] += [f"a logged model is {one.status}" for one in models if one.status != "READY"]
        for run_id, count in Counter(one.source_run_id for one in models).items():
            found["twice"] += [f"run {run_id} has {count} logged models"] * (count - 1)
    return dict(found)


def _count_runs(place: str, runs: Sequence[Run], jobs: int, found: Found) -> None:
    """Count jobs that no run has finished, those that have several runs, and runs that are RUNNING."""
    by_job: dict[str, dict[tuple[str, str], Run]] = defaultdict(dict)
    for run in runs:
        by_job[run.job][run.id, run.run_id] = (
            run  # a sweep that was continued has several folders, the last of which counts
        )
        if run.status == "RUNNING":
            found["running"].append(f"{place}: {run.job or 'the run'} in {run.files}")
    sweeps = by_job.pop(THE_SWEEP, {})
    if jobs:
        by_job.pop("", None)
        by_job |= {THE_SWEEP: sweeps} | {f"job {number}": {} for number in range(len(by_job), jobs)}
    elif not by_job:
        by_job[""] = {}
    for job, tries in by_job.items():
        statuses = [run.status for run in tries.values()]
        if "FINISHED" not in statuses:
            found["lost"].append(f"{place}: {job or 'the run'} is {' and '.join(statuses) or 'not there'}")
        found["twice"] += [f"{place}: {job or 'the run'} is {' and '.join(statuses)}"] * (len(statuses) - 1)
    finished = len({run.job for run in runs if run.status == "FINISHED"} - {THE_SWEEP, ""})
    found["twice"] += [f"{place}: {finished} jobs instead of {jobs}"] * (finished - jobs)


def _count_steps(run: Run, found: Found) -> None:
    """Count steps of a finished run's metrics in its folder that are not there, or there twice."""
    for (name, step), count in Counter(point for point, _ in run.points).items():
        found["twice"] += [f"{run.files}: {name} of step {step}"] * (count - 1)
    points = {point for point, _ in run.points}
    last, measured = max((step for _, step in points), default=0), {name for name, step in points if step > 0}
    missing = {(name, step) for name in measured for step in range(1, last + 1)} - points
    missing |= {(name, 0) for name in ("test_loss", "objective")} - points
    found["lost"] += [f"{run.files}: {name} of step {step}" for name, step in sorted(missing)]


def _compare_with_store(folders: Iterable[Run], stored: Iterable[Run], found: Found) -> None:
    """Count what the store lacks of the last finished folder of each run, has twice, or has otherwise."""
    in_store = {run.id: run for run in sorted(stored, key=lambda run: run.status == "FINISHED")}
    for run in {run.id: run for run in folders if run.status == "FINISHED"}.values():
        name = run.job or "the run"
        if (other := in_store.get(run.id)) is None:
            found["lost"].append(f"store: {name} of {run.files}")
            continue
        if other.status != "FINISHED":
            found["wrong"].append(f"store: {name} is {other.status}, and FINISHED in {run.files}")
        there = Counter(point for point, _ in other.points)
        found["twice"] += [f"store: {name}, {point}" for point, count in there.items() for _ in range(count - 1)]
        here, values = dict(run.points), dict(other.points)
        found["lost"] += [f"store: {name}, {point}" for point in here.keys() - there.keys()]
        found["wrong"] += [f"store: {name}, {point}, which no folder has" for point in there.keys() - here.keys()]
        found["wrong"] += [
            f"store: {name}, {point} is {values[point]}, and {here[point]} in {run.files}"
            for point in here.keys() & values.keys()
            if not equal(here[point], values[point])
        ]


def equal(one: float, other: float) -> bool:
    """Return whether two numbers are the same to the last digit, or both NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def differences(folder: Path, reference: Path) -> list[str]:
    """Return in what the finished runs below a folder differ from those of the same jobs in another.

    Their metrics, but for times, and the weights of their models must be the same to the last digit.
    """
    ours, theirs = (
        {run.job: run for run in runs_of_folders(one) if run.status == "FINISHED" and run.job != THE_SWEEP}
        for one in (folder, reference)
    )
    found = []
    for job in ours.keys() & theirs.keys():
        mine, other = dict(ours[job].points), dict(theirs[job].points)
        for name, step in sorted(mine.keys() | other.keys()):
            value, wanted = (points.get((name, step), math.inf) for points in (mine, other))
            if name != "fit_seconds" and not equal(value, wanted):
                found.append(f"{job or 'the run'}: {name} of step {step} is {value} instead of {wanted}")
        arrays, wanted_arrays = (weights(runs[job].files / "model.keras") for runs in (ours, theirs))
        if not arrays or arrays != wanted_arrays:
            found.append(f"{job or 'the run'}: the weights differ")
    return found


def weights(model: Path) -> dict[str, bytes]:
    """Return the bytes of each array of a model, by its place; none of a model that is not there."""
    found: dict[str, bytes] = {}
    if not model.exists():
        return found
    with zipfile.ZipFile(model) as archive, h5py.File(BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, one: found.update({name: one[()].tobytes()}) if isinstance(one, h5py.Dataset) else None
        )
    return found
