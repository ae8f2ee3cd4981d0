"""One experiment from start to end: load, prepare, train, record."""

import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import signals
from mnist_exp.config import code_file
from mnist_exp.config.files import replaced
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError, printable, wrapped
from mnist_exp.experiment import Experiment, Result, experiment_key, experiment_signature
from mnist_exp.learning import checkpoints, datasets
from mnist_exp.learning.engine import choose_backend, choose_engine
from mnist_exp.learning.metadata import write_metadata
from mnist_exp.tracking.folder import log_file, package_logs
from mnist_exp.tracking.mlflow_tracker import tracker_of
from mnist_exp.tracking.record import Run

if TYPE_CHECKING:
    from mnist_exp.learning.training import OnEpoch, Trained

# As `Tracker.open_run`.
OpenRun = Callable[[Experiment, int], AbstractContextManager[Run]]

log = logging.getLogger(__name__)


def run_experiment(experiment: Experiment) -> Result:
    """Load the data, prepare it, build the model, fit it, evaluate it on the test set, and record all of it.

    Raises:
        InputError: for bad data, layers that do not fit each other, a loss that becomes NaN, an unreachable store.
    """
    [outcome] = run_together([experiment])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_together(
    experiments: Sequence[Experiment],
    on_epoch: "OnEpoch" = lambda _epoch, _metrics: (),
    open_run: OpenRun | None = None,
) -> list[Result | Exception]:
    """Run one experiment, or several that `engine.stackable` finds alike.

    A sweep's job prints nothing, and leaves figures and the logged model to its sweep unless its record keeps all.

    Args:
        experiments: to run, as one program if several.
        on_epoch: called after each epoch; returns the places of those to stop, as pruned.
        open_run: opens the record of each, with their number; by default, in a store of its own.

    Returns:
        For each its result, or its error where the others may go on.

    Raises:
        InputError: as `run_experiment` does, for all of them.
    """
    config, prints = experiments[0].config, experiments[0].prints
    choose_backend(config.backend)
    code_file.use(config.code)
    with package_logs(), ExitStack() as opened:
        data = None
        if experiments[0].child is None:  # bad data leave no run; a sweep's job records that it failed
            data = datasets.load(config.dataset)
            experiments = [replace(one, digest=data.digest) for one in experiments]
        ends = [opened.enter_context(ExitStack()) for _ in experiments]
        runs = []
        for experiment, end in zip(experiments, ends, strict=True):
            end.enter_context(log_file(experiment.output))
            opening = open_run or tracker_of(experiment.config.tracking).open_run
            runs.append(end.enter_context(opening(experiment, len(experiments))))
        data = data or datasets.load(config.dataset)
        for run in runs:
            run.log_data(data)
        log.debug("%s: %d training images, digest %s", data.name, len(data.x_train), data.digest)
        if len(runs) > 1:
            log.debug("trained as one program with %d others", len(runs) - 1)
        if prints and sys.stdout.isatty():
            started = {"tensorflow": "TensorFlow", "jax": "JAX"}[config.backend]
            print(f"{printable(data.name)}: {len(data.x_train)} training images; starting {started}")

        def log_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
            for index, measured in metrics.items():
                log.debug("epoch %d %s", epoch, dict(measured), extra={"output": experiments[index].output})
                runs[index].log_epoch(epoch, measured)
            for index in (stopped := on_epoch(epoch, metrics)):
                runs[index].log_pruned(epoch)
            return stopped

        # Only now, since Keras takes seconds to import.
        trained = choose_engine(config.backend, config.code).train(experiments, data, log_epoch)
        outcomes: list[Result | Exception] = []
        for experiment, run, end, one in zip(experiments, runs, ends, trained, strict=True):
            try:
                with end:
                    result = _record(experiment, run, data, one)
            except Exception as error:
                outcomes.append(error)
            else:
                outcomes.append(result)
                _print_place(experiment, result, run)
        _remove_checkpoint(experiments[0].output, trained, outcomes)
    return outcomes


_digests: dict[str, str] = {}  # of the datasets of sweeps, each of which is read once


def identify(config: Config, sweep: object = None) -> tuple[str, str]:
    """Return the key of an experiment in the index, and its signature; empty if its data cannot be read.

    The data of jobs for which `sweep` is the same are read once.
    """
    choose_backend(config.backend)  # the user's own code may make its data with Keras
    named = repr((sweep, config.dataset, config.code and config.code.digest))
    try:
        if sweep is None or named not in _digests:
            _digests[named] = datasets.load(config.dataset).digest
        return experiment_key(config, _digests[named]), experiment_signature(config, _digests[named])
    except Exception:
        return "", ""


def _record(experiment: Experiment, run: Run, data: datasets.Data, trained: "Trained | InputError") -> Result:
    """Write and record what an experiment gave."""
    if isinstance(trained, InputError):
        raise trained
    config, output = experiment.config, experiment.output
    if experiment.prints:
        _print_scores(config, trained)  # first, since the disk may be full
    objective = trained.value(config.objective)
    kept = f"{config.objective} {objective} of epoch {trained.kept_epoch}"
    log.debug("scores %s, %s", trained.scores, kept, extra={"output": output})
    run.log_scores(trained.scores | {"objective": objective}, trained.kept_epoch)
    with replaced(output / "model.keras") as new, signals.deferred():
        trained.model.save(new)
        write_metadata(new, data.metadata())
    if run.keeps_all:
        from mnist_exp.tracking.run_figures import write_results  # imports matplotlib

        write_results(trained.history, data, trained.model, output)
        run.log_model(trained.model, data)
    return Result(trained.history, trained.scores, objective, trained.model, run.id, config, output)


def _remove_checkpoint(
    folder: Path, trained: "Sequence[Trained | InputError]", outcomes: Sequence[Result | Exception]
) -> None:
    """Remove the checkpoint once each experiment is recorded, those that failed in training too."""
    if all(isinstance(outcome, Result) or outcome is one for one, outcome in zip(trained, outcomes, strict=True)):
        checkpoints.remove(folder)


def _print_scores(config: Config, trained: "Trained") -> None:
    if (epochs := len(trained.history["loss"])) < config.training.epochs:
        print(f"Stopped after epoch {epochs} of {config.training.epochs}")
    if trained.kept_epoch < epochs:
        print(f"The weights are those of epoch {trained.kept_epoch}")
    for name, value in trained.scores.items():
        if name.startswith("test_"):
            print(f"TEST {name.removeprefix('test_')}: {value:.4f}")
    print(f"Computation time: {trained.seconds:.3f} sec", flush=True)


def _print_place(experiment: Experiment, result: Result, run: Run) -> None:
    """Print and log where a run is; a sweep does so for its jobs."""
    if experiment.child is None:
        log.info("%s %.6g; %s", experiment.config.objective, result.objective, run.describe())
    if experiment.prints:
        print(wrapped(run.describe()))
