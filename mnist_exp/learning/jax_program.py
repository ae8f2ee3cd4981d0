"""The JAX programs of a stack of models: an epoch with validation, and an evaluation.

The variables of all models are stacked along a leading axis of jobs; `jax.vmap` vectorizes the training step over it.
All jobs see the same batches in the same order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_exp.config.keras_names import SCALARS
from mnist_exp.learning.keras_backend import keras
from mnist_exp.learning.training import EVALUATION_BATCH

# The stacked variables: trainable, non-trainable, and the optimizer's.
State = tuple[list[Any], list[Any], list[Any]]


def epoch_program(
    model: keras.Model, batch_size: int
) -> Callable[[State, Any, Any, Any, Any], tuple[State, dict[str, Any]]]:
    """Return a function (state, scalars, order, training set, validation set) -> (state, metrics of shape (jobs,))."""
    fresh = [variable.value for variable in model.metrics_variables]
    evaluation = evaluation_program(model)

    def train_batch(state: Any, scalars: Mapping[str, Any], x: Any, y: Any) -> Any:
        with _attributes(model.optimizer, scalars):
            _, state = model.train_step(state, (x, y))
        return state

    def epoch(state: State, scalars: Mapping[str, Any], order: Any, training_set: Any, validation_set: Any) -> Any:
        x, y = training_set

        def step(state: Any, positions: Any) -> tuple[Any, None]:
            return jax.vmap(train_batch, in_axes=(0, 0, None, None))(state, scalars, x[positions], y[positions]), None

        *state, metrics = _scan(step, (*state, _for_all_jobs(fresh, state)), order, batch_size)
        measured = jax.vmap(partial(_results, model))(metrics)
        validation = evaluation(state, *validation_set)
        return tuple(state), measured | {f"val_{name}": values for name, values in validation.items()}

    return epoch


def evaluation_program(model: keras.Model) -> Callable[[State, Any, Any], dict[str, Any]]:
    """Return a function (state, raw images, prepared labels) -> loss and metrics, each of shape (jobs,)."""
    fresh = [variable.value for variable in model.metrics_variables]

    def evaluation(state: State, x: Any, y: Any) -> dict[str, Any]:
        def test_batch(state: Any, x: Any, y: Any) -> Any:
            return model.test_step(state, (x, y))[1]

        def step(state: Any, positions: Any) -> tuple[Any, None]:
            return jax.vmap(test_batch, in_axes=(0, None, None))(state, x[positions], y[positions]), None

        tested = state[0], state[1], _for_all_jobs(fresh, state)
        *_, metrics = _scan(step, tested, jnp.arange(len(x)), EVALUATION_BATCH)
        return jax.vmap(partial(_results, model))(metrics)

    return evaluation


def _scan(step: Callable[[Any, Any], Any], state: Any, order: Any, batch_size: int) -> Any:
    """Return the state after a step for each batch of `order`; the last batch may be smaller."""
    count = len(order)
    whole = count - count % batch_size
    if whole:
        state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, batch_size))
    if whole < count:
        state, _ = step(state, order[whole:])
    return state


def _for_all_jobs(values: Sequence[Any], state: State) -> list[Any]:
    jobs = len(state[0][0])
    return [jnp.broadcast_to(value, (jobs, *value.shape)) for value in values]


def per_job(measured: Mapping[str, Any]) -> list[dict[str, float]]:
    """Split metrics of shape (jobs,) into those of each job."""
    rows = zip(*jax.device_get(list(measured.values())), strict=True)
    return [dict(zip(measured, map(float, row), strict=True)) for row in rows]


def _results(model: keras.Model, metrics_variables: Sequence[Any]) -> dict[str, Any]:
    with keras.StatelessScope(state_mapping=list(zip(model.metrics_variables, metrics_variables, strict=True))):
        return dict(model.get_metrics_result())


@contextmanager
def _attributes(optimizer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Replace numbers of an optimizer by traced values in the block."""
    own = {name: getattr(optimizer, name) for name in values}
    for name, value in values.items():
        setattr(optimizer, name, value)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(optimizer, name, value)


def scalars_of(models: Sequence[keras.Model]) -> dict[str, Any]:
    """Return the optimizers' `SCALARS`, each of shape (jobs,)."""
    names = [name for name in SCALARS if isinstance(getattr(models[0].optimizer, name, None), int | float)]
    return {name: jnp.asarray([getattr(model.optimizer, name) for model in models], jnp.float32) for name in names}


def _variables(model: keras.Model) -> State:
    return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables


def stacked(models: Sequence[keras.Model]) -> State:
    """Return the stacked variables of models."""
    trainable, others, optimizer = (
        [jnp.asarray(np.stack(jax.device_get([v.value for v in same]))) for same in zip(*kind, strict=True)]
        for kind in zip(*map(_variables, models), strict=True)
    )
    return trainable, others, optimizer


def unstack(state: State, models: Mapping[int, keras.Model]) -> None:
    """Assign stacked variables to models, given by their place in the stack."""
    on_host = jax.device_get(state)
    for place, model in models.items():
        for variables, values in zip(_variables(model), on_host, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value[place])
