"""Imports Keras without its banners, with the backend in KERAS_BACKEND: `from mnist_exp.keras_backend import keras`.

`tensorflow` or `jax`; Keras itself reads that variable, once a process. TensorFlow 2.21 writes banners to the file
descriptor from C++ before any setting of its own is read, some of them only when it first looks for devices. What was
written is shown after all if the import fails.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # 2: errors only, once TensorFlow reads it
if os.environ.get("KERAS_BACKEND") != "jax":
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def _banners_held_back() -> Iterator[None]:
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(terminal, 2)
            held_back.seek(0)
            os.write(2, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


@contextmanager
def _left_out(*names: str) -> Iterator[None]:
    """Let modules be missing that Keras and TensorFlow import wherever they are installed, and that nothing here uses.

    scikit-learn, which MLflow brings, for `keras.wrappers`: 0.5 seconds; pyplot for `keras.visualization`: 0.2; JAX for
    TensorFlow Lite: 0.3.
    """
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment] # which stops an import, as if it were not installed
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


with _banners_held_back(), _left_out("sklearn", "matplotlib.pyplot", *({"jax"} - {os.environ["KERAS_BACKEND"]})):
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.constant(0)  # starts the runtime, which has a banner of its own
        BackendError = tensorflow.errors.OpError
        # Each job of a sweep has a model of its own, whose functions are traced once.
        logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())
    else:
        import jax

        jax.devices()
        BackendError = jax.errors.JaxRuntimeError
    import keras

if os.environ["KERAS_BACKEND"] == "jax":
    # Keras imports TensorFlow wherever it is installed, to seed it and to know its types when a model is saved: three
    # seconds and half of the memory.
    from keras.src.utils.module_utils import tensorflow as _tensorflow_of_keras

    _tensorflow_of_keras._available = False

__all__ = ["BackendError", "keras"]
