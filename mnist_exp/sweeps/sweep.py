"""A sweep from start to end: it opens, Hydra runs its jobs, and they are ranked however it ends."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from mnist_exp.config.command_line import StartedSweep
from mnist_exp.config.overrides import quoted
from mnist_exp.config.schema import check, objective_direction
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Sweep, identity, signature
from mnist_exp.learning.backend import choose_backend
from mnist_exp.sweeps import ranking
from mnist_exp.sweeps.jobs import Stage, run_jobs
from mnist_exp.sweeps.progress import Progress
from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.search import check_search_storage, is_search, search_settings
from mnist_exp.sweeps.verdict import on_other_images, verdict
from mnist_exp.tracking.job import Job, job_name, short_names, shown_value
from mnist_exp.tracking.record import SweepRecord, failure_reason
from mnist_exp.tracking.tracker import tracker_of


@contextmanager
def start(sweep: Sweep) -> Iterator[StartedSweep]:
    """Open a sweep, show its progress while the block runs its jobs, and rank them at its end, however it ends.

    Raises:
        InputError: if the store cannot be reached or written.
        SystemExit: with a message, if a job did not finish.
    """
    tracker, stage = tracker_of(sweep.config.tracking), Stage(jobs=sweep.jobs)
    race = None
    if sweep.race is not None:
        race = Race(sweep.race, objective_direction(sweep.config), sweep.folder, stage)
    choose_backend(sweep.config.backend)
    check_search_storage(sweep, tracker)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with tracker.open_sweep(sweep, _signature(sweep)) as record:
        try:
            print(_opening(sweep), flush=True)
            settings = [f"hydra.sweep.dir={quoted(str(sweep.folder))}", *search_settings(sweep, record)]
            groups = [key for key in sweep.swept if "." not in key and key != "seed"]
            if str(sweep.sweeper.get("_target_")).endswith(".BasicSweeper") and len(groups) < 2:
                # Which does not compose each job once more. What two groups choose may not fit each other.
                settings.append("hydra/sweeper=grid")
            ray = sweep.launcher.get("ray")
            if ray is not None and "working_dir" not in (ray["init"].get("runtime_env") or {}):
                # Ray's workers would import what lies in the current folder; with a working directory they do not.
                empty = sweep.folder / ".ray"
                empty.mkdir(exist_ok=True)
                settings.append(f"+hydra.launcher.ray.init.runtime_env.working_dir={quoted(str(empty))}")
            run = partial(run_jobs, record.parent_for_jobs(), stage)
            try:
                with Progress(record, sweep, stage):
                    yield StartedSweep(run, tuple(settings), race)
            except ValueError as error:
                statuses = {job.status for job in record.jobs()}
                if not is_search(sweep) or isinstance(error, InputError) or "FINISHED" in statuses:
                    raise
                if not statuses:
                    raise InputError(f"the search cannot start: {error}") from error
                # Every job failed, and Optuna has no best trial: the ranking says why.
            jobs = _finish(sweep, record, stage, race)
        except BaseException as error:
            _end_early(sweep, record, race, error)
            raise
    if unfinished := _unfinished(sweep, stage, jobs):
        raise SystemExit(
            f"{unfinished} of {stage.jobs} jobs did not finish; the same command with resume=true retries them"
        )


def _opening(sweep: Sweep) -> str:
    """Return the first lines of a sweep: its jobs, and what varies."""
    if sweep.race is None:
        varied = " ".join(f"{key}={values}" for key, values in sweep.swept.items())
        return f"{_number_of_jobs(sweep.jobs)}: {varied or 'no key has several values, such as seed=0,1'}"
    race = sweep.race
    values = {key: dict.fromkeys(shown_value(row[key]) for row in race.values) for key in race.values[0]}
    varied = " ".join(f"{key}={','.join(shown)}" for key, shown in values.items())
    first = f"A race of {len(race.values)}, {race.seeds} seeds each at first, at most {race.max_jobs} jobs: {varied}"
    return "\n".join(map(printable, [first, *race.notes]))


def _signature(sweep: Sweep) -> str:
    """Return what two sweeps share if they are the same: the identity of the first job, and what varies how."""
    how: list[Any] = [sweep.sweeper.get("_target_"), (sweep.sweeper.get("sampler") or {}).get("_target_")]
    if (race := sweep.race) is not None:
        how.append([race.values, race.seeds, race.indifference, sorted(race.seen)])
    return signature([identity(sweep.config), sweep.swept, how])


def _end_early(sweep: Sweep, record: SweepRecord, race: Race | None, error: BaseException) -> None:
    """Rank what finished before Ctrl-C, SIGTERM or an error of a launcher."""
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    try:
        record.stop(status)  # which jobs elsewhere look at
        record.close_jobs()
        _rank(sweep, record, record.jobs(), race)
        record.end(status)
        print(record.describe())
    except Exception as second:  # the first error is the one to show
        print(f"The sweep could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
    print(f"The sweep is {status}; the same command with resume=true continues it", file=sys.stderr)


def _finish(sweep: Sweep, record: SweepRecord, stage: Stage, race: Race | None) -> list[Job]:
    record.close_jobs()
    # A search does not go back to what was killed before it was resumed.
    jobs = [job for job in record.jobs() if job.status != "KILLED" or not is_search(sweep)]
    rows = _rank(sweep, record, jobs, race)
    best = ranking.best_job(rows, objective_direction(sweep.config))
    if best is not None:
        if text := on_other_images(rows[0], record.test_images(best)):
            print(text)
        _draw(sweep, record, rows)
        record.log_best(best, sweep.config.objective)
        _complete_best(sweep, record, best)
        if record.has_model(best) and (text := record.register(best)):
            print(printable(text))
    record.end("FAILED" if _unfinished(sweep, stage, jobs) else "FINISHED")
    print(record.describe())
    return jobs


def _unfinished(sweep: Sweep, stage: Stage, jobs: Sequence[Job]) -> int:
    """Return how many jobs did not finish. A search may draw a point again, and does not go back to a killed one."""
    failed = sum(job.status in {"FAILED", "RUNNING"} for job in jobs)
    if sweep.race is not None:  # which has all jobs that it will have
        return sum(job.status != "FINISHED" for job in jobs)
    return failed if is_search(sweep) else stage.jobs - sum(job.status == "FINISHED" for job in jobs)


def _rank(sweep: Sweep, record: SweepRecord, jobs: Sequence[Job], race: Race | None) -> list[ranking.Row]:
    """Print the ranking and write ranking.csv; return the rows."""
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    rows = ranking.rank(jobs, direction)
    rest, raced = ranking.unranked(jobs), None
    if race is not None and race.rounds:
        rows = race.standing(rows)
        raced = race.correction()
    (sweep.folder / "ranking.csv").write_text(ranking.to_csv(rows, rest, objective, direction, raced))
    print(_title(len(jobs), sum(job.pruned is not None for job in jobs), sweep, direction))
    print(ranking.table(rows, rest, objective, raced=raced))
    if is_search(sweep):
        print(
            "Each row of a search is a single run, and the best of many is lucky too; with other seeds: "
            f"-m sweep=race hydra.sweeper.of={record.parent.run_id or 'SWEEP_ID'}"
        )
    elif not rows and any(job.pruned is not None for job in jobs):
        print("Each job was pruned; a milder rule lets some come to their end, as do resume=true and no prune.")
    elif text := verdict(rows, tuple(sweep.swept), direction, raced):
        print(text)
    if race is not None and race.rounds:
        print(race.ending())
    return rows


def _title(jobs: int, pruned: int, sweep: Sweep, direction: str) -> str:
    """Return what a ranking is by, and whether the choice rests on the test set."""
    objective = sweep.config.objective
    stopped = f", {pruned} of them pruned" if pruned else ""
    text = f"\n{_number_of_jobs(jobs)}{stopped}, {ranking.order(objective, direction)}"
    if objective.startswith("test_"):
        return (
            f"{text}, MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy dataset.validation=10000"
        )
    if objective.startswith("val_") and sweep.watches_test_set:
        return f"{text}, MEASURED ON THE TEST SET: to hold images out instead, dataset.validation=10000"
    return text


def _number_of_jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _draw(sweep: Sweep, record: SweepRecord, rows: Sequence[ranking.Row]) -> None:
    from mnist_exp import figures
    from mnist_exp.sweeps.figures import objective_by_parameter

    objective = sweep.config.objective
    metric = objective.replace("test_", "val_", 1)
    names = short_names(sweep.swept)
    curves = {
        job_name(job.values, sweep.swept) or "the job": record.curve(job, metric) for row in rows for job in row.jobs
    }
    drawn = {"curves": figures.validation_curves(curves, metric)}
    jobs = [job for row in rows for job in row.jobs]
    measured = [({names[key]: value for key, value in job.values.items()}, job.objective or 0.0) for job in jobs]
    if any(values for values, _ in measured):
        drawn["objective"] = objective_by_parameter(measured, objective)
    figures.save(drawn, sweep.folder / "figures")


def _complete_best(sweep: Sweep, record: SweepRecord, best: Job) -> None:
    """Make the figures and the logged model of the best job, where `tracking.keep=best` left them out."""
    if record.has_model(best):
        return
    folder = record.folder_of(best)
    if folder is None:
        where = printable(f"on {best.host} in {best.output}")
        print(
            f"The best job's weights are {where}, which cannot be read here, so its figures and model are missing; "
            "tracking.keep=all lets each job make its own"
        )
        return
    from mnist_exp.runner import complete

    values = OmegaConf.to_container(OmegaConf.load(folder.path / "config.yaml"))
    assert isinstance(values, dict)
    config = check({str(key): value for key, value in values.items()}, sweep.config.code)
    record.log_model(best, *complete(folder.path, config))
