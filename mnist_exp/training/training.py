"""Define the parts of both engines: compiled models, callbacks and results."""

import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp import signals
from mnist_exp.config import keras_names
from mnist_exp.config.keras_backend import (
    REFUSALS,
    disable_all_reduce,
    find_schedule,
    is_out_of_memory,
    keras,
    keras_reason,
)
from mnist_exp.config.schema import Config, Training
from mnist_exp.errors import InputError, format_value
from mnist_exp.experiment import Experiment
from mnist_exp.training.models import make_keras_object, output_shapes

# Takes the number of an epoch, from 1, and the metrics of each experiment that trained in it, by index; returns the
# indices of those to stop.
OnEpoch = Callable[[int, Mapping[int, Mapping[str, float]]], Collection[int]]

# Images in a validation batch, at least. Larger batches cost a large network much memory and save it little time; a
# small network takes more, up to 8 MB in its largest layer.
EVALUATION_BATCH = 2000
_NUMBERS_AT_ONCE = 2**21

_BAR_CHARS = 45  # Keras's bar before its metrics


@dataclass(frozen=True)
class TrainingResult:
    """A trained experiment.

    `model` takes raw images. `history` has a value per epoch for each metric. `kept_epoch`, from 1, is the epoch whose
    weights the model has: the last, unless early stopping restored the best. `scores` are `test_loss`, a `test_` value
    for each metric, and `fit_seconds`, the wall time of `fit`; `seconds` include evaluation.
    """

    model: keras.Model
    history: dict[str, list[float]]
    kept_epoch: int
    scores: dict[str, float]
    seconds: float

    def value(self, metric: str) -> float:
        """Return a score, or an epoch metric's value in the epoch of the kept weights."""
        return self.scores[metric] if metric in self.scores else self.history[metric][self.kept_epoch - 1]


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`, with its wall time in `seconds`."""

    history: dict[str, list[float]]
    seconds: float
    kept_epoch: int


def make_result(served: keras.Model, fitted: FitResult, test: Mapping[str, float], seconds: float) -> TrainingResult:
    """Combine a trained model with its test scores.

    Args:
        served: takes raw images.
        fitted: with the epochs.
        test: the scores on test images by name.
        seconds: the time of measuring them.
    """
    scores = {f"test_{name}": value for name, value in test.items()} | {"fit_seconds": fitted.seconds}
    return TrainingResult(served, fitted.history, fitted.kept_epoch, scores, fitted.seconds + seconds)


def validation_is_test(config: Config) -> bool:
    """Whether validation measured the final weights on the test set already."""
    return config.dataset.validation == "test" and not config.optimizer.get("use_ema")


def validated_scores(fitted: FitResult) -> dict[str, float]:
    """Return the `val_` metrics of the kept epoch without that prefix, the loss first."""
    kept = {name: values[fitted.kept_epoch - 1] for name, values in fitted.history.items()}
    names = [name for name in kept if f"val_{name}" in kept and name != "loss"]
    return {name: kept[f"val_{name}"] for name in ("loss", *names)}


def epoch_order(count: int, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the positions of images, (count,), in the order of an epoch.

    Args:
        count: of images.
        shuffle: whether each epoch has an order of its own.
        seed: of all orders.
        epoch: counted from 0.
    """
    return np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)


def check_finite(epoch: int, metrics: Mapping[str, float]) -> None:
    """Raise InputError if a loss of an epoch, counted from 1, is NaN or infinite."""
    for name in ("loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            raise InputError(
                f"{name} became {metrics[name]} in epoch {epoch}; try a smaller optimizer.learning_rate, or "
                "optimizer.clipnorm=1.0"
            )


def compile_model(model: keras.Model, optimizer: Mapping[str, Any], training: Training, *, one_hot: bool) -> None:
    """Compile a model, by default with the cross-entropy that fits the labels.

    Args:
        model: not yet compiled.
        optimizer: `kind` and arguments.
        training: with the loss and the metrics.
        one_hot: whether labels are one-hot vectors, else integers.

    Raises:
        InputError: for arguments that Keras refuses.
    """
    arguments = {key: value for key, value in optimizer.items() if key != "kind"}
    if isinstance(arguments["learning_rate"], int):
        arguments["learning_rate"] = float(arguments["learning_rate"])  # Keras refuses 1
    loss = training.loss or ("CategoricalCrossentropy" if one_hot else "SparseCategoricalCrossentropy")
    made = make_keras_object("optimizers", {optimizer["kind"]: arguments}, "optimizer")
    disable_all_reduce(made)
    model.compile(
        optimizer=made,
        loss=make_keras_object("losses", loss, "training.loss"),
        metrics=[
            metric if metric == "accuracy" else make_keras_object("metrics", metric, f"training.metrics[{index}]")
            for index, metric in enumerate(training.metrics)
        ],
    )


def refusal(error: Exception, config: Config, label: Any, classes: int) -> InputError:
    """Return Keras's refusal in a step, with the key that it is about.

    Args:
        error: of Keras.
        config: of the experiment.
        label: a prepared label of shape (1, ...).
        classes: the number of output units.
    """
    reason, training = keras_reason(error), config.training
    if is_out_of_memory(error):
        return InputError(f"model={config.model.kind}: does not fit into memory ({reason}); type smaller numbers")
    probabilities = np.full((1, classes), 1 / classes, np.float32)
    specs = [("losses", training.loss, "training.loss")]
    specs += [("metrics", metric, f"training.metrics[{index}]") for index, metric in enumerate(training.metrics)]
    for kind, spec, key in specs:
        try:
            if spec not in (None, "accuracy"):
                make_keras_object(kind, spec, key)(label, probabilities)
        except REFUSALS:
            return InputError(f"{key}={format_value(spec)}: Keras cannot train with these arguments: {reason}")
    keys = f"optimizer={config.optimizer['kind']}"
    if config.model.kind == "layers":
        keys += " or model=layers"
    return InputError(f"{keys}: Keras cannot train with these arguments: {reason}")


def make_callbacks(experiment: Experiment) -> list[Any]:
    """Make a model's callbacks, the one for schedules first.

    They write into `output`.
    """
    callbacks = experiment.config.training.callbacks
    configured = [_callback(name, arguments, experiment.output) for name, arguments in callbacks.items()]
    return [_ScheduledRate(), *configured, *([_Bar()] if experiment.prints else [])]


def _callback(name: str, arguments: Any, output: Path) -> Any:
    """Make a callback, whose values Keras may refuse while training, as InputError."""
    spec = {name: arguments}
    callback = make_keras_object("callbacks", spec, "training.callbacks", output)

    def checked(hook: Callable[..., None], *given: Any) -> None:
        try:
            hook(*given)
        except REFUSALS as error:
            raise InputError(f"training.callbacks={format_value(spec)}: {keras_reason(error)}") from error

    if not keras_names.is_own("callbacks", spec):
        for hook in ("on_train_begin", "on_epoch_end"):
            setattr(callback, hook, partial(checked, getattr(callback, hook)))
    return callback


class _ScheduledRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Report a schedule's learning rate at an epoch's last step, as Keras does."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        optimizer = self.model.optimizer
        if logs is not None and (schedule := find_schedule(optimizer)) is not None:
            # With JAX the optimizer's own count may not be up to date here.
            step = self.params["steps"] * (epoch + 1) - 1
            logs["learning_rate"] = float(schedule(keras.ops.convert_to_tensor(step, optimizer.iterations.dtype)))


class _Bar(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """Keras's progress bar, with results on a second line of a narrow terminal."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        shown, below = logs or {}, ""
        if sys.stdout.isatty() and len(_join_names(shown)) + _BAR_CHARS > shutil.get_terminal_size().columns:
            during = {name: value for name, value in shown.items() if not name.startswith(("val_", "learning_rate"))}
            below = _join_names({name: value for name, value in shown.items() if name not in during})
            shown = during
        super().on_epoch_end(epoch, shown)
        if below:
            print(below)


def _join_names(metrics: Mapping[str, float]) -> str:
    return " - ".join(f"{name}: {value:.4f}" for name, value in metrics.items())


def kept_epoch(callbacks: Sequence[Any], history: Mapping[str, Sequence[float]]) -> int:
    """Return the epoch, from 1, whose weights a model has after training."""
    restored = [
        callback.best_epoch + 1
        for callback in callbacks
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.best_weights is not None
    ]
    return restored[0] if restored else len(history["loss"])


def verbosity(progress: bool) -> int:
    """Return Keras's `verbose`: a bar in a terminal or notebook, or a line an epoch."""
    has_bar = (sys.stdout.isatty() and not os.environ.get("NO_COLOR")) or "ipykernel" in sys.modules
    return 0 if not progress else 1 if has_bar else 2


def predict(model: keras.Model, x: Any) -> npt.NDArray[np.float32]:
    """Return the probability of each class for each image, shape (N, classes)."""
    with signals.defer_signals():
        return np.asarray(model.predict(x, batch_size=evaluation_batch(model), verbose=0))


def evaluation_batch(model: keras.Model) -> int:
    """Return the batch size for evaluating a model."""
    largest: int = max(math.prod(shape) for shape in (model.input_shape[1:], *output_shapes(model)))
    return max(EVALUATION_BATCH, _NUMBERS_AT_ONCE // largest)
