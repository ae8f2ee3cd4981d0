"""Hold out the validation set from the training images.

The last dataset is kept in memory.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.data.datasets import Data, read
from mnist_exp.data.sources import Dataset
from mnist_exp.errors import InputError

_last: tuple[Any, Data] | None = None  # the state and the data of the last `load_data`
_CLOCK_NANOSECONDS = 2_000_000_000  # some file systems count time in steps of two seconds


def load_data(config: Dataset) -> Data:
    """Read a dataset and hold out its validation set.

    The last dataset is kept and returned again until one of its files changes; its arrays are then read-only.

    Raises:
        InputError: as `datasets.read` and `split` do.
    """
    global _last
    state = _state(config)
    if _last is not None and _last[0] == state:
        return _last[1]
    _last = None  # frees memory before the next one is read
    data = split(read(config), config)
    if state is not None:
        for value in vars(data).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        _last = state, data
    return data


def _state(config: Dataset) -> tuple[Any, ...] | None:
    """Return a value that changes with the dataset, or None if it might not."""
    if (files := config.files()) is None:
        return None
    try:
        found = [(path, path.stat()) for path in files]
    except OSError:  # `read` explains it
        return None
    if any(abs(time.time_ns() - stat.st_mtime_ns) < _CLOCK_NANOSECONDS for _, stat in found):
        return None
    stats = [(path, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in found]
    return Path.cwd(), config, stats


def split(data: Data, config: Dataset) -> Data:
    """Draw the validation set from the training images, and keep the order of both.

    Raises:
        InputError: if one of the two would be empty.
    """
    if (share := config.validation) == "test":
        return data
    count = len(data.x_train)
    size = share if isinstance(share, int) else round(share * count)
    if not 0 < size < count:
        raise InputError(
            f"dataset.validation={share}: holds out {size} of {count} training images; must be 1 to {count - 1} images"
        )
    order = np.random.default_rng(config.seed).permutation(count)
    held_out, kept = np.sort(order[:size]), np.sort(order[size:])
    files = data.file_names and (tuple(data.file_names[0][index] for index in kept), data.file_names[1])
    return replace(
        data,
        x_train=data.x_train[kept],
        y_train=data.y_train[kept],
        x_validation=data.x_train[held_out],
        y_validation=data.y_train[held_out],
        watches_test_set=False,
        file_names=files,
    )
