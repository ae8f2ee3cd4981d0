"""A dataset must fit into half of the memory. Imports nothing heavy."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mnist_exp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Limits(Protocol):
    """The keys of a dataset that set how many images are kept and held out."""

    @property
    def limit(self) -> int | None: ...  # noqa: D102
    @property
    def validation(self) -> str | float: ...  # noqa: D102


class Header(NamedTuple):
    """The shape and type of an array that is not read yet."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


def memory() -> int:
    """Return, in bytes, the machine's memory or the container's share of it."""
    import psutil

    machine = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(machine, int(text)) if text.isdecimal() else machine


def check(
    config: Limits,
    where: str,
    arrays: "Mapping[str, Header | npt.NDArray[Any]]",
    advice: str = "keep fewer or smaller images there",
) -> None:
    """Check that a dataset and the copies that training makes take at most half of the memory.

    Args:
        config: the dataset's keys.
        where: begins the message.
        arrays: by name, read or not; images have shape (N, height, width, ...).
        advice: says what makes the dataset fit, besides `dataset.limit`.

    Raises:
        InputError: if they take more.
    """
    train, test = arrays["x_train"], arrays["x_test"]
    if not train.shape or not test.shape:
        return
    floats = "f" in (train.dtype.kind, test.dtype.kind)
    kept = 4 if floats else min(max(train.dtype.itemsize, test.dtype.itemsize), 2)
    as_kept = {name for name, one in arrays.items() if name.startswith("x") and one.dtype.itemsize == kept}
    stored = sum(math.prod(one.shape) * one.dtype.itemsize for name, one in arrays.items() if name not in as_kept)

    def needed(limited: int) -> int:
        """Count what was read and is kept in another type, the images and the engine's copy, and prepared floats."""
        share, values = config.validation, math.prod(train.shape[1:])
        held_out = 0 if share == "test" else share if isinstance(share, int) else round(float(share) * limited)
        prepared = values * min(held_out, limited) + math.prod(test.shape)
        return stored + kept * (values * (images + limited) + math.prod(test.shape)) + 4 * prepared

    images, half = train.shape[0], memory() // 2
    limited = min(images, config.limit or images)
    takes, least = needed(limited), needed(1)
    if takes <= half:
        return
    fits = int((half - least) / max(takes - least, 1) * limited) if least < half else 0
    limit = f"type dataset.limit={fits}, or " if fits else ""
    size = " x ".join(map(str, train.shape[1:]))
    raise InputError(
        f"{where}: {limited} training and {test.shape[0]} test images of {size} take {takes / 1e9:.1f} GB while "
        f"training; half of this machine's memory is {half / 1e9:.1f} GB; {limit}{advice}"
    )
