"""The JAX engine: models that differ in their weights and in numbers of their optimizers train as one program.

A model alone is a stack of one; `jax_program.py` has what is traced.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_exp import interrupts
from mnist_exp.config.schema import Training
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.learning.datasets import Data, Images, load
from mnist_exp.learning.jax_program import (
    epoch_program,
    evaluation_program,
    of_each_job,
    scalars_of,
    stacked,
    take_out,
)
from mnist_exp.learning.keras_backend import REFUSALS, build_symbolically, keras, keras_reason
from mnist_exp.learning.memory import memory
from mnist_exp.learning.models import build, output_shapes, servable, set_seed
from mnist_exp.learning.preprocessing import fit_preprocessor
from mnist_exp.learning.training import (
    EVALUATION_BATCH,
    Fitted,
    OnEpoch,
    Trained,
    check_finite,
    compile_model,
    epoch_order,
    kept_epoch,
    make_callbacks,
    trained,
    validated_as_tested,
    validated_scores,
    verbosity,
)

# Jobs of a stack, at most: each keeps its log open, and a process may have few files open, on macOS 256.
_MOST_JOBS = 200


def train(experiments: Sequence[Experiment], data: Data, on_epoch: OnEpoch) -> list[Trained | InputError]:
    """Train experiments as one program; see `Engine.train`."""
    config, image_shape = experiments[0].config, data.x_train.shape[1:]
    preprocessor = fit_preprocessor(config.preprocessing, data)
    served, compiled = [], []
    for experiment in experiments:
        set_seed(experiment.config.seed)
        model = build(config.model, preprocessor.shape, data.classes)
        served.append(servable(model, preprocessor, image_shape))
        compiled.append(servable(model, preprocessor, image_shape, config.preprocessing.augment))
        compile_model(compiled[-1], experiment.config.optimizer, config.training, one_hot=preprocessor.one_hot)
    start = time.perf_counter()
    fitted = fit(
        compiled,
        (data.x_train, np.asarray(preprocessor.labels(data.y_train))),
        (data.x_validation, np.asarray(preprocessor.labels(data.y_validation))),
        partial(epoch_order, len(data.x_train), config.training.shuffle, config.dataset.seed),
        config.training,
        outputs=[experiment.output for experiment in experiments],
        on_epoch=on_epoch,
        progress=experiments[0].prints,
    )
    if validated_as_tested(config):
        scores = [{} if isinstance(one, InputError) else validated_scores(one) for one in fitted]
    else:
        scores = evaluate(compiled, data.x_test, np.asarray(preprocessor.labels(data.y_test)))
    seconds = (time.perf_counter() - start) / len(experiments)
    return [
        one if isinstance(one, InputError) else trained(model, one, test, seconds)
        for model, one, test in zip(served, fitted, scores, strict=True)
    ]


def stack_size(experiment: Experiment, wanted: int) -> int:
    """Return how many experiments like this one to train as one program: as many as half of the memory takes.

    On a CPU, of a model with convolutions one: those of a stack become grouped convolutions, which there take longer
    than one after the other (2.4 times, measured with 8 filters on 2 cores).
    """
    config = experiment.config
    try:
        data = load(config.dataset)
        model = build(config.model, fit_preprocessor(config.preprocessing, data).shape, data.classes)
    except Exception:  # which each will record as its own failure
        return 1
    device = jax.devices()[0]
    if device.platform == "cpu" and any("Conv" in type(layer).__name__ for layer in model.layers):
        return 1
    available = memory()
    if device.platform != "cpu":
        available = (device.memory_stats() or {}).get("bytes_limit", available)
    return max(1, min(wanted, _MOST_JOBS, available // 2 // _bytes_a_job(model, config.training.batch_size)))


def fit(
    models: Sequence[keras.Model],
    training_set: tuple[Images, Any],
    validation_set: tuple[Images, Any],
    order: Callable[[int], npt.NDArray[np.int64]],
    training: Training,
    *,
    outputs: Sequence[Path],
    on_epoch: OnEpoch,
    progress: bool,
) -> list[Fitted | InputError]:
    """Train compiled models, each of which takes raw images, as one program; traced from the first of them.

    Args:
        models: alike but for their weights, learning rates and the numbers in `stacking.SCALARS`.
        training_set: raw images (N, ...) and their prepared labels (N, ...).
        validation_set: the same, measured after each epoch.
        order: the positions of all training images in an epoch, counted from 0.
        training: epochs, batch size and callbacks.
        outputs: the folder that each model's callbacks write into.
        on_epoch: called after each epoch; a model that it stops trains no further. Once half of the models of a program
            have stopped, for whatever reason, the others go on in a smaller one.
        progress: whether to show Keras's progress bar, an epoch a step.

    Returns:
        Of each model a `Fitted`, whose `seconds` are its share; an error where its loss is no number.

    Raises:
        InputError: for what only Keras can judge.
    """
    start = time.perf_counter()
    stack = None
    try:
        callbacks = [
            keras.callbacks.CallbackList(
                make_callbacks(training, output),
                add_history=True,
                add_progbar=progress,
                model=model,
                epochs=training.epochs,
                steps=-(-len(training_set[0]) // training.batch_size),
                verbose=verbosity(progress),
            )
            for model, output in zip(models, outputs, strict=True)
        ]
        with interrupts.deferred():
            stack = _Stack(models, callbacks, training, training_set, validation_set)
            for epoch in range(training.epochs):
                if not stack.running:
                    break
                stack.train(epoch, order(epoch), on_epoch)
            stack.end()
    except InputError:
        raise
    except REFUSALS as error:
        if stack is not None and stack.has_trained:
            raise
        raise InputError(f"Keras cannot train with these arguments: {keras_reason(error)}") from error
    seconds = (time.perf_counter() - start) / len(models)
    fitted: list[Fitted | InputError] = []
    for index, (model, callback_list) in enumerate(zip(models, callbacks, strict=True)):
        history = {name: list(values) for name, values in model.history.history.items()}
        fitted.append(stack.failed.get(index) or Fitted(history, seconds, kept_epoch(callback_list.callbacks, history)))
    return fitted


class _Stack:
    """Models that train as one program, those that stopped among them until they are half of it.

    `running`: the places of the models that still train. `failed`: an error for each whose loss is no number.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        callbacks: Sequence[keras.callbacks.CallbackList],
        training: Training,
        training_set: tuple[Images, Any],
        validation_set: tuple[Images, Any],
    ) -> None:
        self.models, self._callbacks, self._has_callbacks = models, callbacks, bool(training.callbacks)
        self.failed: dict[int, InputError] = {}
        self.has_trained = False
        self._data = jax.tree.map(jnp.asarray, (training_set, validation_set))
        for model in models:
            model.optimizer.build(model.trainable_variables)
        build_symbolically(models[0], *(of[:1] for of in self._data[1]))
        self._run_epoch = jax.jit(epoch_program(models[0], training.batch_size), donate_argnums=0)
        self.running = list(range(len(models)))
        self._put_in_running()
        for index in self.running:
            callbacks[index].on_train_begin()
            models[index].stop_training = False

    def train(self, epoch: int, order: npt.NDArray[np.int64], on_epoch: OnEpoch) -> None:
        """Train those that run for an epoch, counted from 0; see `fit` for the other arguments."""
        if 2 * len(self.running) <= len(self._in_program):
            self._put_in_running()
        for index in self.running:
            self._callbacks[index].on_epoch_begin(epoch)
        if self._has_callbacks:  # which may have changed variables
            self._state = stacked([self.models[index] for index in self._in_program])
        self._state, measured = self._run_epoch(self._state, self._scalars, jnp.asarray(order, jnp.int32), *self._data)
        metrics = dict(zip(self._in_program, of_each_job(measured), strict=True))
        self.has_trained = True
        interrupts.raise_if_received()
        if self._has_callbacks:
            self._take_out(self.running)
        for index in self.running:
            self._callbacks[index].on_epoch_end(epoch, metrics[index])
        # With what callbacks added, such as the learning rate.
        ends = {
            index: {name: of[-1] for name, of in self.models[index].history.history.items()} for index in self.running
        }
        for index in on_epoch(epoch + 1, ends):
            self.models[index].stop_training = True
        for index in self.running:
            try:
                check_finite(epoch + 1, metrics[index])
            except InputError as error:
                self.failed[index] = error
        trained_in_it = self.running
        self.running = [i for i in trained_in_it if i not in self.failed and not self.models[i].stop_training]
        if len(self.running) < len(trained_in_it) and not self._has_callbacks:
            self._take_out(trained_in_it)

    def end(self) -> None:
        """Give the models what they have learned."""
        self._take_out(self.running)
        for index, model in enumerate(self.models):
            if index not in self.failed:
                model.optimizer.finalize_variable_values(model.trainable_variables)
                self._callbacks[index].on_train_end()

    def _put_in_running(self) -> None:
        models = [self.models[index] for index in self.running]
        self._in_program, self._state, self._scalars = self.running, stacked(models), scalars_of(models)

    def _take_out(self, indices: Sequence[int]) -> None:
        if indices:
            take_out(self._state, {self._in_program.index(index): self.models[index] for index in indices})


def evaluate(models: Sequence[keras.Model], x: Images, y: Any) -> list[dict[str, float]]:
    """Return the loss, then the metrics of each of the compiled models on raw images and prepared labels, by name."""
    with interrupts.deferred():
        program = jax.jit(evaluation_program(models[0]))
        measured = program(stacked(models), jnp.asarray(x), jnp.asarray(y))
    return of_each_job(measured)


def _bytes_a_job(model: keras.Model, batch_size: int) -> int:
    """Estimate: a weight with its gradient and two optimizer variables in the model, in the stack and on their way
    between; and, for a batch, each layer's output with its gradient, twice as XLA may keep a copy. Four bytes each."""
    weights, outputs = int(model.count_params()), sum(map(math.prod, output_shapes(model)))
    return 4 * (12 * weights + 4 * max(batch_size, EVALUATION_BATCH) * outputs)
