"""One experiment from start to end."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mnist_exp import datasets, tracking
from mnist_exp.composition import Experiment
from mnist_exp.config import Config
from mnist_exp.preprocessing import fit_preprocessor

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What an experiment gives.

    `history`: one value an epoch, for `loss`, each metric, and both with `val_`. `scores`: `test_loss`, a `test_`
    value for each metric, and `fit_seconds`. `model`: takes raw images of 0 to 255. `run_id`: MLflow's, None with
    `tracking=none`. `output`: the folder with figures, configuration, log and model.
    """

    history: dict[str, list[float]]
    scores: dict[str, float]
    model: "keras.Sequential"
    run_id: str | None
    config: Config
    output: Path


def run_experiment(experiment: Experiment) -> Result:
    """Load the data, prepare it, build the model, fit it, evaluate it on the test set, and record all of it.

    Raises:
        InputError: for bad data, layers that do not fit each other, a loss that becomes NaN, an unreachable store.
    """
    config, output = experiment.config, experiment.output
    with _log_file(output), tracking.start(experiment) as run:
        OmegaConf.save(OmegaConf.create(tracking.recorded_config(config)), output / "config.yaml")
        data = datasets.load(config.dataset)
        run.log_data(data)
        log.info("%s: %d training images, digest %s", data.name, len(data.x_train), data.digest)

        if sys.stdout.isatty():
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
            batch_size=config.training.batch_size,
            shuffle=config.training.shuffle,
            seed=config.dataset.seed,
        )
        test = preprocessor.images(data.x_test), preprocessor.labels(data.y_test)
        validation = test
        if not data.watches_test_set:
            validation = preprocessor.images(data.x_validation), preprocessor.labels(data.y_validation)

        start = time.perf_counter()
        fitted = training.fit(model, batches, validation, config.training, output=output, on_epoch=run.log_epoch)
        test_scores = training.evaluate(model, *test)
        seconds = time.perf_counter() - start
        scores = {f"test_{name}": value for name, value in test_scores.items()} | {"fit_seconds": fitted.seconds}
        log.info("scores %s", scores)

        _draw(fitted.history, data, training.predict(model, test[0]), output / "figures")
        served = models.servable(model, preprocessor, data.x_train.shape[1:])
        served.save(output / "model.keras")
        run.log_result(scores, served, data)
    if (epochs := len(fitted.history["loss"])) < config.training.epochs:
        print(f"Stopped after epoch {epochs} of {config.training.epochs}")
    for name, value in test_scores.items():
        print(f"TEST {name}: {value:.4f}")
    print(f"Computation time: {seconds:.3f} sec")
    print(run.describe())
    return Result(fitted.history, scores, served, run.id, config, output)


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
