"""Which jobs of a sweep train as one program. Imports nothing heavy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mnist_exp.config.code_file import own_classes
from mnist_exp.config.schema import Config
from mnist_exp.experiment import Experiment, of_the_result

# Numbers of Keras's optimizers that are used only in arithmetic, so that a traced program can take them as values.
# Others decide which code runs, as in `if self.momentum != 0`.
SCALARS = ("beta_1", "beta_2", "epsilon", "rho", "weight_decay", "ema_momentum")


def key(config: Config) -> str:
    """Return a key that jobs share if they can train as one program.

    It has the whole configuration but `seed`, the learning rate and, for Keras's optimizers, `SCALARS`. The other
    numbers of a user's own optimizer may decide which code runs.
    """
    values = of_the_result(asdict(config))
    del values["seed"]
    of_keras = values["optimizer"]["kind"] not in own_classes("optimizers")
    for name in ("learning_rate", *(SCALARS if of_keras else ())):
        value = values["optimizer"].get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            values["optimizer"][name] = "a number"
    return json.dumps(values, sort_keys=True)


def groups(experiments: Mapping[int, Experiment]) -> list[list[int]]:
    """Return lists of the keys of experiments that can train together; TensorFlow trains each alone."""
    alike: dict[str, list[int]] = {}
    for index, experiment in experiments.items():
        together = key(experiment.config) if experiment.config.backend == "jax" else str(index)
        alike.setdefault(together, []).append(index)
    return list(alike.values())


def split(group: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split a group into the fewest parts of at most `size`, of about equal length.

    >>> split([0, 1, 2, 3, 4], 3)
    [[0, 1, 2], [3, 4]]
    """
    parts = -(-len(group) // size)
    length = -(-len(group) // parts)
    return [group[start : start + length] for start in range(0, len(group), length)]
