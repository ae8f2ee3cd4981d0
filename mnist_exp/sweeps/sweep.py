"""A sweep from start to end: it opens, Hydra runs its jobs, and they are ranked however it ends."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mnist_exp.config.command_line import StartedSweep
from mnist_exp.config.overrides import quoted
from mnist_exp.config.presets import parse_values
from mnist_exp.config.schema import check, objective_direction
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Sweep, SweepResult, identity, signature
from mnist_exp.learning.engine import choose_backend
from mnist_exp.sweeps.curves import Curve, curve_of
from mnist_exp.sweeps.differences import find_differences
from mnist_exp.sweeps.formats import as_csv, counted
from mnist_exp.sweeps.jobs import Stage, run_jobs
from mnist_exp.sweeps.outcome import explained, rank_jobs
from mnist_exp.sweeps.progress import Progress
from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.report import write_report
from mnist_exp.sweeps.search import check_search_storage, is_search, search_settings
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.job import Job, short_names, shown_value
from mnist_exp.tracking.record import SweepRecord, failure_reason
from mnist_exp.tracking.tracker import tracker_of


@contextmanager
def start(sweep: Sweep, done: Callable[[SweepResult], None]) -> Iterator[StartedSweep]:
    """Open a sweep, show its progress while the block runs its jobs, and rank them at its end, however it ends.

    Args:
        sweep: what to run.
        done: called with the result, once all is recorded; not after Ctrl-C, SIGTERM or an error of a launcher.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    stage = Stage(jobs=sweep.jobs)
    direction = objective_direction(sweep.config)
    race = Race(sweep.race, direction, sweep.folder, stage) if sweep.race is not None else None
    choose_backend(sweep.config.backend)
    check_search_storage(sweep)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with tracker_of(sweep.config.tracking).open_sweep(sweep, _signature(sweep)) as record:
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
            run = partial(run_jobs, record.parent, stage)
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
            result = _finish(sweep, record, stage, race)
        except BaseException as error:
            _end_early(sweep, record, race, error)
            raise
    done(result)


def _opening(sweep: Sweep) -> str:
    """Return the first lines of a sweep: its jobs, and what varies."""
    if sweep.race is None:
        varied = " ".join(f"{key}={values}" for key, values in sweep.swept.items())
        return f"{counted(sweep.jobs, 'job')}: {varied or 'no key has several values, such as seed=0,1'}"
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
        _show(rank_jobs(sweep, record, record.jobs(), race), record)
        record.end(status)
        print(record.describe())
    except Exception as second:  # the first error is the one to show
        print(f"The sweep could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
    print(f"The sweep is {status}; the same command with resume=true continues it", file=sys.stderr)


def _finish(sweep: Sweep, record: SweepRecord, stage: Stage, race: Race | None) -> SweepResult:
    record.close_jobs()
    # A search does not go back to what was killed before it was resumed.
    jobs = [job for job in record.jobs() if job.status != "KILLED" or not is_search(sweep)]
    outcome = explained(rank_jobs(sweep, record, jobs, race))
    _show(outcome, record)
    record.log_scores(outcome.scores())
    if (best := outcome.best) is not None:
        curves = _curves(record, outcome)
        _draw(sweep.folder, outcome, curves)
        record.log_best(best)
        _complete_best(sweep, record, best)
        if record.has_model(best) and (text := record.register(best)):
            print(printable(text))
        write_report(sweep, record, outcome, curves)
    unfinished = _unfinished(sweep, stage, jobs)
    record.end("FAILED" if unfinished else "FINISHED")
    print(record.describe())
    run_id = record.parent.run_id or None
    return SweepResult(outcome.records, outcome.verdict, run_id, sweep.folder, stage.jobs, unfinished)


def _show(outcome: Table, record: SweepRecord) -> None:
    """Print the ranking and what it decides, write ranking.csv, and show both on the sweep's page."""
    (record.folder.path / "ranking.csv").write_text(as_csv(outcome.records))
    print(f"\n{outcome.text()}")
    record.show_ranking(outcome.markdown)


def _unfinished(sweep: Sweep, stage: Stage, jobs: Sequence[Job]) -> int:
    """Return how many jobs did not finish. A search may draw a point again, and does not go back to a killed one."""
    failed = sum(job.status in {"FAILED", "RUNNING"} for job in jobs)
    if sweep.race is not None:  # which has all jobs that it will have
        return sum(job.status != "FINISHED" for job in jobs)
    return failed if is_search(sweep) else stage.jobs - sum(job.status == "FINISHED" for job in jobs)


def _curves(record: SweepRecord, outcome: Table) -> list[Curve]:
    """Return the curve of each row, named by what differs."""
    combinations = [{key: value for key, value in row.values.items() if key != "seed"} for row in outcome.rows]
    differences = find_differences(combinations, [], sys.maxsize)
    return [
        curve_of(str(place), differences.label(values), [record.curve(job, outcome.metric) for job in row.jobs])
        for place, (values, row) in enumerate(zip(combinations, outcome.rows, strict=True), start=1)
    ]


def _draw(folder: Path, outcome: Table, curves: Sequence[Curve]) -> None:
    from mnist_exp import figures
    from mnist_exp.sweeps.figures import importance_bars, objective_by_parameter, validation_curves

    drawn = {"curves": validation_curves(curves, outcome.metric)}
    jobs = [job for row in outcome.rows for job in row.jobs]
    names = short_names(key for job in jobs for key in job.values)
    measured = [({names[key]: value for key, value in job.values.items()}, job.objective or 0.0) for job in jobs]
    if names:
        drawn["objective"] = objective_by_parameter(measured, outcome.objective)
    if outcome.importance is not None:
        drawn["importance"] = importance_bars(outcome.importance, outcome.objective)
    figures.save(drawn, folder / "figures")


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

    path = folder.path / "config.yaml"
    config = check(parse_values(path.read_text("utf-8"), str(path)), sweep.config.code)
    record.log_model(best, *complete(folder.path, config))
