"""One experiment from start to end."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf

from mnist_exp import datasets, tracking
from mnist_exp.backend import choose_backend
from mnist_exp.config import Config, MLflowTracking
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Experiment
from mnist_exp.preprocessing import Preprocessor, fit_preprocessor
from mnist_exp.redaction import SecretsFilter

if TYPE_CHECKING:
    import keras

    from mnist_exp import training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What an experiment gives.

    `history`: one value an epoch, for `loss`, each metric, and both with `val_`. `scores`: `test_loss`, a `test_`
    value for each metric, and `fit_seconds`. `objective`: the value that runs are ranked by. `model`: takes raw images
    of 0 to 255. `run_id`: MLflow's, None with `tracking=none`. `output`: the folder with figures, configuration, log
    and model.
    """

    history: dict[str, list[float]]
    scores: dict[str, float]
    objective: float
    model: "keras.Sequential"
    run_id: str | None
    config: Config
    output: Path


def run_experiment(experiment: Experiment) -> Result:
    """Load the data, prepare it, build the model, fit it, evaluate it on the test set, and record all of it.

    The job of a sweep prints nothing, and leaves figures and the logged model to `complete` unless `tracking.keep` is
    `all`.

    Raises:
        InputError: for bad data, layers that do not fit each other, a loss that becomes NaN, an unreachable store.
    """
    [outcome] = run_stack([experiment])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_stack(
    experiments: Sequence[Experiment], on_epoch: Callable[[int], None] = lambda _: None
) -> list[Result | Exception]:
    """Run one experiment with either engine, or with the compiled one several that `stacking.key` finds alike.

    Args:
        experiments: what to run.
        on_epoch: called with each epoch, from 1, that has ended; by default nothing is.

    Returns:
        Of each its result, or what it failed with alone.

    Raises:
        InputError: as `run_experiment` does, for what none of them can do.
    """
    config = experiments[0].config
    choose_backend(config.backend)
    with _logged(), ExitStack() as opened:
        jobs = [_Job(experiment, *_open(experiment, opened, len(experiments))) for experiment in experiments]
        data = datasets.load(config.dataset)
        for job in jobs:
            job.run.log_data(data)
        log.info("%s: %d training images, digest %s", data.name, len(data.x_train), data.digest)
        if len(jobs) > 1:
            log.info("trained as one program with %d others", len(jobs) - 1)

        if experiments[0].child is None and sys.stdout.isatty():
            started = {"tensorflow": "TensorFlow", "jax": "JAX"}[config.backend]
            print(f"{printable(data.name)}: {len(data.x_train)} training images; starting {started}")

        # Only now, since Keras takes seconds and bad data is known by here.
        train = _train_compiled if config.training.engine == "compiled" else _train
        trained = train(jobs, data, fit_preprocessor(config.preprocessing, data), on_epoch)

        outcomes: list[Result | Exception] = []
        for job, of_job in zip(jobs, trained, strict=True):
            try:
                with job.end:
                    if isinstance(of_job, InputError):
                        raise of_job
                    result = _record(job, data, of_job)
            except Exception as error:
                outcomes.append(error)
            else:
                outcomes.append(result)
                if job.experiment.child is None:
                    _tell(of_job, config, job.run)
    return outcomes


@dataclass(frozen=True)
class _Job:
    """An experiment that runs: what records it, and what ends that, well or with an error."""

    experiment: Experiment
    run: tracking.Run
    end: ExitStack

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        log.info("epoch %d %s", epoch, dict(metrics), extra={"output": self.experiment.output})
        self.run.log_epoch(epoch, metrics)


@dataclass(frozen=True)
class _Trained:
    """`served`: takes raw images. `test_scores`: the loss, then each metric. `seconds`: of training and evaluating."""

    served: "keras.Sequential"
    fitted: "training.Fitted"
    test_scores: dict[str, float]
    seconds: float


def _open(experiment: Experiment, opened: ExitStack, together: int) -> tuple[tracking.Run, ExitStack]:
    """Start to log and to record; what is not ended before `opened` ends with it."""
    end = ExitStack()
    opened.push(end)
    end.enter_context(_log_file(experiment.output))
    run = end.enter_context(tracking.start(experiment, together))
    config = tracking.recorded_config(experiment.config)
    OmegaConf.save(OmegaConf.create(config), experiment.output / "config.yaml")
    return run, end


def _train(
    jobs: Sequence[_Job], data: datasets.Data, preprocessor: Preprocessor, on_epoch: Callable[[int], None]
) -> "list[_Trained | InputError]":
    """Train one job with Keras's own loop."""
    from mnist_exp import models, training

    [job] = jobs
    config, image_shape = job.experiment.config, data.x_train.shape[1:]
    models.set_seed(config.seed)
    model = models.build(config.model, preprocessor.shape, data.classes)
    training.compile_model(model, config.optimizer, config.training, one_hot=preprocessor.one_hot)
    batches = training.Batches(
        data.x_train,
        data.y_train,
        preprocessor,
        models.augmentation(config.preprocessing.augment, image_shape),
        batch_size=config.training.batch_size,
        shuffle=config.training.shuffle,
        seed=config.dataset.seed,
    )
    test = preprocessor.images(data.x_test), preprocessor.labels(data.y_test)
    validation = test
    if not data.watches_test_set:
        validation = preprocessor.images(data.x_validation), preprocessor.labels(data.y_validation)

    def log_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        job.log_epoch(epoch, metrics)
        on_epoch(epoch)

    start = time.perf_counter()
    fitted = training.fit(
        model,
        batches,
        validation,
        config.training,
        output=job.experiment.output,
        on_epoch=log_epoch,
        progress=job.experiment.child is None,
    )
    scores = _validated(fitted) if _validates_as_tested(config) else training.evaluate(model, *test)
    seconds = time.perf_counter() - start
    return [_Trained(models.servable(model, preprocessor, image_shape), fitted, scores, seconds)]


def _train_compiled(
    jobs: Sequence[_Job], data: datasets.Data, preprocessor: Preprocessor, on_epoch: Callable[[int], None]
) -> "list[_Trained | InputError]":
    """Train jobs as one program; of one that its loss fails, the error."""
    from mnist_exp import compiled, models, training

    config, image_shape = jobs[0].experiment.config, data.x_train.shape[1:]
    served, trained = [], []
    for job in jobs:
        models.set_seed(job.experiment.config.seed)
        model = models.build(config.model, preprocessor.shape, data.classes)
        served.append(models.servable(model, preprocessor, image_shape))
        trained.append(models.trainable(served[-1], config.preprocessing.augment, image_shape))
        optimizer = job.experiment.config.optimizer
        training.compile_model(trained[-1], optimizer, config.training, one_hot=preprocessor.one_hot)

    def log_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> None:
        for index, of_job in metrics.items():
            jobs[index].log_epoch(epoch, of_job)
        on_epoch(epoch)

    start = time.perf_counter()
    fitted = compiled.fit(
        trained,
        (data.x_train, np.asarray(preprocessor.labels(data.y_train))),
        (data.x_validation, np.asarray(preprocessor.labels(data.y_validation))),
        partial(training.epoch_order, len(data.x_train), config.training.shuffle, config.dataset.seed),
        config.training,
        outputs=[job.experiment.output for job in jobs],
        on_epoch=log_epoch,
        progress=jobs[0].experiment.child is None,
    )
    if _validates_as_tested(config):
        scores = [{} if isinstance(of_job, InputError) else _validated(of_job) for of_job in fitted]
    else:
        scores = compiled.evaluate(trained, data.x_test, np.asarray(preprocessor.labels(data.y_test)))
    seconds = (time.perf_counter() - start) / len(jobs)
    return [
        of_job if isinstance(of_job, InputError) else _Trained(model, of_job, of_test, seconds)
        for model, of_job, of_test in zip(served, fitted, scores, strict=True)
    ]


def _validates_as_tested(config: Config) -> bool:
    """Whether the last validation measured what the test would: the test set, with the weights that were kept."""
    return config.dataset.validation == "test" and not config.optimizer.get("use_ema")


def _validated(fitted: "training.Fitted") -> dict[str, float]:
    """What was validated in the kept epoch, the loss first, without `val_`."""
    kept = {name: values[fitted.kept_epoch - 1] for name, values in fitted.history.items()}
    names = [name for name in kept if f"val_{name}" in kept and name != "loss"]
    return {name: kept[f"val_{name}"] for name in ("loss", *names)}


def _record(job: _Job, data: datasets.Data, trained: _Trained) -> Result:
    """Write and record all that comes of an experiment."""
    from mnist_exp import training

    experiment, fitted, served = job.experiment, trained.fitted, trained.served
    config, output = experiment.config, experiment.output
    scores = {f"test_{name}": value for name, value in trained.test_scores.items()} | {"fit_seconds": fitted.seconds}
    objective = _objective(config.objective, fitted, scores)
    kept = f"{config.objective} {objective} of epoch {fitted.kept_epoch}"
    log.info("scores %s, %s", scores, kept, extra={"output": output})
    served.save(output / "model.keras")
    result = {"history": fitted.history, "kept_epoch": fitted.kept_epoch, "scores": scores, "objective": objective}
    (output / "result.json").write_text(json.dumps(result, indent=1))
    keep = experiment.child is None or (isinstance(config.tracking, MLflowTracking) and config.tracking.keep == "all")
    if keep:
        _draw(fitted.history, data, training.predict(served, data.x_test), output / "figures")
    job.run.log_scores(scores | {"objective": objective})  # once all files are there, in case the store is not
    if keep:
        job.run.log_model(served, data)
    return Result(fitted.history, scores, objective, served, job.run.id, config, output)


def _tell(trained: _Trained, config: Config, run: tracking.Run) -> None:
    """Print what came of a single run."""
    fitted = trained.fitted
    if (epochs := len(fitted.history["loss"])) < config.training.epochs:
        print(f"Stopped after epoch {epochs} of {config.training.epochs}")
    if fitted.kept_epoch < epochs:
        print(f"The weights are those of epoch {fitted.kept_epoch}")
    for name, value in trained.test_scores.items():
        print(f"TEST {name}: {value:.4f}")
    print(f"Computation time: {trained.seconds:.3f} sec")
    print(run.describe())


def stack_size(experiment: Experiment, wanted: int) -> int:
    """How many experiments like this one train best as one program on this machine, up to `wanted`."""
    if wanted == 1:
        return 1
    from mnist_exp import compiled, models

    config = experiment.config
    try:
        data = datasets.load(config.dataset)
        preprocessor = fit_preprocessor(config.preprocessing, data)
        model = models.build(config.model, preprocessor.shape, data.classes)
    except InputError:  # which each will record as its own failure
        return 1
    return compiled.stack_size(model, config.training.batch_size, wanted)


def complete(output: Path, config: Config) -> tuple["keras.Model", datasets.Data]:
    """Draw the figures of a job that has its weights in `output`; its model, which takes raw images, and its data."""
    from mnist_exp import models, training

    data = datasets.load(config.dataset)
    served = models.load(output / "model.keras")
    history = json.loads((output / "result.json").read_text())["history"]
    _draw(history, data, training.predict(served, data.x_test), output / "figures")
    return served, data


def _objective(name: str, fitted: "training.Fitted", scores: Mapping[str, float]) -> float:
    """Of an epoch's metric the value at the epoch whose weights were kept."""
    return scores[name] if name.startswith("test_") else fitted.history[name][fitted.kept_epoch - 1]


def _draw(history: dict[str, list[float]], data: datasets.Data, predicted: datasets.Labels, folder: Path) -> None:
    from mnist_exp import figures

    folder.mkdir(exist_ok=True)
    validation = "test (watched)" if data.watches_test_set else "validation"
    figures.curves(history, validation).savefig(folder / "curves.png", dpi=120)
    figures.predictions(data.x_test, data.y_test, predicted).savefig(folder / "predictions.png", dpi=120)
    figures.confusion_matrix(data.y_test, predicted, data.classes).savefig(folder / "confusion_matrix.png", dpi=120)


@contextmanager
def _logged() -> Iterator[None]:
    """Let this package log from INFO on, to its own files alone."""
    package = logging.getLogger("mnist_exp")
    level, propagate = package.level, package.propagate
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.setLevel(level)
        package.propagate = propagate


@contextmanager
def _log_file(output: Path) -> Iterator[None]:
    """Write what this package logs to `run.log` in the output folder."""
    output.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(output / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # Of jobs that train together, a message about one has its output folder; any other is for all.
    handler.addFilter(lambda record: getattr(record, "output", output) == output)
    handler.addFilter(SecretsFilter())
    package = logging.getLogger("mnist_exp")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
