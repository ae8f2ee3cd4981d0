"""The TensorFlow engine: Keras's own `fit`, one experiment at a time."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mnist_exp import signals
from mnist_exp.config.keras_backend import REFUSALS, get_unseeded_state, is_out_of_memory, keras
from mnist_exp.config.schema import callbacks_within_epochs
from mnist_exp.data.datasets import Data, Images, Labels
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.training import models
from mnist_exp.training.checkpoints import Checkpoints
from mnist_exp.training.preprocessing import Preprocessor, fit_preprocessor
from mnist_exp.training.training import (
    FitResult,
    OnEpoch,
    TrainingResult,
    check_finite,
    compile_model,
    epoch_order,
    evaluation_batch,
    kept_epoch,
    make_callbacks,
    make_result,
    refusal,
    validated_scores,
    validation_is_test,
    verbosity,
)

# Limits of the batches of a small network that Keras starts at once: multiplications, and their number.
_PRODUCTS_AT_ONCE, _MOST_AT_ONCE = 10**9, 50


def train(experiments: Sequence[Experiment], data: Data, on_epoch: OnEpoch) -> list[TrainingResult | InputError]:
    """Implement `Engine.train`.

    Args:
        experiments: a single one.
        data: of the experiment.
        on_epoch: called after each epoch; see `OnEpoch`.
    """
    [experiment] = experiments
    config, image_shape = experiment.config, data.x_train.shape[1:]
    preprocessor = fit_preprocessor(config.preprocessing, data)
    models.check_size(config.model, preprocessor.shape, data.classes)
    models.set_seed(config.seed)
    model = models.build(config.model, preprocessor.shape, data.classes)
    compile_model(model, config.optimizer, config.training, one_hot=preprocessor.one_hot)
    batches = Batches(
        data.x_train,
        data.y_train,
        preprocessor,
        models.augmentation_model(config.preprocessing.augment, image_shape, preprocessor.raw),
        batch_size=config.training.batch_size,
        shuffle=config.training.shuffle,
        seed=config.dataset.seed,
    )
    size = evaluation_batch(model)
    test = validation = Batches(data.x_test, data.y_test, preprocessor, batch_size=size)
    if not data.watches_test_set:
        validation = Batches(data.x_validation, data.y_validation, preprocessor, batch_size=size)
    fitted = fit(model, batches, validation.dataset, experiment, on_epoch)
    start = time.perf_counter()
    scores = validated_scores(fitted) if validation_is_test(config) else evaluate(model, test.dataset)
    seconds = time.perf_counter() - start
    return [make_result(models.serving_model(model, preprocessor, image_shape), fitted, scores, seconds)]


def stack_size(experiment: Experiment, wanted: int) -> int:  # noqa: ARG001
    """Return 1: `fit` trains one model."""
    return 1


class Batches:
    """Batches of images, augmented and prepared as they are needed.

    Their order depends on `seed` and the epoch alone; the random state of `augment` is in `variables`. Of plain arrays,
    Keras would make copies in each epoch.
    """

    def __init__(
        self,
        x: Images,
        y: Labels,
        preprocessor: Preprocessor,
        augment: keras.Sequential | None = None,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        import tensorflow

        self.variables = [] if augment is None else augment.variables
        self._order_of = partial(epoch_order, len(x), shuffle, seed)
        with tensorflow.device("CPU"):
            images, labels = tensorflow.constant(x), tensorflow.constant(y)
            self._order = tensorflow.Variable(self._order_of(0))

        # The pipeline runs no Python: a thread that waits for it would block the exit after Ctrl-C.
        def batch(positions: Any) -> tuple[Any, Any]:
            chosen = tensorflow.gather(self._order, positions)
            raw, classes = tensorflow.gather(images, chosen), tensorflow.gather(labels, chosen)
            changed = raw if augment is None else augment(raw, training=True)
            return preprocessor.images(changed), preprocessor.labels(classes)

        options = tensorflow.data.Options()
        options.autotune.enabled = False  # tuning takes a fifth of a small network's epoch
        dataset = tensorflow.data.Dataset.range(len(x)).batch(batch_size).map(batch).prefetch(2)
        self.dataset = dataset.with_options(options)

    def set_epoch(self, epoch: int) -> None:
        """Give the next pass over `dataset` the order of `epoch`, counted from 0."""
        self._order.assign(self._order_of(epoch))


def fit(
    model: keras.Model,
    batches: Batches,
    validation: Any,
    experiment: Experiment,
    on_epoch: OnEpoch = lambda _epoch, _metrics: (),
) -> FitResult:
    """Train a compiled model, and measure prepared `validation` after each epoch.

    Args:
        model: compiled.
        batches: of prepared images and labels, in the order of each epoch.
        validation: a dataset of prepared batches.
        experiment: that trains.
        on_epoch: called after each epoch; see `OnEpoch`.

    Raises:
        InputError: if the loss becomes NaN or infinite, or Keras refuses the arguments in the first epoch.
    """
    start = time.perf_counter()
    training, watch = experiment.config.training, None
    with signals.defer_signals():
        image, label = (part[:1] for part in next(iter(validation)))
    model.steps_per_execution = _batches_at_once(model, experiment, int(batches.dataset.cardinality()))
    try:
        callbacks = [*make_callbacks(experiment), keras.callbacks.History()]
        # If `fit` has to create the variables of optimizer and metrics, it traces its step twice.
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(image, label, model(image))
        model.reset_metrics()
        variables = [*model.variables, *model.optimizer.variables, *batches.variables, get_unseeded_state()]
        checkpoints = Checkpoints(experiment, variables, callbacks, start)
        watch = _Watch(batches, on_epoch, checkpoints)
        with signals.defer_signals():
            history = model.fit(
                batches.dataset,
                epochs=training.epochs,
                initial_epoch=checkpoints.epoch,
                validation_data=validation,
                callbacks=[*callbacks, watch],
                shuffle=False,  # `batches` are in order
                verbose=verbosity(experiment.prints),
            )
    except InputError:
        raise
    except REFUSALS as error:
        if watch is not None and watch.epochs and not is_out_of_memory(error):
            raise
        raise refusal(error, experiment.config, label, model.output_shape[-1]) from error
    metrics = {name: list(map(float, values)) for name, values in history.history.items()}
    return FitResult(metrics, checkpoints.seconds(), kept_epoch(callbacks, metrics))


def _batches_at_once(model: keras.Model, experiment: Experiment, batches: int) -> int:
    """Return how many batches Keras trains between looks for signals.

    A small network then waits less for Python.
    It divides the number of batches in an epoch. Networks with more than vectors in them take their batches one by one,
    as do augmentation and callbacks that act on batches.
    """
    training = experiment.config.training
    vectors = all(len(shape) == 1 for shape in (model.input_shape[1:], *models.output_shapes(model)))
    if not vectors or experiment.config.preprocessing.augment or callbacks_within_epochs(training):
        return 1
    most = min(_MOST_AT_ONCE, 1 + _PRODUCTS_AT_ONCE // (training.batch_size * max(1, model.count_params())))
    return next(number for number in range(most, 0, -1) if batches % number == 0)


def evaluate(model: keras.Model, batches: Any) -> dict[str, float]:
    """Return a model's loss and metrics by name on a dataset of prepared batches."""
    with signals.defer_signals():
        scores = model.evaluate(batches, verbose=0, return_dict=True)
    return {"loss": float(scores.pop("loss")), **{name: float(value) for name, value in scores.items()}}


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Order epochs, report metrics, and stop pruned, interrupted or diverging runs.

    The last of the callbacks, since it writes the checkpoints.
    """

    def __init__(self, batches: Batches, on_epoch: OnEpoch, checkpoints: Checkpoints) -> None:
        super().__init__()
        self._batches, self._on_epoch, self._checkpoints = batches, on_epoch, checkpoints
        self.epochs = checkpoints.epoch

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        if self.epochs:
            self._checkpoints.restore()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        self._batches.set_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        signals.raise_if_received()

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        signals.raise_if_received()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.epochs += 1
        if 0 in self._on_epoch(epoch + 1, {0: metrics}):
            self.model.stop_training = True
        check_finite(epoch + 1, metrics)
        if not self.model.stop_training and self._checkpoints.are_due(epoch + 1):
            self._checkpoints.write(epoch + 1)
