"""Import Keras without its banners.

Private APIs of Keras 3.15 and TensorFlow 2.21 are used here, and in `checkpoints.STATES`.
Keras reads its backend from KERAS_BACKEND once per process.
"""

import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
if os.environ.get("KERAS_BACKEND") != "jax":
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def _banners_held_back() -> Iterator[None]:
    """Hold back C++ messages on standard error until TensorFlow is configured.

    Show it after a failure.
    """
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


class _DeferredModule(ModuleType):
    """A module that is imported at its first attribute, `__file__` aside.

    `inspect` reads `__file__`.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imports_deferred() -> Iterator[None]:
    # Nothing here uses scikit-learn (0.5 seconds) and pyplot (0.2 seconds).
    for name in ("keras.wrappers", "matplotlib.pyplot"):
        sys.modules.setdefault(name, _DeferredModule(name))
    # TensorFlow Lite imports JAX (0.3 seconds), and so does Keras, to patch an old version.
    hides_jax = os.environ["KERAS_BACKEND"] != "jax" and "jax" not in sys.modules
    if hides_jax:
        sys.modules["jax"] = None  # type: ignore[assignment] # an import fails as if it were not installed
    try:
        yield
    finally:
        if hides_jax:
            del sys.modules["jax"]


with _banners_held_back(), _imports_deferred():
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.constant(0)  # starts the runtime, which prints a banner
        BackendError = tensorflow.errors.OpError
        # Tracing a function for each job's model is intended.
        logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())
    else:
        import jax

        jax.devices()
        BackendError = jax.errors.JaxRuntimeError
    import keras
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import global_seed_generator
    from keras.src.saving import saving_lib
    from keras.src.utils import module_utils


if os.environ["KERAS_BACKEND"] != "tensorflow":
    # Keras would import an installed TensorFlow to seed it and to save models: three seconds, half of the memory.
    module_utils.tensorflow._available = False


# Raised by Keras and its backends for arguments and shapes that they cannot use.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    re.error,
    BackendError,
)


def keras_reason(error: Exception) -> str:
    """Return the line of a Keras error that says what is wrong."""
    lines = re.sub(r"\x1b\[\d*m|\{\{\w+ \S+\}\} ", "", str(error)).splitlines()
    reasons = (line.strip() for line in lines if line.strip() and not line.strip().startswith(_WHERE))
    return next(reasons, type(error).__name__).rstrip(".")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Keras or its backend lacked memory."""
    return (
        isinstance(error, MemoryError) or re.search("OOM|RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)) is not None
    )


_WHERE = (
    'File "',
    "A total of",
    "Exception encountered",
    "Graph execution error",
    "Detected at node",
    "<stack traces unavailable>",
)


def disable_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Stop an optimizer from summing gradients over its single replica.

    TensorFlow's all_reduce registers a gradient that keeps a step's graph, 1.6 MB, forever (ops/custom_gradient.py).
    """
    optimizer._all_reduce_sum_gradients = list


def find_schedule(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.schedules.LearningRateSchedule | None:
    """Return the schedule of an optimizer's learning rate, or None for a number."""
    rate = optimizer._learning_rate
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None


@contextmanager
def without_values() -> Iterator[None]:
    """Let Keras make variables with a shape and no values, which take no memory."""
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])


@contextmanager
def arrays_within(size: int) -> Iterator[None]:
    """Let Keras read at most `size` bytes of arrays of numbers from an HDF5 file.

    Other arrays may unpack to more.
    """
    found, left = saving_lib.safe_get_h5_dataset, size

    def get(group: Any, name: str) -> Any:
        nonlocal left
        array = found(group, name)  # refuses links and arrays in other files
        left -= array.nbytes
        if left < 0 or not (array.dtype.kind in "biuf" or array.dtype.str == "|V2"):  # V2 is bfloat16
            raise ValueError(f"its weights have {name}, which is not an array of numbers, or too large")
        return array

    saving_lib.safe_get_h5_dataset = get
    try:
        yield
    finally:
        saving_lib.safe_get_h5_dataset = found


def build_symbolically(model: keras.Model, x: Any, y: Any) -> None:
    """Create a compiled model's metric variables, as `fit` does, without a step.

    Args:
        model: of raw images.
        x: a batch of raw images (N, ...).
        y: its prepared labels (N, ...).
    """
    model._symbolic_build(data_batch=(x, y))


def get_unseeded_state() -> keras.Variable:
    """Return the state of Keras's generator for operations without a seed."""
    return global_seed_generator().state


__all__ = ["keras"]  # mypy allows the import from here
