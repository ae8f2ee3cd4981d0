"""What a command left behind: whether its folders and its store have each run, and each metric, once."""

import math
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import h5py
from mlflow import MlflowClient

from mnist_exp.config.files import CHECKPOINT
from mnist_exp.tracking.folder import Folder

from ..conftest import artifacts

Point = tuple[str, int]  # a metric and its step
Found = dict[str, list[str]]  # lines about what is wrong, by the names of a Row's counts
THE_SWEEP = "the sweep"
FIGURES = ("classes", "confusion_matrix", "curves", "mistakes", "predictions")  # without mistakes, one less


@dataclass(frozen=True)
class Run:
    """A run as a folder or a store has it; `job` has the values that vary, "" for a single run, or is THE_SWEEP.

    `parts`: what else there is of it, which the store is to have too: parameters, data, the names of files, a model.
    """

    id: str
    job: str
    status: str
    points: list[tuple[Point, float]]
    parts: frozenset[str]
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
    places = [Folder(path.parent) for path in outputs(folder, "run.json")]
    records = {place: place.read() for place in places}
    best = {(place.path / record.best).resolve() for place, record in records.items() if record.best}
    found = []
    for place, record in records.items():
        job = _job(record.tags)
        points = [
            ((name, line["step"]), value) for line in place.read_metrics() for name, value in line["metrics"].items()
        ]
        parts = {f"{key}={value}" for key, value in record.parameters.items()} | ({"data"} if record.data else set())
        if record.status != "RUNNING":
            parts |= {name for name in record.sent_files() if (place.path / name).is_file()} - {"code.patch"}
        if record.status == "FINISHED" and (not job or place.path.resolve() in best):
            parts |= {"a model", *(f"figures/{name}.png" for name in FIGURES)}
        found.append(Run(record.id, job, record.status, points, frozenset(parts), place.path, record.start))
    return sorted(found, key=lambda run: (run.start, run.files))


def experiment_id(client: MlflowClient, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return found.experiment_id


def runs_of_store(client: MlflowClient, experiment: str = "mnist_exp") -> list[Run]:
    """Return all runs of an experiment, the oldest first; none if there is no such experiment."""
    found = []
    if (known := client.get_experiment_by_name(experiment)) is None:
        return []
    for run in client.search_runs([known.experiment_id], max_results=1000, order_by=["attributes.start_time"]):
        tags, info = run.data.tags, run.info
        histories = {name: client.get_metric_history(info.run_id, name) for name in run.data.metrics}
        points = [((name, point.step), point.value) for name, history in histories.items() for point in history]
        parts = {f"{key}={value}" for key, value in run.data.params.items()} | artifacts(client, info.run_id)
        if run.inputs is not None and run.inputs.dataset_inputs:
            parts.add("data")
        if run.outputs is not None and run.outputs.model_outputs:
            parts.add("a model")
        files, folder_id = Path(info.artifact_uri.removeprefix("file://")), tags.get("mnist_exp.folder", "")
        status, start = info.status, info.start_time
        found.append(Run(folder_id, _job(tags), status, points, frozenset(parts), files, start, info.run_id))
    return found


def _job(tags: Mapping[str, str]) -> str:
    return THE_SWEEP if "mnist_exp.sweep" in tags else tags.get("mnist_exp.swept", "")


def left(folder: Path, jobs: int | None, client: MlflowClient | None, experiment: str = "mnist_exp") -> Found:
    """Return what is wrong with what commands left below a folder, and in a store, if any, that nobody else used.

    `jobs` is how many jobs the command has if it is a sweep, or 0 for a single run, all of which must have FINISHED;
    None for commands of which some may have failed.
    """
    found: Found = defaultdict(list)
    folders = runs_of_folders(folder)
    if jobs is not None:
        _count_runs("folders", folders, jobs, found)
    for run in folders:
        if run.status == "RUNNING":
            found["running"].append(f"{run.job or 'the run'} in {run.files}")
        if run.status == "FINISHED" and run.job != THE_SWEEP:
            _count_steps(run, found)
            found["wrong"] += [f"{path} is left" for path in run.files.glob(CHECKPOINT)]
    if client is not None:
        stored = runs_of_store(client, experiment)
        if jobs is not None:
            _count_runs("store", stored, jobs, found)
        _compare_with_store(folders, stored, found)
        for count, lines in open_in_store(client, experiment).items():
            found[count] += lines
    return dict(found)


def open_in_store(client: MlflowClient, experiment: str) -> Found:
    """Return what is RUNNING or PENDING in a store, and logged models that a run has twice."""
    known = client.get_experiment_by_name(experiment)
    models = client.search_logged_models([known.experiment_id]) if known else []
    of_runs = Counter(model.source_run_id for model in models)
    return {
        "running": [f"store: {run.run_id}" for run in runs_of_store(client, experiment) if run.status == "RUNNING"],
        "pending": [f"a logged model is {model.status}" for model in models if model.status != "READY"],
        "twice": [f"run {run_id} has {count} logged models" for run_id, count in of_runs.items() if count > 1],
    }


def _count_runs(place: str, runs: Sequence[Run], jobs: int, found: Found) -> None:
    """Count jobs that no run has finished, and those that have several runs."""
    by_job: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.status == "FINISHED"):
        by_job[run.job][run.id] = run
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


def finished_once(folder: Path, jobs: int) -> Found:
    """Return which of so many jobs have not FINISHED, or several times; tries that were KILLED do not count."""
    runs = [run for run in runs_of_folders(folder) if run.status == "FINISHED"]
    times = Counter(run.job for run in runs if run.job != THE_SWEEP)
    lost = [f"{jobs - len(times)} of {jobs} jobs"] if len(times) < jobs else []
    return {"lost": lost, "twice": [f"{job} has finished {count} times" for job, count in times.items() if count > 1]}


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
    """Count what the store lacks of the last folder of each run, has twice, or has otherwise."""
    mirrors: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(stored, key=lambda run: run.status != "FINISHED"):
        mirrors[run.id].append(run)
    for run in {run.id: run for run in folders}.values():
        name = run.job or "the run"
        if not (in_store := mirrors.pop(run.id, [])):
            found["lost"].append(f"store: {name} of {run.files}")
            continue
        found["twice"] += [f"store: {name} is there again, as {other.run_id}" for other in in_store[1:]]
        other = in_store[0]
        if other.status != run.status:
            found["wrong"].append(f"store: {name} is {other.status}, and {run.status} in {run.files}")
        there = Counter(point for point, _ in other.points)
        found["twice"] += [f"store: {name}, {point}" for point, count in there.items() for _ in range(count - 1)]
        here, values = dict(run.points), dict(other.points)
        found["lost"] += [f"store: {name}, {point}" for point in here.keys() - there.keys()]
        found["lost"] += [f"store: {part} of {name}" for part in run.parts - other.parts]
        found["wrong"] += [f"store: {name}, {point}, which no folder has" for point in there.keys() - here.keys()]
        found["wrong"] += [
            f"store: {name}, {point} is {values[point]}, and {here[point]} in {run.files}"
            for point in here.keys() & values.keys()
            if not equal(here[point], values[point])
        ]
    found["twice"] += [f"store: {run.run_id}, of which no folder is here" for runs in mirrors.values() for run in runs]


def equal(one: float, other: float) -> bool:
    """Return whether two numbers are the same to the last digit, or both NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def differences(folder: Path, reference: Path) -> list[str]:
    """Return in what the finished runs below a folder differ from those of the same jobs in another.

    Their metrics, but for times, and the weights of their models must be the same to the last digit.
    """
    ours, theirs = (
        {run.job: run for run in runs_of_folders(path) if run.status == "FINISHED" and run.job != THE_SWEEP}
        for path in (folder, reference)
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
