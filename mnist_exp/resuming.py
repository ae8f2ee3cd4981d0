"""What `resume=true` makes of an experiment: it has finished, goes on, or starts."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Experiment, Result
from mnist_exp.learning import datasets
from mnist_exp.runner import identify, run_experiment
from mnist_exp.tracking import index, locks
from mnist_exp.tracking.differences import why_not_continued
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Folder, Record, from_here
from mnist_exp.tracking.job import Job
from mnist_exp.tracking.job_folders import id_in_store, job_in
from mnist_exp.tracking.mlflow_tracker import tracker_of
from mnist_exp.tracking.record import TakenError


def finish(experiment: Experiment) -> Result | Job:
    """Run an experiment to its end; with `resume`, return the run that has finished it, if any, or go on with one.

    Raises:
        InputError: as `run_experiment` does.
    """
    while True:
        found = resumed(experiment) if experiment.config.resume else experiment
        if isinstance(found, Job) or found.output != experiment.output:
            _remove_unused(experiment.output)
        if isinstance(found, Job):
            return found
        try:
            return run_experiment(found)
        except TakenError:
            continue
        except InputError:
            _remove_unused(found.output)
            raise


def load(job: Job, experiment: Experiment) -> Result | None:
    """Return what a finished run of an experiment gave, or None if its files cannot be read here."""
    from mnist_exp.learning import saved_models

    config = experiment.config
    key, signature = identify(config)
    for folder in map(Folder, [Path(job.output), *index.find(key)]):  # it may have been moved with all others
        if folder.has_weights():
            record = folder.read()
            if record.status == "FINISHED" and record.tags.get("mnist_exp.signature") == signature:
                scores = dict(record.scores)
                objective = scores.pop("objective")
                model = saved_models.load(folder.path / "model.keras", config.code, folder.path)
                return Result(folder.history(), scores, objective, model, job.run_id or None, config, folder.path)
    return None


def resumed(experiment: Experiment) -> Experiment | Job:
    """Return the run that has finished an experiment, or the experiment in the folder of the run that goes on, if any.

    What still runs is waited for.
    """
    key, signature = identify(experiment.config)
    if not signature:  # the data cannot be read, as the run says
        return experiment
    tracker = tracker_of(experiment.config.tracking)
    if (job := tracker.finished(signature)) is not None:
        return job
    while True:
        known = list(_runs(key, tracker.tracking))
        same = [(folder, record) for folder, record in known if record.tags["mnist_exp.signature"] == signature]
        for folder, record in same:
            if record.status == "FINISHED" and job_in(folder.path / "run.json").is_whole:
                if said := tracker.send_rest(folder):
                    _print(experiment, said)
                return job_in(folder.path / "run.json")
        running = [one for one in same if one[1].status == "RUNNING" and locks.is_alive(*one)]
        if not running:
            break
        locks.wait_for(running[0][0], partial(_print, experiment, _still_trains(*running[0])))
    interrupted = [one for one in known if "mnist_exp.swept" not in one[1].tags and locks.is_interrupted(one[0])]
    interrupted.sort(key=lambda one: not (one[0].path / "checkpoint.npz").exists())
    today = run_record(experiment, 1, None, {})
    for folder, record in interrupted:
        if (folder, record) in same and record.tags.get("mnist_exp.threads") == today.tags["mnist_exp.threads"]:
            _print(experiment, f"{_name(folder)} was interrupted, and goes on")
            return replace(experiment, output=folder.path, resumes=True)
    if interrupted:
        folder, record = interrupted[0]
        _print(experiment, why_not_continued(_name(folder), record, today))
        return experiment
    with suppress(InputError):  # another run of the store is damaged
        if why := tracker.why_not(experiment, datasets.load(experiment.config.dataset).digest):
            _print(experiment, f"Not finished before: {why}")
    return experiment


def _runs(key: str, tracking: Mapping[str, str]) -> Iterator[tuple[Folder, Record]]:
    """Yield the runs with a key, the newest first, that are in the same store and MLflow experiment, if in any."""
    for folder in map(Folder, index.find(key)):
        record = folder.read()
        if record.is_in(tracking) and "mnist_exp.signature" in record.tags:
            yield folder, record


def _name(folder: Folder) -> str:
    """Return what a run is called: by its id in a store, or else by its folder."""
    return f"run {id_in_store(folder.path) or from_here(folder.path)}"


def _still_trains(folder: Folder, record: Record) -> str:
    process, host = (record.tags.get(f"mnist_exp.{key}") for key in ("process", "host"))
    return f"{_name(folder)} still trains, in process {process} on {host}; waiting for it"


def _print(experiment: Experiment, text: str) -> None:
    if experiment.prints:
        print(printable(f"{text[0].upper()}{text[1:]}"), flush=True)


def _remove_unused(output: Path) -> None:
    """Remove a new output folder that no run needs, unless something is in it."""
    with suppress(OSError):
        output.rmdir()
