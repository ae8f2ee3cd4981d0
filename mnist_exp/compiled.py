"""The compiled engine: models that differ in their weights and in numbers of their optimizers train as one JAX program.

The variables of all models are stacked along a leading axis, the jobs', and `jax.vmap` turns the training step of one
job into that of all; an epoch with its validation is one program. All jobs see the same batches in the same order. A
model alone is a stack of one.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_exp import interrupts
from mnist_exp.config import Training
from mnist_exp.datasets import Images
from mnist_exp.errors import InputError
from mnist_exp.keras_backend import keras
from mnist_exp.models import REFUSALS, keras_reason
from mnist_exp.stacking import SCALARS
from mnist_exp.training import EVALUATION_BATCH, Fitted, check_finite, kept_epoch, make_callbacks, verbosity

# The values of a stack's variables: trainable, others, and the optimizer's; each has the jobs as its first axis.
State = tuple[list[Any], list[Any], list[Any]]

# Jobs of a stack, at most: each keeps its log open, and a process may have few files open, on macOS 256.
_MOST_JOBS = 200


def fit(
    models: Sequence[keras.Model],
    training_set: tuple[Images, Any],
    validation_set: tuple[Images, Any],
    order: Callable[[int], npt.NDArray[np.int64]],
    training: Training,
    *,
    outputs: Sequence[Path],
    on_epoch: Callable[[int, Mapping[int, Mapping[str, float]]], None],
    progress: bool,
) -> list[Fitted | InputError]:
    """Train compiled models, each of which takes raw images, as one program; of the first of them, for all.

    Args:
        models: alike but for their weights, learning rates and the numbers in `stacking.SCALARS`.
        training_set: raw images (N, ...) and their prepared labels (N, ...).
        validation_set: the same, measured after each epoch.
        order: the positions of all training images in an epoch, counted from 0.
        training: epochs, batch size and callbacks.
        outputs: the folder that each model's callbacks write into.
        on_epoch: called after each epoch with its number, from 1, and by their place the metrics of those that trained.
        progress: whether to show Keras's progress bar, an epoch a step.

    Returns:
        Of each model what `training.fit` returns, `seconds` being its share; an error where its loss is no number.

    Raises:
        InputError: for what only Keras can judge.
    """
    start = time.perf_counter()
    failed: dict[int, InputError] = {}
    trained = False
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
            data = jax.tree.map(jnp.asarray, (training_set, validation_set))
            _create_variables(models, *data[1])
            epoch_program = jax.jit(_epoch_program(models[0], training.batch_size), donate_argnums=0)
            state, scalars = _stacked(models), _scalars(models)
            running = list(range(len(models)))
            for index in running:
                callbacks[index].on_train_begin()
                models[index].stop_training = False
            for epoch in range(training.epochs):
                for index in running:
                    callbacks[index].on_epoch_begin(epoch)
                state, measured = epoch_program(state, scalars, jnp.asarray(order(epoch), jnp.int32), *data)
                metrics = _of_each(measured)
                trained = True
                interrupts.raise_if_received()
                if training.callbacks:
                    _take_out(state, models, running)
                for index in running:
                    callbacks[index].on_epoch_end(epoch, metrics[index])
                # With what callbacks added, such as the learning rate.
                histories = {index: models[index].history.history for index in running}
                on_epoch(epoch + 1, {i: {name: of[-1] for name, of in h.items()} for i, h in histories.items()})
                for index in running:
                    try:
                        check_finite(epoch + 1, metrics[index])
                    except InputError as error:
                        failed[index] = error
                running = [index for index in running if index not in failed and not models[index].stop_training]
                if not running:
                    break
                if training.callbacks:
                    state = _stacked(models)
            if running:
                _take_out(state, models, running)
            for index, model in enumerate(models):
                if index not in failed:
                    model.optimizer.finalize_variable_values(model.trainable_variables)
                    callbacks[index].on_train_end()
    except InputError:
        raise
    except REFUSALS as error:
        if trained:
            raise
        raise InputError(f"Keras cannot train with these arguments: {keras_reason(error)}") from error
    seconds = (time.perf_counter() - start) / len(models)
    fitted: list[Fitted | InputError] = []
    for index, (model, of_model) in enumerate(zip(models, callbacks, strict=True)):
        history = {name: list(values) for name, values in model.history.history.items()}
        fitted.append(failed.get(index) or Fitted(history, seconds, kept_epoch(of_model.callbacks, history)))
    return fitted


def evaluate(models: Sequence[keras.Model], x: Images, y: Any) -> list[dict[str, float]]:
    """The loss, then the metrics of each of the compiled models on raw images and prepared labels, by name."""
    with interrupts.deferred():
        program = jax.jit(_evaluation(models[0]))
        measured = program(_stacked(models), jnp.asarray(x), jnp.asarray(y))
    return _of_each(measured)


def stack_size(model: keras.Sequential, batch_size: int, wanted: int) -> int:
    """How many models like this one to train as one program, up to `wanted`: as many as half of the memory takes.

    On a CPU, of a model with convolutions one: those of a stack become grouped convolutions, which there take longer
    than one after the other (2.4 times, measured with 8 filters on 2 cores).
    """
    device = jax.devices()[0]
    if device.platform == "cpu" and any("Conv" in type(layer).__name__ for layer in model.layers):
        return 1
    memory = min(_memory_limits())
    if device.platform != "cpu":
        memory = (device.memory_stats() or {}).get("bytes_limit", memory)
    return max(1, min(wanted, _MOST_JOBS, memory // 2 // _bytes_a_job(model, batch_size)))


def _memory_limits() -> Iterator[int]:
    """In bytes: the machine's memory, and what a container may have of it."""
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        yield int(text)


def _bytes_a_job(model: keras.Sequential, batch_size: int) -> int:
    """An estimate: a weight with its gradient and two optimizer variables in the model, in the stack and on their way
    between; and, for a batch, each layer's output with its gradient, twice as XLA may keep a copy. Four bytes each."""
    weights, outputs = int(model.count_params()), sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    return 4 * (12 * weights + 4 * max(batch_size, EVALUATION_BATCH) * int(outputs))


def _create_variables(models: Sequence[keras.Model], x: Any, y: Any) -> None:
    """Create the variables of the optimizers and metrics."""
    for model in models:
        model.optimizer.build(model.trainable_variables)
    # As Keras's `fit` does: without computing anything, which would compile each operation.
    models[0]._symbolic_build(data_batch=(x[:1], y[:1]))


def _epoch_program(
    model: keras.Model, batch_size: int
) -> Callable[[State, Any, Any, Any, Any], tuple[State, dict[str, Any]]]:
    """A function of a stack's state and scalars, an order, what to train and what to validate on: the state after an
    epoch, and its metrics, each of shape (jobs,)."""
    fresh = [variable.value for variable in model.metrics_variables]
    evaluation = _evaluation(model)

    def train_batch(state: Any, scalars: Mapping[str, Any], x: Any, y: Any) -> Any:
        with _attributes(model.optimizer, scalars):
            _, state = model.train_step(state, (x, y))
        return state

    def epoch(state: State, scalars: Mapping[str, Any], order: Any, training_set: Any, validation_set: Any) -> Any:
        x, y = training_set

        def step(state: Any, positions: Any) -> tuple[Any, None]:
            return jax.vmap(train_batch, in_axes=(0, 0, None, None))(state, scalars, x[positions], y[positions]), None

        *state, metrics = _scan(step, (*state, _for_each(fresh, state)), order, batch_size)
        measured = jax.vmap(partial(_results, model))(metrics)
        validation = evaluation(state, *validation_set)
        return tuple(state), measured | {f"val_{name}": values for name, values in validation.items()}

    return epoch


def _evaluation(model: keras.Model) -> Callable[[State, Any, Any], dict[str, Any]]:
    """A function of a stack's state, raw images and prepared labels: the loss and metrics, each of shape (jobs,)."""
    fresh = [variable.value for variable in model.metrics_variables]

    def evaluation(state: State, x: Any, y: Any) -> dict[str, Any]:
        def test_batch(state: Any, x: Any, y: Any) -> Any:
            return model.test_step(state, (x, y))[1]

        def step(state: Any, positions: Any) -> tuple[Any, None]:
            return jax.vmap(test_batch, in_axes=(0, None, None))(state, x[positions], y[positions]), None

        tested = state[0], state[1], _for_each(fresh, state)
        tested = _scan(step, tested, jnp.arange(len(x)), EVALUATION_BATCH)
        return jax.vmap(partial(_results, model))(tested[2])

    return evaluation


def _scan(step: Callable[[Any, Any], Any], state: Any, order: Any, batch_size: int) -> Any:
    """The state after all steps over `order`; the last one may be smaller."""
    count = len(order)
    whole = count - count % batch_size
    if whole:
        state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, batch_size))
    if whole < count:
        state, _ = step(state, order[whole:])
    return state


def _for_each(values: Sequence[Any], state: State) -> list[Any]:
    """The same values for each job of a stack."""
    jobs = len(state[0][0])
    return [jnp.broadcast_to(value, (jobs, *value.shape)) for value in values]


def _of_each(measured: Mapping[str, Any]) -> list[dict[str, float]]:
    """The metrics of each job, of values of shape (jobs,)."""
    rows = zip(*jax.device_get(list(measured.values())), strict=True)
    return [dict(zip(measured, map(float, row), strict=True)) for row in rows]


def _results(model: keras.Model, metrics_variables: Sequence[Any]) -> dict[str, Any]:
    with keras.StatelessScope(state_mapping=list(zip(model.metrics_variables, metrics_variables, strict=True))):
        return dict(model.get_metrics_result())


@contextmanager
def _attributes(optimizer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Let numbers of an optimizer be values of a traced program."""
    own = {name: getattr(optimizer, name) for name in values}
    for name, value in values.items():
        setattr(optimizer, name, value)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(optimizer, name, value)


def _scalars(models: Sequence[keras.Model]) -> dict[str, Any]:
    """The numbers of the optimizers that may differ between jobs, each of shape (jobs,)."""
    names = [name for name in SCALARS if isinstance(getattr(models[0].optimizer, name, None), int | float)]
    return {name: jnp.asarray([getattr(model.optimizer, name) for model in models], jnp.float32) for name in names}


def _variables(model: keras.Model) -> State:
    return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables


def _stacked(models: Sequence[keras.Model]) -> State:
    """The state of all models, as the program takes it."""
    trainable, others, of_optimizer = (
        [jnp.asarray(np.stack(jax.device_get([v.value for v in same]))) for same in zip(*kind, strict=True)]
        for kind in zip(*map(_variables, models), strict=True)
    )
    return trainable, others, of_optimizer


def _take_out(state: State, models: Sequence[keras.Model], running: Sequence[int]) -> None:
    """Give the models what a program made of their variables."""
    on_host = jax.device_get(state)
    for index in running:
        for variables, values in zip(_variables(models[index]), on_host, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value[index])
