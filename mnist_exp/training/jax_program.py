"""Make JAX programs of stacked models: an epoch with validation, an evaluation.

The variables of all models are stacked along a leading axis of jobs; `jax.vmap` vectorizes the training step over it.
All jobs see the same batches in the same order. An epoch is one program. On a CPU, where XLA runs convolutions five to
ten times slower inside a loop, each step of a model with convolutions is a program, called from Python.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_exp import signals
from mnist_exp.config.keras_backend import keras
from mnist_exp.config.keras_names import SCALARS
from mnist_exp.training.training import EVALUATION_BATCH

# The stacked variables: trainable, non-trainable, and the optimizer's.
State = tuple[list[Any], list[Any], list[Any]]


def epoch_program(
    model: keras.Model, batch_size: int
) -> Callable[[State, Any, Any, Any, Any], tuple[State, dict[str, Any]]]:
    """Return the function that trains and validates all jobs for one epoch.

    It is (state, scalars, order, training set, validation set) -> (state, metrics of shape (jobs,)).
    It consumes the state that it is given.
    """
    fresh, in_python = [variable.value for variable in model.metrics_variables], convolves_on_cpu(model)

    def train_batch(state: Any, scalars: Mapping[str, Any], x: Any, y: Any) -> Any:
        with _attributes(model.optimizer, scalars):
            _, state = model.train_step(state, (x, y))
        return state

    def step(state: Any, scalars: Mapping[str, Any], x: Any, y: Any, positions: Any) -> Any:
        return jax.vmap(train_batch, in_axes=(0, 0, None, None))(state, scalars, x[positions], y[positions])

    train = _for_each_batch(step, batch_size, in_python=in_python, consumes=True)
    evaluation = evaluation_program(model)

    def epoch(state: State, scalars: Mapping[str, Any], order: Any, training_set: Any, validation_set: Any) -> Any:
        *state, metrics = train((*state, _for_all_jobs(fresh, state)), order, scalars, *training_set)
        measured = jax.vmap(partial(_results, model))(metrics)
        validation = evaluation(state, *validation_set)
        return tuple(state), measured | {f"val_{name}": values for name, values in validation.items()}

    return epoch if in_python else jax.jit(epoch, donate_argnums=0)


def evaluation_program(model: keras.Model) -> Callable[[State, Any, Any], dict[str, Any]]:
    """Return the function that evaluates all jobs.

    It is (state, raw images, prepared labels) -> loss and metrics, each of shape (jobs,).
    """
    fresh, in_python = [variable.value for variable in model.metrics_variables], convolves_on_cpu(model)

    def test_batch(state: Any, x: Any, y: Any) -> Any:
        return model.test_step(state, (x, y))[1]

    def step(state: Any, x: Any, y: Any, positions: Any) -> Any:
        return jax.vmap(test_batch, in_axes=(0, None, None))(state, x[positions], y[positions])

    test = _for_each_batch(step, EVALUATION_BATCH, in_python=in_python, consumes=False)

    def evaluation(state: State, x: Any, y: Any) -> dict[str, Any]:
        tested = state[0], state[1], _for_all_jobs(fresh, state)
        *_, metrics = test(tested, np.arange(len(x), dtype=np.int32), x, y)
        return jax.vmap(partial(_results, model))(metrics)

    return evaluation if in_python else jax.jit(evaluation)


def convolves_on_cpu(model: keras.Model) -> bool:
    """Return whether a model runs on a CPU and has convolutions."""
    return jax.default_backend() == "cpu" and any(
        len(variable.shape) > 3 or "conv" in variable.path for variable in model.variables
    )


def _for_each_batch(
    step: Callable[..., Any], batch_size: int, *, in_python: bool, consumes: bool
) -> Callable[..., Any]:
    """Return a function (state, order, *rest) -> state that applies `step` to batches.

    The last batch may be smaller. A loop in Python may consume the state that it is given.
    """
    compiled = jax.jit(step, donate_argnums=0 if consumes else ())

    def loop_in_python(state: Any, order: Any, *rest: Any) -> Any:
        for start in range(0, len(order), batch_size):
            state = compiled(state, *rest, order[start : start + batch_size])
            signals.raise_if_received()
        return state

    def loop_in_program(state: Any, order: Any, *rest: Any) -> Any:
        whole = len(order) - len(order) % batch_size
        if whole:
            batches = jnp.reshape(order[:whole], (-1, batch_size))
            state, _ = jax.lax.scan(lambda state, positions: (step(state, *rest, positions), None), state, batches)
        return step(state, *rest, order[whole:]) if whole < len(order) else state

    return loop_in_python if in_python else loop_in_program


def _for_all_jobs(values: Sequence[Any], state: State) -> list[Any]:
    jobs = len(state[0][0])
    return [jnp.broadcast_to(value, (jobs, *value.shape)) for value in values]


def split_by_job(measured: Mapping[str, Any]) -> list[dict[str, float]]:
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


def stack_hyperparameters(models: Sequence[keras.Model]) -> dict[str, Any]:
    """Return the optimizers' `SCALARS`, each of shape (jobs,)."""
    names = [name for name in SCALARS if isinstance(getattr(models[0].optimizer, name, None), int | float)]
    return {name: jnp.asarray([getattr(model.optimizer, name) for model in models], jnp.float32) for name in names}


def _variables(model: keras.Model) -> State:
    return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables


def stack_variables(models: Sequence[keras.Model]) -> State:
    """Return the stacked variables of models."""
    trainable, others, optimizer = (
        [jnp.asarray(np.stack(jax.device_get([v.value for v in same]))) for same in zip(*kind, strict=True)]
        for kind in zip(*map(_variables, models), strict=True)
    )
    return trainable, others, optimizer


def unstack_variables(state: State, models: Mapping[int, keras.Model]) -> None:
    """Assign stacked variables to models, given by their place in the stack."""
    on_host = jax.device_get(state)
    for place, model in models.items():
        for variables, values in zip(_variables(model), on_host, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value[place])
