"""Compile, fit and evaluate a model."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_exp import interrupts
from mnist_exp.config import Training
from mnist_exp.datasets import Images, Labels
from mnist_exp.errors import InputError
from mnist_exp.keras_backend import keras
from mnist_exp.keras_names import show
from mnist_exp.models import REFUSALS, keras_reason, make
from mnist_exp.preprocessing import Preprocessor

EpochMetrics = Mapping[str, float]

# Images of a validation batch, at least: larger ones save a large network little time and cost it much memory.
EVALUATION_BATCH = 2000
# What a small network may have at once instead: 32 MB in its largest layer.
_NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Fitted:
    """`history`: a list a metric, one value an epoch. `seconds`: wall time of `fit`. `kept_epoch`: from 1, the epoch
    whose weights the model has: the last, unless early stopping restored the best."""

    history: dict[str, list[float]]
    seconds: float
    kept_epoch: int


class Batches:
    """The training images in batches, changed by `augment` and prepared from bytes when they are due.

    The order of an epoch depends on `seed` and the epoch alone, so that all models that share a `dataset.seed` see
    the same batches.
    """

    def __init__(
        self,
        x: Images,
        y: Labels,
        preprocessor: Preprocessor,
        augment: Callable[[Any], Any],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
    ) -> None:
        import tensorflow

        self._order_of = partial(epoch_order, len(x), shuffle, seed)
        with tensorflow.device("CPU"):
            images, labels = tensorflow.constant(x), tensorflow.constant(y)
            self._order = tensorflow.Variable(self._order_of(0))

        # No Python runs inside the pipeline: a thread of it that waits for Python blocks the exit after Ctrl-C.
        def batch(positions: Any) -> tuple[Any, Any]:
            chosen = tensorflow.gather(self._order, positions)
            raw = tensorflow.gather(images, chosen), tensorflow.gather(labels, chosen)
            return preprocessor.images(augment(raw[0])), preprocessor.labels(raw[1])

        self.dataset = tensorflow.data.Dataset.range(len(x)).batch(batch_size).map(batch).prefetch(2)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass over `dataset` have the order of `epoch`, counted from 0."""
        self._order.assign(self._order_of(epoch))


def epoch_order(count: int, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The positions of `count` images in the order of `epoch`, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)


class _EpochBegin(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._batches.set_epoch(epoch)


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands each epoch's metrics on, and stops a run that was interrupted or whose loss is no longer a number."""

    def __init__(self, on_epoch: Callable[[int, EpochMetrics], None] | None) -> None:
        super().__init__()
        self._on_epoch = on_epoch
        self.epochs = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        interrupts.raise_if_received()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        interrupts.raise_if_received()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.epochs += 1
        if self._on_epoch is not None:
            self._on_epoch(epoch + 1, metrics)
        check_finite(epoch + 1, metrics)


def check_finite(epoch: int, metrics: EpochMetrics) -> None:
    """Check the losses of an epoch, counted from 1.

    Raises:
        InputError: if one is NaN or infinite.
    """
    for name in ("loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            raise InputError(
                f"{name} became {metrics[name]} in epoch {epoch}; a smaller optimizer.learning_rate, or "
                "optimizer.clipnorm=1.0, keeps it finite"
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
    # Between the replicas of one model; there is one. TensorFlow would keep the graph of this step for good: its
    # all_reduce registers a gradient that is never removed, 1.6 MB a job (tensorflow 2.21, ops/custom_gradient.py).
    made._all_reduce_sum_gradients = list
    model.compile(
        optimizer=made,
        loss=_make("losses", loss, "training.loss"),
        metrics=[m if m == "accuracy" else _make("metrics", m, "training.metrics") for m in training.metrics],
    )


def fit(
    model: keras.Model,
    batches: Batches,
    validation: tuple[Any, Any],
    training: Training,
    *,
    output: Path = Path(),
    on_epoch: Callable[[int, EpochMetrics], None] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train the compiled `model`, with Keras's progress bar on a terminal and a line an epoch elsewhere.

    Args:
        model: compiled by `compile_model`.
        batches: of prepared training images.
        validation: prepared images and labels, measured after each epoch.
        training: epochs and callbacks.
        output: the folder that callbacks write into; by default the current one.
        on_epoch: called after each epoch with its number, from 1, and its metrics; by default nothing is.
        progress: whether to show it.

    Raises:
        InputError: if the loss becomes NaN or infinite, or Keras refuses, before an epoch has
            ended, what only it can judge.
    """
    watch = _Watch(on_epoch)
    start = time.perf_counter()
    try:
        callbacks = make_callbacks(training, output)
        _create_variables(model, *validation)
        with interrupts.deferred():
            history = model.fit(
                batches.dataset,
                epochs=training.epochs,
                validation_data=validation,
                validation_batch_size=_evaluation_batch(model),
                callbacks=[_EpochBegin(batches), *callbacks, watch],
                shuffle=False,  # the order is that of `batches`
                verbose=verbosity(progress),
            )
    except InputError:
        raise
    except REFUSALS as error:
        if watch.epochs:
            raise
        raise InputError(f"Keras cannot train with these arguments: {keras_reason(error)}") from error
    seconds = time.perf_counter() - start
    measured = {name: [float(v) for v in values] for name, values in history.history.items()}
    return Fitted(measured, seconds, kept_epoch(callbacks, measured))


def make_callbacks(training: Training, output: Path) -> list[Any]:
    """The configured Keras callbacks of one model; those that write do so into `output`."""
    return [make("callbacks", {name: arguments}, output) for name, arguments in training.callbacks.items()]


def kept_epoch(callbacks: Sequence[Any], history: Mapping[str, Sequence[float]]) -> int:
    """The epoch, from 1, whose weights a model has at the end: the last, unless early stopping restored the best."""
    restored = [
        callback.best_epoch + 1
        for callback in callbacks
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.best_weights is not None
    ]
    return restored[0] if restored else len(history["loss"])


def verbosity(progress: bool) -> int:
    """Keras's: a progress bar on a terminal, a line an epoch elsewhere, or nothing."""
    return 0 if not progress else 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2


def _create_variables(model: keras.Model, x: Any, y: Any) -> None:
    """Create the variables of the optimizer and the metrics; `fit` would, but trace its step a second time for it."""
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(x[:1], y[:1], model(x[:1]))
    model.reset_metrics()


def evaluate(model: keras.Model, x: Any, y: Any) -> dict[str, float]:
    """The loss, then the metrics of the compiled `model` on prepared images, by name."""
    with interrupts.deferred():
        scores = model.evaluate(x, y, batch_size=_evaluation_batch(model), verbose=0, return_dict=True)
    return {"loss": float(scores.pop("loss")), **{name: float(value) for name, value in scores.items()}}


def predict(model: keras.Model, x: Any) -> Labels:
    """The most probable class of each prepared image, shape (N,)."""
    with interrupts.deferred():
        predicted = model.predict(x, batch_size=_evaluation_batch(model), verbose=0).argmax(axis=1)
    return predicted.astype(np.int64)  # type: ignore[no-any-return]


def _evaluation_batch(model: keras.Model) -> int:
    shapes = [model.input_shape, *(layer.output.shape for layer in model.layers)]
    return max(EVALUATION_BATCH, _NUMBERS_AT_ONCE // max(int(math.prod(shape[1:])) for shape in shapes))


def _make(kind: str, spec: Any, key: str) -> Any:
    try:
        return make(kind, spec)
    except InputError:
        raise
    except REFUSALS as error:
        raise InputError(f"{key}: {keras_reason(error)} (Keras says of {show(spec)})") from error
