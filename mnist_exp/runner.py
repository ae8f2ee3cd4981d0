"""One experiment from start to end: load, prepare, train, record."""

import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mnist_exp import signals
from mnist_exp.config import own_code
from mnist_exp.config.backend import choose_backend
from mnist_exp.config.files import replacing
from mnist_exp.config.schema import Config
from mnist_exp.data.datasets import Data
from mnist_exp.data.metadata import write_metadata
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Result, experiment_key, experiment_signature
from mnist_exp.logs import log_file, package_logs
from mnist_exp.text import say, wrap_text
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.locks import working
from mnist_exp.tracking.record import Run
from mnist_exp.tracking.tracker import open_run as open_in_store
from mnist_exp.training import checkpoints
from mnist_exp.training.engine import choose_engine
from mnist_exp.training.split import load_data

if TYPE_CHECKING:
    import keras

    from mnist_exp.training.training import OnEpoch, TrainingResult

# As `tracker.open_run`.
OpenRun = Callable[[Experiment, int], AbstractContextManager[Run]]

log = logging.getLogger(__name__)


def go_on(_epoch: int, _metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
    """Stop no experiment after an epoch."""
    return ()


def run_experiment(experiment: Experiment, open_run: OpenRun = open_in_store, on_epoch: "OnEpoch" = go_on) -> Result:
    """Load the data, build, fit and evaluate the model, and record all of it.

    An experiment that resumes goes on at its stage. A sweep's job prints nothing, and leaves figures, and the model for
    a store, to its sweep unless its record keeps all.

    Args:
        experiment: to run.
        open_run: opens its record; by default, in a store of its own.
        on_epoch: called after each epoch; returns [0] to stop, as pruned.

    Raises:
        InputError: for bad data, layers that do not fit each other, a loss that becomes NaN, an unreachable store.
    """
    config = experiment.config
    choose_backend(config.backend)
    own_code.use(config.code)
    with package_logs():
        data = None
        if experiment.child is None:  # bad data leave no run; a sweep's job records that it failed
            data = load_data(config.dataset)
            experiment = replace(experiment, digest=data.digest)
        with working(experiment.output), log_file(experiment.output):
            with open_run(experiment, 1) as run:
                data = data or load_data(config.dataset)
                run.log_data(data)
                if experiment.prints and (size := config.training.batch_size) > len(data.x_train):
                    say(f"training.batch_size={size}: all {len(data.x_train)} training images are one batch")
                if experiment.prints and sys.stdout.isatty():
                    started = {"tensorflow": "TensorFlow", "jax": "JAX"}[config.backend]
                    say(f"{data.name}: {len(data.x_train)} training images; starting {started}")
                if run.folder.read().stage == "begun":
                    # Only now, since Keras takes seconds to import.
                    engine = choose_engine(config.backend)
                    [trained] = engine.train([experiment], data, log_epochs([run], on_epoch))
                else:
                    trained = _read_trained(experiment)
                result = record(experiment, run, data, trained)
            _print_place(experiment, result, run)
    return result


def log_epochs(runs: Sequence[Run], on_epoch: "OnEpoch") -> "OnEpoch":
    """Return a function that records epochs, and prunes runs that `on_epoch` stops."""

    def record_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
        for index, measured in metrics.items():
            runs[index].log_epoch(epoch, measured)
        for index in (stopped := on_epoch(epoch, metrics)):
            runs[index].log_pruned(epoch)
        return stopped

    return record_epoch


_digests: dict[str, str] = {}  # digests of sweeps' datasets, each read once


class Identity(NamedTuple):
    """An experiment's key in the index, its signature, and the digest of its data."""

    key: str
    signature: str
    data: str


def identify(config: Config, sweep: object = None) -> Identity | None:
    """Return an experiment's identity, or None if its data cannot be read.

    The data of jobs for which `sweep` is the same are read once.
    """
    choose_backend(config.backend)  # the user's own code may make its data with Keras
    named = repr((sweep, config.dataset, config.code and config.code.digest))
    try:
        if sweep is None or named not in _digests:
            _digests[named] = load_data(config.dataset).digest
        digest = _digests[named]
        return Identity(experiment_key(config, digest), experiment_signature(config, digest), digest)
    except Exception:
        return None


def read_result(folder: Folder, experiment: Experiment) -> Result:
    """Return the result of an experiment's run, with its model, from its folder."""
    from mnist_exp.training import saved_models

    record = folder.read()
    scores = dict(record.scores)
    objective = scores.pop("objective")
    model = saved_models.load(folder.path / "model.keras", experiment.config.code, folder.path)
    return Result(folder.history(), scores, objective, model, record.run_id or None, experiment.config, folder.path)


def _read_trained(experiment: Experiment) -> "TrainingResult":
    """Return the training of an experiment that was interrupted after it."""
    from mnist_exp.training.training import TrainingResult

    folder = Folder(experiment.output)
    result = read_result(folder, experiment)
    epoch = folder.read().kept_epoch or 1
    return TrainingResult(result.model, result.history, epoch, result.scores, result.scores["fit_seconds"])


def complete(folder: Folder, data: Data, model: "keras.Model") -> None:
    """Make the figures of a scored run, and the model for its store.

    After an interruption, make them again.

    Args:
        folder: of the run.
        data: on which it was scored.
        model: the trained one.
    """
    from mnist_exp.tracking.run_figures import write_results  # imports matplotlib

    write_results(folder.history(), data, model, folder.path)
    if folder.read().tracking:
        from mnist_exp.tracking.logged_models import save_model

        save_model(model, data, folder)
    folder.change(stage="completed")


def record(experiment: Experiment, run: Run, data: Data, trained: "TrainingResult | InputError") -> Result:
    """Write an experiment's results, each stage after the files that it stands for.

    Args:
        experiment: the experiment that ran.
        run: where the results are written.
        data: its dataset.
        trained: the result of training, or the error that it ended with.

    Raises:
        InputError: that training ended with.
    """
    if isinstance(trained, InputError):
        checkpoints.remove(experiment.output)
        raise trained
    config, output = experiment.config, experiment.output
    if experiment.prints:
        _print_scores(config, trained)  # first, since the disk may be full
    objective = trained.value(config.objective)
    kept = f"{config.objective} {objective} of epoch {trained.kept_epoch}"
    log.debug("scores %s, %s", trained.scores, kept, extra={"output": output})
    if run.folder.read().stage == "begun":
        with replacing(output / "model.keras") as new, signals.defer_signals():
            trained.model.save(new)
            write_metadata(new, data.metadata())
        run.log_scores(trained.scores | {"objective": objective}, trained.kept_epoch)
    checkpoints.remove(output)
    if run.keeps_all:
        complete(run.folder, data, trained.model)
    return Result(trained.history, trained.scores, objective, trained.model, run.id, config, output)


def _print_scores(config: Config, trained: "TrainingResult") -> None:
    if (epochs := len(trained.history["loss"])) < config.training.epochs:
        print(f"Stopped after epoch {epochs} of {config.training.epochs}")
    if trained.kept_epoch < epochs:
        print(f"The weights are those of epoch {trained.kept_epoch}")
    for name, value in trained.scores.items():
        if name.startswith("test_"):
            print(f"TEST {name.removeprefix('test_')}: {value:.4f}")
    print(f"Computation time: {trained.seconds:.3f} sec", flush=True)


def _print_place(experiment: Experiment, result: Result, run: Run) -> None:
    """Print and log where a run is, unless it is a sweep's job."""
    if experiment.child is None:
        log.info("%s %.6g; %s", experiment.config.objective, result.objective, run.describe())
    if experiment.prints:
        print(wrap_text(run.describe()))
