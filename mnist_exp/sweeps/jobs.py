"""The jobs of a sweep, in whatever process a launcher runs them."""

import gc
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mnist_exp import interrupts
from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.composition import Composed
from mnist_exp.config.overrides import values_of
from mnist_exp.config.redaction import traceback_text
from mnist_exp.errors import InputError
from mnist_exp.experiment import Child, Experiment, Result
from mnist_exp.learning import stacking
from mnist_exp.learning.engine import choose_backend, choose_engine, compute_with_one_thread
from mnist_exp.runner import run_together, signature_of
from mnist_exp.sweeps.pruning import Pruning
from mnist_exp.tracking.record import Parent, SweepRecord
from mnist_exp.tracking.tracker import join_sweep

# Runs jobs, each given by its overrides; returns their objectives, None for a job that failed.
Launch = Callable[[Sequence[Sequence[str]]], Sequence[float | None]]


@dataclass
class Stage:
    """How far a sweep has come, beside what its jobs record.

    `text`: the state of jobs that train together in this process, in words; empty while none do. `jobs`: how many the
    sweep has, as far as is known. `news`: lines to show. `curves`: of jobs that ended, by run, as read for `prune`.
    """

    text: str = ""
    jobs: int = 0
    news: list[str] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Runs the jobs of a sweep, in the process to which a launcher sends it.

    `code`: the user's own file, whose text comes along. `race`: called by the sweeper of a race, with a function that
    launches jobs; it stays in the sweep's process.
    """

    parent: Parent
    stage: Stage
    code: CodeFile | None
    race: Callable[[Launch], None] | None

    def compose(self, composed: DictConfig) -> Composed:
        """Return a job that Hydra composed; called in the context in which Hydra runs it."""
        settings = HydraConfig.get()
        return Composed(composed, tuple(settings.overrides.task), Path(settings.runtime.output_dir), self.code)

    def __call__(self, composed: DictConfig) -> float | None:
        """Run a job that Hydra composed; return its objective, None if it failed."""
        return self.run_jobs([self.compose(composed)])[0]

    def run_jobs(self, jobs: Sequence[Composed]) -> list[float | None]:
        """Run jobs, as one program where they can be; return their objectives, None for one that failed.

        A failure is recorded and does not stop other jobs. With `resume`, a job that has finished is not run again.
        """
        try:
            return _run_jobs(self.parent, self.stage, jobs)
        except Exception as error:
            if os.getpid() == self.parent.process:
                raise
            # The launcher writes this down, so it has no password, and no cause that has one.
            raise RuntimeError(traceback_text(error)) from None


def _run_jobs(parent: Parent, stage: Stage, jobs: Sequence[Composed]) -> list[float | None]:
    if parent.cwd.is_dir():
        os.chdir(parent.cwd)
    compute_with_one_thread()  # whatever the launcher
    if os.getpid() != parent.process and threading.current_thread() is threading.main_thread():
        interrupts.install()
    try:
        record = join_sweep(parent, OmegaConf.select(jobs[0].values, "tracking.uri"))
    except InputError as error:  # which would stay in this process; any other error goes back through the launcher
        raise RuntimeError(str(error)) from error
    objectives: list[float | None] = [None] * len(jobs)
    experiments: dict[int, Experiment] = {}
    for index, composed in enumerate(jobs):
        prepared = _prepare(record, composed)
        if isinstance(prepared, Experiment):
            experiments[index] = prepared
        else:
            objectives[index] = prepared
    for group in stacking.groups(experiments):
        first = experiments[group[0]]
        size = choose_engine(first.config.backend).stack_size(first, len(group)) if len(group) > 1 else 1
        for stack in stacking.split(group, size):
            if record.is_over():
                return objectives
            trained = _run_together(record, [experiments[index] for index in stack], stage)
            for index, objective in zip(stack, trained, strict=True):
                objectives[index] = objective
    return objectives


def _prepare(record: SweepRecord, composed: Composed) -> Experiment | float | None:
    """Return a job that is to run; or the objective of one that is not, None where it cannot run, which is recorded."""
    parent = record.parent
    values = values_of(parent.keys, composed.overrides)
    try:
        experiment = composed.experiment()
        config = replace(experiment.config, tracking=parent.tracking)
        choose_backend(config.backend)
    except InputError as error:
        record.log_refused(values, composed.output, error)
        return None
    signature = signature_of(config) if config.resume else ""
    if signature and (finished := record.reuse(signature, values)) is not None:
        return finished.objective
    return replace(experiment, config=config, child=Child(parent.run_id, values))


def _run_together(record: SweepRecord, experiments: Sequence[Experiment], stage: Stage) -> list[float | None]:
    """Return the objectives, None of what failed."""
    # The last job's model is a web of cycles that holds its data. What is left then, Keras above all, stays, and need
    # not be looked through again.
    gc.collect()
    gc.freeze()

    config, together = experiments[0].config, len(experiments) > 1
    pruning = Pruning(record, config, stage.curves) if config.prune is not None else None

    def on_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
        if together:
            stage.text = f"{len(metrics)} jobs as one program: epoch {epoch} of {config.training.epochs}"
        return pruning.hopeless(epoch, metrics) if pruning is not None else ()

    stage.text = f"{len(experiments)} jobs as one program: starting" if together else ""
    try:
        outcomes = run_together(experiments, on_epoch)
    except Exception:  # which each that had begun has recorded as its own
        return [None] * len(experiments)
    finally:
        stage.text = ""
    return [outcome.objective if isinstance(outcome, Result) else None for outcome in outcomes]
