"""How much memory there is, and whether a dataset fits into half of it. Imports nothing heavy."""

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mnist_exp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Limits(Protocol):
    """The keys of a dataset that decide how many images are kept and held out."""

    @property
    def limit(self) -> int | None: ...  # noqa: D102
    @property
    def validation(self) -> str | float: ...  # noqa: D102


class Header(NamedTuple):
    """The shape and the type of an array that is not read yet."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


def memory() -> int:
    """Return, in bytes, the machine's memory, or what a container may have of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(machine, int(text)) if text.isdecimal() else machine


def check(
    config: Limits,
    where: str,
    arrays: "Mapping[str, Header | npt.NDArray[Any]]",
    advice: str = "keep fewer or smaller images there",
) -> None:
    """Check that a dataset, and the copies that training makes, take at most half of the memory.

    Args:
        config: its `limit` and `validation` count.
        where: begins the message.
        arrays: read or not, by name; images have shape (N, height, width, ...).
        advice: what makes the dataset fit, besides `dataset.limit`.

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
    needed = partial(_needed, config, train=train.shape, test=test.shape, stored=stored, kept=kept)
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


def _needed(
    config: Limits, limited: int, *, train: tuple[int, ...], test: tuple[int, ...], stored: int, kept: int
) -> int:
    """Estimate the bytes that a dataset of these shapes takes until its training ends.

    They are the `stored` ones that are read and then kept otherwise, the images with `kept` bytes a value, the engine's
    copy of `limited` training images, and floats of 4 bytes for prepared test and held-out images.
    """
    values = math.prod(train[1:])
    match config.validation:
        case "test":
            held_out = 0
        case int() as count:
            held_out = min(count, limited)
        case share:
            held_out = round(float(share) * limited)
    of_images = values * (kept * (train[0] + limited) + 4 * held_out) + math.prod(test) * (kept + 4)
    return stored + of_images
