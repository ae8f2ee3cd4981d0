"""What trains: one protocol and its two engines, and the backend of Keras. Imports nothing heavy."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mnist_exp.config.code_file import CodeFile
from mnist_exp.errors import InputError

if TYPE_CHECKING:
    from mnist_exp.experiment import Experiment
    from mnist_exp.learning.datasets import Data
    from mnist_exp.learning.training import OnEpoch, Trained


class Engine(Protocol):
    """Trains experiments on data that they share."""

    def train(
        self, experiments: "Sequence[Experiment]", data: "Data", on_epoch: "OnEpoch"
    ) -> "list[Trained | InputError]":
        """Train experiments together, which `stacking.groups` finds alike, and evaluate each on the test set.

        Returns:
            Of each what it gave, or an error where its loss is no number.

        Raises:
            InputError: for what none of them can do, such as layers that do not fit each other.
        """

    def stack_size(self, experiment: "Experiment", wanted: int) -> int:
        """Return how many experiments like this one train best together on this machine, up to `wanted`."""


def choose_backend(name: str) -> None:
    """Let Keras be imported with the backend `name`, tensorflow or jax, which it reads once.

    Raises:
        InputError: if this process has imported Keras with another, or the environment names another.
    """
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != name:
        raise InputError(
            f"backend={name}: Keras already runs with {keras.backend.backend()} in this process; start a new process "
            "for another backend"
        )
    if (named := os.environ.get("KERAS_BACKEND", name)) != name:
        raise InputError(f"KERAS_BACKEND={named}: differs from backend={name}; unset it, or type backend={named}")
    os.environ["KERAS_BACKEND"] = name


def compute_with_one_thread() -> None:
    """Let TensorFlow compute with one thread: of a convolution, it rounds by their number.

    It reads the variable once, so that a process in which it has run keeps to its number.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def import_own(code: CodeFile, backend: str, in_sweep: bool = False) -> CodeFile:
    """Import a file of the user's own with a backend, and return it with the names that it registers.

    Args:
        code: the file.
        backend: `tensorflow` or `jax`.
        in_sweep: whether for a sweep, whose jobs compute with one thread each; by default not.

    Raises:
        InputError: as `choose_backend` and `own_code.import_code` do.
    """
    choose_backend(backend)
    if in_sweep:
        compute_with_one_thread()
    from mnist_exp.learning.own_code import import_code

    return import_code(code)


def choose_engine(backend: str, code: CodeFile | None = None) -> Engine:
    """Return the engine of a backend, `tensorflow` or `jax`; import Keras with it, and then the file of the user's own.

    Raises:
        InputError: as `import_own` does.
    """
    choose_backend(backend)
    if code is not None:
        import_own(code, backend)
    if backend == "jax":
        from mnist_exp.learning import jax_engine

        return jax_engine
    from mnist_exp.learning import tensorflow_engine

    return tensorflow_engine
