"""A sweep from start to end: its parent run, each of its jobs, the ranking; and how it resumes."""

import gc
import logging
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType

from omegaconf import OmegaConf

from mnist_exp import datasets, interrupts, ranking, stacking, store
from mnist_exp.backend import choose_backend
from mnist_exp.composition import Composed, StartedSweep, Sweep
from mnist_exp.config import Config, Dataset, MLflowTracking, objective_direction
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Child, Experiment, experiment_signature, identity, signature
from mnist_exp.ranking import Job, job_name
from mnist_exp.redaction import traceback_text, without_secrets
from mnist_exp.sweep_tracking import MLflowSweepRecord, Parent, SweepRecord, open_sweep, record_in_job
from mnist_exp.tracking import failure_reason

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 10.0

log = logging.getLogger(__name__)


@contextmanager
def start(sweep: Sweep) -> Iterator[StartedSweep]:
    """Open a sweep, show its progress while the block runs its jobs, and rank them at its end, however it ends.

    Raises:
        InputError: if the store cannot be reached or written.
        SystemExit: with a message, if a job did not finish.
    """
    uri = sweep.config.tracking.uri if isinstance(sweep.config.tracking, MLflowTracking) else ""
    choose_backend(sweep.config.backend)
    _check_search_storage(sweep, uri)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with store.store_errors(uri):
        record = open_sweep(sweep, _signature(sweep))
        try:
            print(f"{_jobs(sweep.jobs)}: {' '.join(f'{k}={values}' for k, values in sweep.swept.items())}", flush=True)
            folder = _quoted(str(sweep.folder))
            settings = [f"hydra.sweep.dir={folder}", *_search_settings(sweep, record)]
            ray = sweep.launcher.get("ray")
            if ray is not None and "runtime_env" not in ray["init"]:
                # Ray's workers would import what lies in the current folder; with a working directory they do not.
                settings.append(f"+hydra.launcher.ray.init.runtime_env.working_dir={folder}")
            try:
                with _Progress(record, sweep):
                    yield StartedSweep(partial(run_jobs, record.parent_for_jobs()), tuple(settings))
            except ValueError as error:
                statuses = {job.status for job in record.jobs()}
                if not _is_search(sweep) or isinstance(error, InputError) or "FINISHED" in statuses:
                    raise
                if not statuses:
                    raise InputError(f"the search cannot start: {error}") from error
                # Every job failed, and Optuna has no best trial: the ranking says why.
            jobs = _finish(sweep, record)
        except BaseException as error:
            _end_early(sweep, record, error)
            raise
    if unfinished := _unfinished(sweep, jobs):
        raise SystemExit(f"{unfinished} of {sweep.jobs} jobs did not finish; the same command with resume=true retries")


def run_jobs(parent: Parent, jobs: Sequence[Composed]) -> list[float | None]:
    """Run jobs of a sweep in whatever process they were launched, those that can be as one program.

    A failure is recorded and does not stop other jobs. With `resume`, a job that has finished before is not run.

    Returns:
        The objective of each, None for one that failed.
    """
    try:
        return _run_jobs(parent, jobs)
    except Exception as error:
        if os.getpid() == parent.process:
            raise
        # The launcher writes this down, so it has no password, and no cause that has one.
        raise RuntimeError(traceback_text(error)) from None


def _run_jobs(parent: Parent, jobs: Sequence[Composed]) -> list[float | None]:
    if parent.cwd.is_dir():
        os.chdir(parent.cwd)
    # One thread a job, whatever the launcher: of a convolution, TensorFlow rounds by the number of threads.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if os.getpid() != parent.process and threading.current_thread() is threading.main_thread():
        interrupts.install()
    parent = _reached_from_here(parent, jobs[0])
    try:
        record = record_in_job(parent)
    except InputError as error:  # which would stay in this process; any other error goes back through the launcher
        raise RuntimeError(str(error)) from error
    objectives: list[float | None] = [None] * len(jobs)
    experiments: dict[int, Experiment] = {}
    for index, composed in enumerate(jobs):
        prepared = _prepare(parent, record, composed)
        if isinstance(prepared, Experiment):
            experiments[index] = prepared
        else:
            objectives[index] = prepared
    for group in _groups(experiments):
        from mnist_exp.runner import stack_size  # brings NumPy

        size = stack_size(experiments[group[0]], len(group))
        for stack in stacking.split(group, size):
            if record.is_over():
                return objectives
            for index, objective in zip(stack, _run_stack(record, [experiments[i] for i in stack]), strict=True):
                objectives[index] = objective
    return objectives


def _prepare(parent: Parent, record: SweepRecord, composed: Composed) -> Experiment | float | None:
    """A job that is to run; or the objective of one that is not, None where it cannot run, which is recorded."""
    values = _swept_values(composed.overrides, parent.keys)
    try:
        experiment = composed.experiment()
        config = replace(experiment.config, tracking=parent.tracking)
        choose_backend(config.backend)
    except InputError as error:
        record.log_refused(Job(values, "FAILED", reason=str(error), output=str(composed.output)), error)
        return None
    if config.resume and (finished := _finished(record, config)) is not None:
        if finished.parent != parent.run_id:
            record.reuse(replace(finished, values=values))
        return finished.objective
    return replace(experiment, config=config, child=Child(parent.run_id, values))


def _groups(experiments: Mapping[int, Experiment]) -> list[list[int]]:
    """Which jobs are alike enough to train as one program."""
    groups: dict[str, list[int]] = {}
    for index, experiment in experiments.items():
        compiled = experiment.config.training.engine == "compiled"
        groups.setdefault(stacking.key(experiment.config) if compiled else str(index), []).append(index)
    return list(groups.values())


# How far a stack that trains in this process has come, which `_Progress` shows.
_reached = ""


def _run_stack(record: SweepRecord, experiments: Sequence[Experiment]) -> list[float | None]:
    from mnist_exp.runner import Result, run_stack

    global _reached
    # The last job's model is a web of cycles that holds its data. What is left then, Keras above all, stays, and need
    # not be looked through again.
    gc.collect()
    gc.freeze()

    def reached(epoch: int) -> None:
        global _reached
        if len(experiments) > 1:
            state = f"epoch {epoch} of {experiments[0].config.training.epochs}" if epoch else "starting"
            _reached = f"{_jobs(len(experiments))} as one program: {state}"

    outcomes: Sequence[Result | Exception]
    reached(0)
    try:
        outcomes = run_stack(experiments, reached)
    except Exception as error:
        outcomes = [error] * len(experiments)
    finally:
        _reached = ""
    for experiment, outcome in zip(experiments, outcomes, strict=True):
        assert experiment.child is not None
        job = Job(experiment.child.values, "FAILED", output=str(experiment.output))
        if isinstance(outcome, Exception):
            record.log_ended(replace(job, reason=failure_reason(outcome)))
            continue
        scores = {name: value for name, value in outcome.scores.items() if name != "fit_seconds"}
        ended = replace(job, status="FINISHED", objective=outcome.objective, scores=scores)
        record.log_ended(replace(ended, seconds=outcome.scores["fit_seconds"]))
    return [None if isinstance(outcome, Exception) else outcome.objective for outcome in outcomes]


def _reached_from_here(parent: Parent, composed: Composed) -> Parent:
    """The sweep with the password that this process has for its store, as `parent` was sent without one."""
    own = OmegaConf.select(composed.values, "tracking.uri")
    if isinstance(parent.tracking, MLflowTracking) and without_secrets(str(own)) == parent.tracking.uri:
        return replace(parent, tracking=replace(parent.tracking, uri=str(own)))
    return parent


def find_finished(experiment: Experiment) -> str | None:
    """The id of a run that has finished the same experiment, if any; for a single run with `resume`."""
    tracking = experiment.config.tracking
    assert isinstance(tracking, MLflowTracking)
    with store.store_errors(tracking.uri):
        parent = Parent("", tracking, (), experiment.output, Path.cwd(), os.getpid())
        record = MLflowSweepRecord(parent, *store.connect(tracking))
        finished = _finished(record, experiment.config)
    return finished.run_id if finished else None


def _finished(record: SweepRecord, config: Config) -> Job | None:
    try:
        digest = _data_digest(config.dataset)
    except InputError:  # the run will record it
        return None
    return record.finished(experiment_signature(config, digest))


@lru_cache(maxsize=8)
def _data_digest(dataset: Dataset) -> str:
    return datasets.load(dataset).digest


def _signature(sweep: Sweep) -> str:
    """Return what two sweeps share if they are the same: the identity of the first job, and what varies how."""
    how = [sweep.sweeper.get("_target_"), (sweep.sweeper.get("sampler") or {}).get("_target_")]
    return signature([identity(sweep.config), sweep.swept, how])


def _swept_values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    values = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    return {key: values[key] for key in keys if key in values}


def _quoted(text: str) -> str:
    r"""A text as Hydra reads it, whatever is in it.

    >>> print(_quoted("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _is_search(sweep: Sweep) -> bool:
    return "OptunaSweeper" in str(sweep.sweeper.get("_target_"))


def _check_search_storage(sweep: Sweep, uri: str) -> None:
    """Check that Optuna will make its tables in no database of something else.

    Raises:
        InputError: if the file for searches is that of the store `uri`, or holds other tables.
    """
    storage = str(sweep.sweeper.get("storage") or "")
    path = store.sqlite_path(storage)
    if path is None:
        return
    try:
        held = store.tables(path) if path.exists() else set()
    except sqlite3.Error as error:
        held = {str(error)}
    if (held and "studies" not in held) or path == store.sqlite_path(uri):
        raise InputError(
            f"hydra.sweeper.storage={storage}: holds something else than searches; must be a file of its own, such as "
            "sqlite:///optuna.db"
        )


def _search_settings(sweep: Sweep, record: SweepRecord) -> list[str]:
    """Of a search by Optuna: which study, and how many trials are left of `n_trials`. Nothing for any other sweep.

    The study has the name of the sweep's parent run, so that a sweep that goes on goes on with its study.
    """
    if not _is_search(sweep):
        return []
    import optuna

    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)  # a failed job is told by _Progress
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = objective_direction(sweep.config)
    name = record.parent.run_id or sweep.folder.name
    settings = [f"hydra.sweeper.direction={direction}", f"hydra.sweeper.study_name={_quoted(name)}"]
    storage = sweep.sweeper.get("storage")
    if storage is None or name not in optuna.get_all_study_names(storage):
        return settings
    study = optuna.load_study(study_name=name, storage=storage)
    objectives = {tuple(sorted(job.values.items())): job.objective for job in record.jobs()}
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        objective = objectives.get(tuple(sorted((key, str(value)) for key, value in trial.params.items())))
        state = optuna.trial.TrialState.FAIL if objective is None else optuna.trial.TrialState.COMPLETE
        study.tell(trial.number, objective, state=state)
    finished = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    settings.append(f"hydra.sweeper.n_trials={max(sweep.jobs - finished, 0)}")
    seed = (sweep.sweeper.get("sampler") or {}).get("seed")
    if seed is not None:  # the same seed would draw the same values again
        settings.append(f"hydra.sweeper.sampler.seed={seed + len(study.trials)}")
    return settings


def _end_early(sweep: Sweep, record: SweepRecord, error: BaseException) -> None:
    """Rank what finished before Ctrl-C, SIGTERM or an error of a launcher."""
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    try:
        record.end(status)  # which jobs elsewhere look at
        record.close_jobs()
        _rank(sweep, record.jobs())
        record.close(status)
        print(record.describe())
    except Exception as second:  # the first error is the one to show
        print(f"The sweep could not be closed as {status}: {failure_reason(second)}", file=sys.stderr)
    print(f"The sweep is {status}; the same command with resume=true goes on", file=sys.stderr)


def _finish(sweep: Sweep, record: SweepRecord) -> list[Job]:
    record.close_jobs()
    # A search does not go back to what was killed before it was resumed.
    jobs = [job for job in record.jobs() if job.status != "KILLED" or not _is_search(sweep)]
    _rank(sweep, jobs)
    rows = ranking.rank(jobs, objective_direction(sweep.config))
    best = ranking.best_job(rows, objective_direction(sweep.config))
    if best is not None:
        _draw(sweep, record, rows)
        record.log_best(best, sweep.config.objective)
        _complete_best(record, best)
        if record.has_model(best) and (text := record.register(best)):
            print(text)
    record.close("FAILED" if _unfinished(sweep, jobs) else "FINISHED")
    print(record.describe())
    return jobs


def _unfinished(sweep: Sweep, jobs: Sequence[Job]) -> int:
    """How many jobs did not finish. A search draws a point again sometimes, and does not go back to a killed one."""
    failed = sum(job.status in {"FAILED", "RUNNING"} for job in jobs)
    return failed if _is_search(sweep) else sweep.jobs - sum(job.status == "FINISHED" for job in jobs)


def _rank(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """Print the ranking and write ranking.csv."""
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    (sweep.folder / "ranking.csv").write_text(ranking.to_csv(jobs, objective, direction))
    rows = ranking.rank(jobs, direction)
    print(_title(len(jobs), sweep, direction))
    print(ranking.table(rows, ranking.unranked(jobs), objective))
    if (text := ranking.verdict(rows, tuple(sweep.swept))) and not _is_search(sweep):
        print(text)


def _title(jobs: int, sweep: Sweep, direction: str) -> str:
    """What a ranking is by, and whether the choice rests on the test set."""
    objective = sweep.config.objective
    text = f"\n{_jobs(jobs)}, {ranking.order(objective, direction)}"
    if objective.startswith("test_"):
        return (
            f"{text}, MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy dataset.validation=10000"
        )
    if objective.startswith("val_") and sweep.watches_test_set:
        return f"{text}, MEASURED ON THE TEST SET: to hold images out instead, dataset.validation=10000"
    return text


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _draw(sweep: Sweep, record: SweepRecord, rows: Sequence[ranking.Row]) -> None:
    from mnist_exp import figures

    objective = sweep.config.objective
    metric = objective.replace("test_", "val_", 1)
    names = ranking.short_names(sweep.swept)
    curves = {
        job_name(job.values, sweep.swept) or "the job": record.curve(job, metric) for row in rows for job in row.jobs
    }
    folder = sweep.folder / "figures"
    folder.mkdir(exist_ok=True)
    figures.validation_curves(curves, metric).savefig(folder / "curves.png", dpi=120)
    jobs = [job for row in rows for job in row.jobs]
    measured = [({names[key]: value for key, value in job.values.items()}, job.objective or 0.0) for job in jobs]
    if any(values for values, _ in measured):
        figures.objective_by_parameter(measured, objective).savefig(folder / "objective.png", dpi=120)


def _complete_best(record: SweepRecord, best: Job) -> None:
    """Make the figures and the logged model of the best job, where `tracking.keep=best` left them out."""
    output = Path(best.output)
    if record.has_model(best):
        return
    if not (output / "model.keras").is_file():
        where = printable(f"on {best.host} in {output}")
        print(
            f"The best job's weights are {where}, which cannot be read here: its figures and model were not made; "
            "tracking.keep=all makes them where a job runs"
        )
        return
    from mnist_exp.config import check
    from mnist_exp.runner import complete

    values = OmegaConf.to_container(OmegaConf.load(output / "config.yaml"))
    assert isinstance(values, dict)
    config = check({str(key): value for key, value in values.items()})
    record.log_model(best, *complete(output, config))


class _Progress:
    """Shows which jobs ended, how many are left and for about how long, while launchers block.

    A line a job; on a terminal also what is running. Jobs report to the store alone, from wherever they run.
    """

    def __init__(self, record: SweepRecord, sweep: Sweep) -> None:
        self._record, self._sweep = record, sweep
        self._shown: set[str] = set()
        self._before = [job for job in record.jobs() if job.status == "FINISHED"] if sweep.config.resume else []
        self._ended = 0
        self._start = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._told, self._next_line = "", 0.0
        self._stacked = False

    def __enter__(self) -> None:
        if self._before:
            print(f"{len(self._before)} of them finished before", flush=True)
            self._shown = {job.run_id for job in self._before}
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._erase()

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()
            if sys.stdout.isatty():
                running = f"; {_reached}" if _reached else self._running()
                self._erase()
                print(f"{self._counts()}{running}"[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            elif _reached not in ("", self._told) and time.monotonic() >= self._next_line:
                print(_reached, flush=True)
                self._told, self._next_line = _reached, time.monotonic() + _SECONDS_BETWEEN_LINES

    def _look(self) -> None:
        """Print a line for each job that ended since the last look."""
        self._stacked |= bool(_reached)
        try:
            ended = [job for job in self._record.ended() if (job.run_id or job.output) not in self._shown]
        except Exception as error:  # an outage of the store is told where a job meets it
            log.warning("no progress can be shown: %s", failure_reason(error))
            return
        for job in ended:
            self._shown.add(job.run_id or job.output)
            if job.status == "KILLED":  # by what ends the sweep
                continue
            self._ended += 1
            name = job_name(job.values, self._sweep.swept) or "the job"
            if job.status != "FINISHED":
                what = printable(f"{job.status} {job.reason}".strip())
            else:
                what = f"{self._sweep.config.objective} {job.objective:.4f}, {job.seconds or 0.0:.1f} s"
            self._erase()
            print(f"{self._counts()}: {name}: {what}", flush=True)

    def _counts(self) -> str:
        done = len(self._before) + self._ended
        text = f"{done} of {self._sweep.jobs} done"
        left = max(self._sweep.jobs - done, 0)
        elapsed = time.monotonic() - self._start
        # The first job of all also waits for TensorFlow, so what it took says little unless it was long; nor does when
        # jobs of a stack end, which they do together.
        if not left or not self._ended or (self._ended == 1 and elapsed < 60) or self._stacked:
            return text
        seconds = elapsed / self._ended * left
        return f"{text}, about {seconds:.0f} s left" if seconds < 120 else f"{text}, about {seconds / 60:.0f} min left"

    def _running(self) -> str:
        try:
            names = self._record.running()
        except Exception:
            return ""
        return printable(f"; running: {', '.join(names)}") if names else ""

    def _erase(self) -> None:
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)
