"""Choose an engine, and the jobs that it can train together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from mnist_exp.config import keras_names
from mnist_exp.config.backend import choose_backend
from mnist_exp.config.own_code import own_classes
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, result_settings

if TYPE_CHECKING:
    from mnist_exp.data.datasets import Data
    from mnist_exp.training.training import OnEpoch, TrainingResult


class Engine(Protocol):
    """Trains experiments on data that they share."""

    def train(
        self, experiments: Sequence[Experiment], data: "Data", on_epoch: "OnEpoch"
    ) -> "list[TrainingResult | InputError]":
        """Train experiments of one `stack_key` together, and evaluate each on test images.

        An experiment whose loss becomes NaN or infinite gives an error in its place.

        Args:
            experiments: with one `stack_key`.
            data: that all of them train with.
            on_epoch: called after each epoch; see `OnEpoch`.

        Raises:
            InputError: for a model that none of them can train, such as layers that do not fit each other.
        """

    def stack_size(self, experiment: Experiment, wanted: int) -> int:
        """Return how many such experiments train best together here, up to `wanted`."""


def choose_engine(backend: str) -> Engine:
    """Return the engine of a backend, with Keras imported on it.

    Raises:
        InputError: as `choose_backend` does.
    """
    choose_backend(backend)
    if backend == "jax":
        from mnist_exp.training import jax_engine

        return jax_engine
    from mnist_exp.training import tensorflow_engine

    return tensorflow_engine


def stack_key(config: Config) -> str:
    """Return a key that jobs share if they can train as one program.

    It has the whole configuration but `seed`, the learning rate and, for Keras's optimizers, `keras_names.SCALARS`.
    Other numbers of a user's own optimizer may decide which code runs.
    """
    values = result_settings(asdict(config))
    del values["seed"]
    is_own = values["optimizer"]["kind"] in own_classes("optimizers")
    for name in ("learning_rate", *(() if is_own else keras_names.SCALARS)):
        value = values["optimizer"].get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            values["optimizer"][name] = "a number"
    return json.dumps(values, sort_keys=True)


def group_stackable(experiments: Mapping[int, Experiment]) -> list[list[int]]:
    """Group the keys of experiments that can train together, on TensorFlow each alone."""
    groups: dict[str, list[int]] = {}
    for index, experiment in experiments.items():
        key = stack_key(experiment.config) if experiment.config.backend == "jax" else str(index)
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def split(group: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split a group into the fewest parts of at most `size`, of about equal length.

    >>> split([0, 1, 2, 3, 4], 3)
    [[0, 1, 2], [3, 4]]
    """
    parts = -(-len(group) // size)
    length = -(-len(group) // parts)
    return [group[start : start + length] for start in range(0, len(group), length)]
