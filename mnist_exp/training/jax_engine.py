"""Train models as one JAX program if only weights and optimizers' numbers differ.

One model is a stack of one; `jax_program.py` has the traced functions.
"""

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_exp import signals
from mnist_exp.config.keras_backend import REFUSALS, build_symbolically, is_out_of_memory, keras
from mnist_exp.config.schema import Training
from mnist_exp.data.datasets import Data, Images
from mnist_exp.data.memory import memory
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.training.checkpoints import Checkpoints
from mnist_exp.training.jax_program import (
    convolves_on_cpu,
    epoch_program,
    evaluation_program,
    split_by_job,
    stack_hyperparameters,
    stack_variables,
    unstack_variables,
)
from mnist_exp.training.models import build, check_size, output_shapes, serving_model, set_seed
from mnist_exp.training.preprocessing import fit_preprocessor
from mnist_exp.training.split import load_data
from mnist_exp.training.training import (
    EVALUATION_BATCH,
    FitResult,
    OnEpoch,
    TrainingResult,
    check_finite,
    compile_model,
    epoch_order,
    kept_epoch,
    make_callbacks,
    make_result,
    refusal,
    validated_scores,
    validation_is_test,
    verbosity,
)


def train(experiments: Sequence[Experiment], data: Data, on_epoch: OnEpoch) -> list[TrainingResult | InputError]:
    """Implement `Engine.train`, as one program.

    Args:
        experiments: alike but for their weights and numbers.
        data: of all of them.
        on_epoch: called after each epoch; see `OnEpoch`.
    """
    config, image_shape = experiments[0].config, data.x_train.shape[1:]
    preprocessor = fit_preprocessor(config.preprocessing, data)
    check_size(config.model, preprocessor.shape, data.classes)
    served, compiled = [], []
    for experiment in experiments:
        set_seed(experiment.config.seed)
        model = build(config.model, preprocessor.shape, data.classes)
        served.append(serving_model(model, preprocessor, image_shape))
        compiled.append(serving_model(model, preprocessor, image_shape, config.preprocessing.augment))
        compile_model(compiled[-1], experiment.config.optimizer, config.training, one_hot=preprocessor.one_hot)
    if experiments[0].prints and config.code is None and convolves_on_cpu(compiled[0]):
        print("Convolutions on a CPU: backend=tensorflow takes about half of the time", flush=True)
    training_set = data.x_train, np.asarray(preprocessor.labels(data.y_train))
    validation_set = data.x_validation, np.asarray(preprocessor.labels(data.y_validation))
    fitted = fit(compiled, experiments, training_set, validation_set, on_epoch)
    start = time.perf_counter()
    if validation_is_test(config):
        scores = [{} if isinstance(fit, InputError) else validated_scores(fit) for fit in fitted]
    else:
        scores = evaluate(compiled, data.x_test, np.asarray(preprocessor.labels(data.y_test)))
    seconds = (time.perf_counter() - start) / len(experiments)
    return [
        score if isinstance(score, InputError) else make_result(model, score, test, seconds)
        for model, score, test in zip(served, fitted, scores, strict=True)
    ]


def stack_size(experiment: Experiment, wanted: int) -> int:
    """Return how many experiments like this one fill half of the memory.

    Return `wanted` at most. A model with convolutions trains alone on a CPU, where the grouped convolutions of a stack
    take 2.4 times as long as one job after the other (8 filters, 2 cores).
    """
    config = experiment.config
    try:
        data = load_data(config.dataset)
        shape = fit_preprocessor(config.preprocessing, data).shape
        check_size(config.model, shape, data.classes)
        model = build(config.model, shape, data.classes)
    except Exception:  # each experiment will record it as its own failure
        return 1
    if convolves_on_cpu(model):
        return 1
    available, device = memory(), jax.devices()[0]
    if device.platform != "cpu":
        available = (device.memory_stats() or {}).get("bytes_limit", available)
    return max(1, min(wanted, available // 2 // _bytes_a_job(model, config.training.batch_size)))


def fit(
    models: Sequence[keras.Model],
    experiments: Sequence[Experiment],
    training_set: tuple[Images, Any],
    validation_set: tuple[Images, Any],
    on_epoch: OnEpoch,
) -> list[FitResult | InputError]:
    """Train compiled models of raw images as one program, traced from the first.

    Once half of the models in a program have stopped, the others go on in a smaller one.

    Args:
        models: compiled, and alike but for their weights and numbers.
        experiments: one for each model.
        training_set: raw images (N, ...) and prepared labels (N, ...).
        validation_set: the same, measured after each epoch.
        on_epoch: called after each epoch; see `OnEpoch`.

    Returns:
        For each model a `FitResult`, whose `seconds` are its share, or an error if its loss became NaN or infinite.

    Raises:
        InputError: for values that Keras refuses.
    """
    start = time.perf_counter()
    config, training, progress = experiments[0].config, experiments[0].config.training, experiments[0].prints
    order = partial(epoch_order, len(training_set[0]), training.shuffle, config.dataset.seed)
    stack = None
    try:
        callbacks = [
            keras.callbacks.CallbackList(
                make_callbacks(experiment),
                add_history=True,
                add_progbar=progress,
                model=model,
                epochs=training.epochs,
                steps=-(-len(training_set[0]) // training.batch_size),
                verbose=verbosity(progress),
            )
            for model, experiment in zip(models, experiments, strict=True)
        ]
        with signals.defer_signals():
            stack = _Stack(models, callbacks, training, training_set, validation_set)
            variables = [*models[0].variables, *models[0].optimizer.variables]
            checkpoints = Checkpoints(experiments[0], variables, callbacks[0].callbacks, start)
            if checkpoints.epoch:
                checkpoints.restore()
                stack.go_on()
            for epoch in range(checkpoints.epoch, training.epochs):
                stack.train(epoch, order(epoch), on_epoch)
                if not stack.running:
                    break
                if len(models) == 1 and checkpoints.are_due(epoch + 1):
                    stack.pause()
                    checkpoints.write(epoch + 1)
            stack.end()
    except InputError:
        raise
    except REFUSALS as error:
        if stack is not None and stack.has_trained and not is_out_of_memory(error):
            raise
        raise refusal(error, config, validation_set[1][:1], models[0].output_shape[-1]) from error
    seconds = checkpoints.seconds() / len(models)
    fitted: list[FitResult | InputError] = []
    for index, (model, callback_list) in enumerate(zip(models, callbacks, strict=True)):
        history = {name: list(values) for name, values in model.history.history.items()}
        fitted.append(
            stack.failed.get(index) or FitResult(history, seconds, kept_epoch(callback_list.callbacks, history))
        )
    return fitted


class _Stack:
    """Models that train as one program.

    Stopped ones stay in it until they are half of it.
    `running` has the indices of the models that still train, `failed` an error for each whose loss is not finite.
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
        build_symbolically(models[0], *(array[:1] for array in self._data[1]))
        self._run_epoch = epoch_program(models[0], training.batch_size)
        self.running = list(range(len(models)))
        self._stack(self.running)
        for index in self.running:
            callbacks[index].on_train_begin()
            models[index].stop_training = False

    def train(self, epoch: int, order: npt.NDArray[np.int64], on_epoch: OnEpoch) -> None:
        """Train the running models for an epoch, counted from 0."""
        if 2 * len(self.running) <= len(self._in_program):
            self._stack(self.running)
        for index in self.running:
            self._callbacks[index].on_epoch_begin(epoch)
        if self._has_callbacks:  # they may have changed variables
            self._state = stack_variables([self.models[index] for index in self._in_program])
        self._state, measured = self._run_epoch(self._state, self._scalars, order.astype(np.int32), *self._data)
        metrics = dict(zip(self._in_program, split_by_job(measured), strict=True))
        self.has_trained = True
        signals.raise_if_received()
        if self._has_callbacks:
            self._unstack(self.running)
        logged = {}
        for index in self.running:
            self._callbacks[index].on_epoch_end(epoch, metrics[index])  # adds to the metrics, such as the learning rate
            logged[index] = {name: values[-1] for name, values in self.models[index].history.history.items()}
        for index in on_epoch(epoch + 1, logged):
            self.models[index].stop_training = True
        for index in self.running:
            try:
                check_finite(epoch + 1, metrics[index])
            except InputError as error:
                self.failed[index] = error
        before = self.running
        self.running = [i for i in before if i not in self.failed and not self.models[i].stop_training]
        if len(self.running) < len(before) and not self._has_callbacks:
            self._unstack(before)

    def pause(self) -> None:
        """Write the learned weights into the models."""
        if not self._has_callbacks:  # with callbacks, the models have it already
            self._unstack(self.running)

    def go_on(self) -> None:
        """Go on with models that have learned."""
        self.has_trained = True
        self._stack(self.running)

    def end(self) -> None:
        """Write the learned weights into the models."""
        self._unstack(self.running)
        for index, model in enumerate(self.models):
            if index not in self.failed:
                model.optimizer.finalize_variable_values(model.trainable_variables)
                self._callbacks[index].on_train_end()

    def _stack(self, indices: list[int]) -> None:
        models = [self.models[index] for index in indices]
        self._in_program, self._state, self._scalars = indices, stack_variables(models), stack_hyperparameters(models)

    def _unstack(self, indices: Sequence[int]) -> None:
        if indices:
            unstack_variables(self._state, {self._in_program.index(index): self.models[index] for index in indices})


def evaluate(models: Sequence[keras.Model], x: Images, y: Any) -> list[dict[str, float]]:
    """Return each model's loss and metrics by name.

    Args:
        models: compiled, and alike but for their weights.
        x: raw images (N, ...).
        y: prepared labels (N, ...).
    """
    with signals.defer_signals():
        measured = evaluation_program(models[0])(stack_variables(models), jnp.asarray(x), jnp.asarray(y))
    return [{"loss": scores.pop("loss"), **scores} for scores in split_by_job(measured)]


def _bytes_a_job(model: keras.Model, batch_size: int) -> int:
    """Estimate a job's memory in bytes.

    A weight counts with its gradient and two optimizer variables, three times: in the model, in the stack and between
    them. A batch counts each layer's output with its gradient, twice, since XLA may keep a copy.
    """
    weights, outputs = int(model.count_params()), sum(map(math.prod, output_shapes(model)))
    return 4 * (12 * weights + 4 * max(batch_size, EVALUATION_BATCH) * outputs)
