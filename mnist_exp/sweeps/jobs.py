"""The jobs of a sweep, run in any process."""

import gc
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_exp import signals
from mnist_exp.config import keras_names
from mnist_exp.config.backend import choose_backend, compute_with_one_thread
from mnist_exp.config.composition import Composed
from mnist_exp.config.overrides import Override, pick_values
from mnist_exp.config.own_code import CodeFile
from mnist_exp.ends import TERMINATION, Terminated
from mnist_exp.errors import InputError
from mnist_exp.experiment import Child, Experiment, Result
from mnist_exp.resume import find_earlier, make_record, resume
from mnist_exp.runner import identify, run_experiment
from mnist_exp.stack import run_stack
from mnist_exp.sweeps.pruning import Pruning
from mnist_exp.text import traceback_text
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.locks import free_folder, wait_until_idle
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.sweep_record import Parent, SweepRecord
from mnist_exp.tracking.tracker import join_sweep
from mnist_exp.training.engine import choose_engine, group_stackable, split

_SECONDS_BETWEEN_LOOKS = 1.0
_MAX_STACKED_JOBS = 200  # each keeps its log open, and macOS lets a process open 256 files
_working = threading.RLock()  # held while this process works on jobs

# Returns the overrides of the next jobs, or None at the end.
Propose = Callable[[], Sequence[Sequence[str]] | None]


@dataclass
class SweepProgress:
    """A sweep's progress, beside the records of its jobs.

    `text`: says how far jobs are that train together in this process; empty while none do. `together`: whether any did,
    which end together, too. `jobs`: the number known so far. `news`: lines to show. `curves`: read for `prune`, of jobs
    that ended, by run.
    """

    text: str = ""
    together: bool = False
    jobs: int = 0
    news: list[str] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Runs the jobs of a sweep, in the process to which a launcher sends it.

    `code`: the user's own file, with its text. `propose`: for the sweeper, in the sweep's process; None elsewhere.
    """

    parent: Parent
    stage: SweepProgress
    code: CodeFile | None
    propose: Propose | None

    def compose(self, composed: DictConfig) -> Composed:
        """Return a job that Hydra composed, in the context in which Hydra runs it."""
        settings = HydraConfig.get()
        return Composed(composed, tuple(settings.overrides.task), Path(settings.runtime.output_dir), self.code)

    def __call__(self, composed: DictConfig) -> float | None:
        """Run a job that Hydra composed, and return its objective, or None if it failed."""
        return self.run_jobs([self.compose(composed)])[0]

    def run_jobs(self, jobs: Sequence[Composed]) -> list[float | None]:
        """Run jobs, as one program if possible, and return their objectives.

        A failed job's objective is None.
        A failure is recorded and does not stop other jobs. With `resume`, a job that has finished is not run again.
        """
        try:
            with _working:
                return _run_jobs(self.parent, self.stage, jobs)
        except Exception as error:
            if self.parent.is_this_process:
                raise
            # The launcher writes this down, so neither it nor its cause may have a password.
            raise RuntimeError(traceback_text(error)) from None


def group_jobs(jobs: Sequence[Sequence[str]]) -> list[Sequence[int]]:
    """Group the places of jobs that one program can train, up to the stack's size.

    >>> group_jobs([["model.hidden=16", "seed=0"], ["model.hidden=32", "seed=0"], ["model.hidden=16", "seed=1"]])
    [[0, 2], [1]]
    """
    numbers = {"seed", *(f"optimizer.{name}" for name in ("learning_rate", *keras_names.SCALARS))}
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, overrides in enumerate(jobs):
        others = tuple(text for text in overrides if Override.parse(text).key not in numbers)
        groups.setdefault(others, []).append(place)
    return [part for group in groups.values() for part in split(group, _MAX_STACKED_JOBS)]


def _run_jobs(parent: Parent, stage: SweepProgress, jobs: Sequence[Composed]) -> list[float | None]:
    if parent.cwd.is_dir():
        os.chdir(parent.cwd)
    compute_with_one_thread()
    if not parent.is_this_process and threading.current_thread() is threading.main_thread():
        signals.install()
    record = _join_sweep(parent)
    prepared = [_prepare(record, composed, stage) for composed in jobs]
    objectives = [None if isinstance(job, Experiment) else job for job in prepared]
    experiments = {index: job for index, job in enumerate(prepared) if isinstance(job, Experiment)}
    scored = [
        index
        for index, experiment in experiments.items()
        if experiment.resumes and Folder(experiment.output).read().stage != "begun"
    ]
    rest = {index: experiment for index, experiment in experiments.items() if index not in scored}
    for group in [*([index] for index in scored), *group_stackable(rest)]:
        first = experiments[group[0]]
        size = choose_engine(first.config.backend).stack_size(first, len(group)) if len(group) > 1 else 1
        for stack in split(group, size):
            if record.is_over():
                return objectives
            trained = _run_as_stack(record, [_adopt(experiments[index], len(stack)) for index in stack], stage)
            for index, objective in zip(stack, trained, strict=True):
                objectives[index] = objective
    return objectives


_records: dict[str, SweepRecord] = {}  # by the sweep and its start


def _join_sweep(parent: Parent) -> SweepRecord:
    """Return the sweep's record in this process, which ends after the sweep's process."""
    if (record := _records.get(repr(parent))) is None:
        _records.clear()
        record = _records[repr(parent)] = join_sweep(parent)
        if not parent.is_this_process:
            threading.Thread(target=_end_with_sweep, args=(record,), daemon=True).start()
    return record


def _end_with_sweep(record: SweepRecord) -> None:
    """End this process once the sweep's is gone.

    A worker would wait for minutes, or for ever.
    """
    while not record.is_orphan():
        if record.is_over() and not record.is_orphan():
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    with _working:  # until the job that trains has seen it, too
        os._exit(TERMINATION.exit_code)


def _adopt(experiment: Experiment, width: int) -> Experiment:
    """Return a resumed job only if it trained alone and does again.

    A stack has no checkpoint.
    """
    if not experiment.resumes or (before := Folder(experiment.output).read()).stage != "begun":
        return experiment
    if width > 1 or "mnist_exp.trained_together" in before.tags:
        return replace(experiment, resumes=False)
    return experiment


def _prepare(record: SweepRecord, composed: Composed, stage: SweepProgress) -> Experiment | float | None:
    """Return a job to run, or the objective of a finished one.

    Return None after recording bad input.
    """
    values = pick_values(record.parent.keys, composed.overrides)
    try:
        choose_backend(composed.values.backend)  # for the user's own code
        experiment = composed.experiment()
        config = replace(experiment.config, tracking=record.parent.tracking)
    except InputError as error:
        record.log_refused(values, composed.output, error)
        return None
    experiment = replace(experiment, config=config, child=Child(record.parent.run_id, values, record.parent.id))
    if not config.resume:
        if _has_begun(experiment.output, record.parent):  # on a machine that has gone; the launcher tries it again
            return replace(experiment, output=free_folder(experiment.output))
        return experiment
    identity = identify(config, record.parent)
    if identity is None:  # the data cannot be read, as the job says
        return replace(experiment, output=free_folder(experiment.output))
    name, wanted = job_name(values, record.parent.keys), make_record(experiment, identity)
    while True:
        before = find_earlier(identity.key, wanted, prunes=config.prune is not None)
        first = Folder(experiment.output)
        if first.is_there() and not (begun := first.read()).signature:
            before.append(begun)
        answer = resume(before, wanted)
        if answer.state != "runs" or answer.folder is None:
            break
        stage.news.append(f"{name}: {answer.line}")
        wait_until_idle(answer.folder, record.parent.id)
    if answer.folder is None:
        if any(Path(run.output).parent == record.folder.path for run in before):
            stage.news.append(f"{name} starts anew: {answer.line}")
        return replace(experiment, output=free_folder(experiment.output, wanted))
    if answer.state == "resumes":
        return replace(experiment, output=answer.folder.path, resumes=True)
    finished = answer.folder.read()
    record.reuse(finished, values, experiment.output)
    return finished.objective


def _has_begun(output: Path, parent: Parent) -> bool:
    """Return whether a folder has a job of this sweep."""
    with suppress(InputError):
        return Folder(output).read().fact("parent") == parent.id
    return False


def _run_as_stack(record: SweepRecord, experiments: Sequence[Experiment], stage: SweepProgress) -> list[float | None]:
    """Return the objectives, None for a job that failed."""
    # Free the last job's model, whose cycles hold its data; what is left, mostly Keras, stays for good.
    gc.collect()
    gc.freeze()

    config, together, is_apart = experiments[0].config, len(experiments) > 1, not record.parent.is_this_process
    pruning = Pruning(record, experiments, stage.curves) if config.prune is not None else None

    def on_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
        if is_apart and record.is_over():  # a signal reached the sweep but not this process
            raise Terminated(TERMINATION.exit_code)
        if together:
            stage.text = f"{len(metrics)} jobs as one program: epoch {epoch} of {config.training.epochs}"
        return pruning.find_unpromising(epoch, metrics) if pruning is not None else ()

    stage.text = f"{len(experiments)} jobs as one program: starting" if together else ""
    stage.together |= together
    try:
        if together:
            outcomes = run_stack(experiments, record.open_run, on_epoch)
        else:
            outcomes = [run_experiment(experiments[0], record.open_run, on_epoch)]
    except Exception:  # recorded by each job that had begun
        return [None] * len(experiments)
    finally:
        stage.text = ""
    return [outcome.objective if isinstance(outcome, Result) else None for outcome in outcomes]
