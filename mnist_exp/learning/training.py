"""What both engines share: compiling a model, its callbacks, and what is read from its history."""

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp import interrupts
from mnist_exp.config.schema import Config, Training
from mnist_exp.errors import InputError, show
from mnist_exp.learning.keras_backend import REFUSALS, keras, keras_reason, leave_gradients_of_one_replica, schedule_of
from mnist_exp.learning.models import make, output_shapes

EpochMetrics = Mapping[str, float]
# Called after each epoch with its number, from 1, and by their place the metrics of the experiments that trained in it.
# It returns the places of those that are to stop.
OnEpoch = Callable[[int, Mapping[int, Mapping[str, float]]], Collection[int]]

# Images of a validation batch, at least: larger ones save a large network little time and cost it much memory.
EVALUATION_BATCH = 2000
# What a small network may have at once instead: 32 MB in its largest layer.
_NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Trained:
    """What an engine makes of an experiment.

    `model`: takes raw images of 0 to 255. `history`: a list a metric, one value an epoch. `kept_epoch`: from 1, the
    epoch whose weights the model has: the last, unless early stopping restored the best. `scores`: `test_loss`, a
    `test_` value for each metric, and `fit_seconds`, the wall time of `fit`. `seconds`: of training and evaluating.
    """

    model: keras.Model
    history: dict[str, list[float]]
    kept_epoch: int
    scores: dict[str, float]
    seconds: float

    def value(self, metric: str) -> float:
        """Return a score, or the value of an epoch's metric in the epoch whose weights were kept."""
        return self.scores[metric] if metric in self.scores else self.history[metric][self.kept_epoch - 1]


@dataclass(frozen=True)
class Fitted:
    """What `fit` gives: `seconds` is its wall time; the others are as in `Trained`."""

    history: dict[str, list[float]]
    seconds: float
    kept_epoch: int


def trained(served: keras.Model, fitted: Fitted, test: Mapping[str, float], seconds: float) -> Trained:
    """Return what a model that takes raw images was trained to; `test`: the loss and metrics on the test set."""
    scores = {f"test_{name}": value for name, value in test.items()} | {"fit_seconds": fitted.seconds}
    return Trained(served, fitted.history, fitted.kept_epoch, scores, seconds)


def validated_as_tested(config: Config) -> bool:
    """Whether the last validation measured what the test would: the test set, with the weights that were kept."""
    return config.dataset.validation == "test" and not config.optimizer.get("use_ema")


def validated_scores(fitted: Fitted) -> dict[str, float]:
    """Return what was validated in the kept epoch, the loss first, without `val_`."""
    kept = {name: values[fitted.kept_epoch - 1] for name, values in fitted.history.items()}
    names = [name for name in kept if f"val_{name}" in kept and name != "loss"]
    return {name: kept[f"val_{name}"] for name in ("loss", *names)}


def epoch_order(count: int, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the positions of `count` images in the order of `epoch`, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)


def check_finite(epoch: int, metrics: EpochMetrics) -> None:
    """Check the losses of an epoch, counted from 1.

    Raises:
        InputError: if one is NaN or infinite.
    """
    for name in ("loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            raise InputError(
                f"{name} became {metrics[name]} in epoch {epoch}; try a smaller optimizer.learning_rate, or "
                "optimizer.clipnorm=1.0"
            )


def compile_model(model: keras.Model, optimizer: Mapping[str, Any], training: Training, *, one_hot: bool) -> None:
    """Compile `model` with the configured optimizer, loss and metrics.

    `training.loss` null becomes the cross-entropy that fits the labels.

    Raises:
        InputError: for arguments that only Keras can judge.
    """
    arguments = {key: value for key, value in optimizer.items() if key != "kind"}
    if isinstance(arguments["learning_rate"], int):
        arguments["learning_rate"] = float(arguments["learning_rate"])  # Keras takes no 1
    loss = training.loss or ("CategoricalCrossentropy" if one_hot else "SparseCategoricalCrossentropy")
    made = _make("optimizers", {optimizer["kind"]: arguments}, "optimizer")
    leave_gradients_of_one_replica(made)
    model.compile(
        optimizer=made,
        loss=_make("losses", loss, "training.loss"),
        metrics=[m if m == "accuracy" else _make("metrics", m, "training.metrics") for m in training.metrics],
    )


def make_callbacks(training: Training, output: Path) -> list[Any]:
    """Make the configured Keras callbacks of one model, after one that logs the learning rate of a schedule.

    Those that write do so into `output`.
    """
    configured = [make("callbacks", {name: arguments}, output) for name, arguments in training.callbacks.items()]
    return [_ScheduledRate(), *configured]


class _ScheduledRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds the learning rate of an epoch's last step to its metrics, where a schedule changes it.

    Keras's callbacks that change a rate add it themselves.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        optimizer = self.model.optimizer
        if logs is not None and (schedule := schedule_of(optimizer)) is not None:
            # The count of the optimizer itself may still be on its way out of a program.
            step = self.params["steps"] * (epoch + 1) - 1
            logs["learning_rate"] = float(schedule(keras.ops.convert_to_tensor(step, optimizer.iterations.dtype)))


def kept_epoch(callbacks: Sequence[Any], history: Mapping[str, Sequence[float]]) -> int:
    """Return the epoch, from 1, whose weights a model has: the last, unless early stopping restored the best."""
    restored = [
        callback.best_epoch + 1
        for callback in callbacks
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.best_weights is not None
    ]
    return restored[0] if restored else len(history["loss"])


def verbosity(progress: bool) -> int:
    """Return Keras's own: a progress bar on a terminal, a line an epoch elsewhere, or nothing."""
    return 0 if not progress else 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2


def predict(model: keras.Model, x: Any) -> npt.NDArray[np.float32]:
    """Return the probability of each class for each image, shape (N, classes)."""
    with interrupts.deferred():
        return np.asarray(model.predict(x, batch_size=evaluation_batch(model), verbose=0))


def evaluation_batch(model: keras.Model) -> int:
    """Return how many images a model takes at once where none of them is learned from."""
    largest: int = max(math.prod(shape) for shape in (model.input_shape[1:], *output_shapes(model)))
    return max(EVALUATION_BATCH, _NUMBERS_AT_ONCE // largest)


def _make(kind: str, spec: Any, key: str) -> Any:
    try:
        return make(kind, spec)
    except InputError:
        raise
    except REFUSALS as error:
        raise InputError(f"{key}: {keras_reason(error)} (Keras says of {show(spec)})") from error
