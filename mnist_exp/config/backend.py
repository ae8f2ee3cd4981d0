"""Keras's backend, which is chosen before Keras is imported."""

import os
import sys

from mnist_exp.errors import InputError


def choose_backend(name: str) -> None:
    """Set the backend that Keras reads when it is imported, `tensorflow` or `jax`.

    Raises:
        InputError: if this process has imported Keras with another backend, or KERAS_BACKEND names another.
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
    """Make TensorFlow compute with one thread, unless it has been imported.

    Its rounding depends on the number of threads.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
