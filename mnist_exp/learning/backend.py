"""Which backend Keras computes with. Keras reads it once, when it is imported."""

import os
import sys

from mnist_exp.errors import InputError


def choose_backend(name: str) -> None:
    """Let Keras be imported with the backend `name`: tensorflow or jax.

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
