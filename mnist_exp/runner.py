"""One experiment from start to end."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mnist_exp import datasets, tracking
from mnist_exp.composition import Experiment
from mnist_exp.config import Config, MLflowTracking
from mnist_exp.preprocessing import fit_preprocessor

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
    config, output = experiment.config, experiment.output
    alone = experiment.child is None
    with _log_file(output), tracking.start(experiment) as run:
        OmegaConf.save(OmegaConf.create(tracking.recorded_config(config)), output / "config.yaml")
        data = datasets.load(config.dataset)
        run.log_data(data)
        log.info("%s: %d training images, digest %s", data.name, len(data.x_train), data.digest)

        if alone and sys.stdout.isatty():
            print(f"{data.name}: {len(data.x_train)} training images; starting TensorFlow")

        # Only now, since TensorFlow takes seconds and bad data is known by here.
        from mnist_exp import models, training
        from mnist_exp.keras_backend import keras

        keras.utils.clear_session()
        keras.utils.set_random_seed(config.seed)
        preprocessor = fit_preprocessor(config.preprocessing, data)
        model = models.build(config.model, preprocessor.shape, data.classes)
        training.compile_model(model, config.optimizer, config.training, one_hot=preprocessor.one_hot)

        batches = training.Batches(
            data.x_train,
            data.y_train,
            preprocessor,
            models.augmentation(config.preprocessing.augment, data.x_train.shape[1:]),
            batch_size=config.training.batch_size,
            shuffle=config.training.shuffle,
            seed=config.dataset.seed,
        )
        test = preprocessor.images(data.x_test), preprocessor.labels(data.y_test)
        validation = test
        if not data.watches_test_set:
            validation = preprocessor.images(data.x_validation), preprocessor.labels(data.y_validation)

        start = time.perf_counter()
        fitted = training.fit(
            model, batches, validation, config.training, output=output, on_epoch=run.log_epoch, progress=alone
        )
        test_scores = training.evaluate(model, *test)
        seconds = time.perf_counter() - start
        scores = {f"test_{name}": value for name, value in test_scores.items()} | {"fit_seconds": fitted.seconds}
        objective = _objective(config.objective, fitted, scores)
        log.info("scores %s, %s %s of epoch %d", scores, config.objective, objective, fitted.kept_epoch)
        served = models.servable(model, preprocessor, data.x_train.shape[1:])
        served.save(output / "model.keras")
        result = {"history": fitted.history, "kept_epoch": fitted.kept_epoch, "scores": scores, "objective": objective}
        (output / "result.json").write_text(json.dumps(result, indent=1))
        keep = alone or (isinstance(config.tracking, MLflowTracking) and config.tracking.keep == "all")
        if keep:
            _draw(fitted.history, data, training.predict(model, test[0]), output / "figures")
        run.log_scores(scores | {"objective": objective})  # once all files are there, in case the store is not
        if keep:
            run.log_model(served, data)
    if alone:
        if (epochs := len(fitted.history["loss"])) < config.training.epochs:
            print(f"Stopped after epoch {epochs} of {config.training.epochs}")
        if fitted.kept_epoch < epochs:
            print(f"The weights are those of epoch {fitted.kept_epoch}")
        for name, value in test_scores.items():
            print(f"TEST {name}: {value:.4f}")
        print(f"Computation time: {seconds:.3f} sec")
        print(run.describe())
    return Result(fitted.history, scores, objective, served, run.id, config, output)


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
def _log_file(output: Path) -> Iterator[None]:
    """Write what this package logs to `run.log` in the output folder."""
    output.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(output / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("mnist_exp")
    level, propagate = package.level, package.propagate
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        package.propagate = propagate
        handler.close()
