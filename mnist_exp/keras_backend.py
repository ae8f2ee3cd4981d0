"""Imports Keras and TensorFlow without their banners: `from mnist_exp.keras_backend import keras`.

TensorFlow 2.21 writes them to the file descriptor from C++ before any setting of its own is read, some of them only
when it first looks for devices. What was written is shown after all if the import fails.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # 2: errors only, once TensorFlow reads it


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


with _banners_held_back():
    import tensorflow

    tensorflow.config.list_physical_devices()
    tensorflow.constant(0)  # starts the runtime, which has a banner of its own
    import keras

__all__ = ["keras", "tensorflow"]
