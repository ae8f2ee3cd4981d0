"""How much memory there is, and whether a dataset fits into half of it. Imports nothing heavy."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mnist_exp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Limits(Protocol):
    """The keys of a dataset that decide how many images are kept, and how many of them are held out."""

    @property
    def limit(self) -> int | None: ...  # noqa: D102
    @property
    def validation(self) -> str | float: ...  # noqa: D102


class Header(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


def memory() -> int:
    """Return, in bytes, the machine's memory, or what a container may have of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(machine, int(text)) if text.isdecimal() else machine


def check_arrays(config: Limits, where: str, arrays: "Mapping[str, Header | npt.NDArray[Any]]") -> None:
    """Check that a dataset fits whose arrays are known by name, from the headers of a file or as they were read.

    Raises:
        InputError: as `check` does.
    """
    train, test = arrays["x_train"], arrays["x_test"]
    floats = "f" in (train.dtype.kind, test.dtype.kind)
    kept = 4 if floats else min(max(train.dtype.itemsize, test.dtype.itemsize), 2)
    as_kept = {name for name, one in arrays.items() if name.startswith("x") and one.dtype.itemsize == kept}
    stored = sum(math.prod(one.shape) * one.dtype.itemsize for name, one in arrays.items() if name not in as_kept)
    check(config, where, train.shape, test.shape, stored=stored, kept=kept)


def check(
    config: Limits,
    where: str,
    train: tuple[int, ...],
    test: tuple[int, ...],
    *,
    stored: int,
    kept: int,
    advice: str = "keep fewer or smaller images there",
) -> None:
    """Check that a dataset fits.

    Args:
        config: its `limit` and `validation` count.
        where: the words for where it is.
        train: the shape of all training images, (N, height, width, ...).
        test: that of the test images.
        stored: the bytes of what is read and then kept otherwise.
        kept: the bytes of a value of the images that are kept.
        advice: what makes it fit, if `dataset.limit` does not.

    Raises:
        InputError: if it, and the copies that training makes, take more than half of the memory.
    """
    if not train or not test:
        return
    images, half = train[0], memory() // 2
    limited = min(images, config.limit or images)
    takes = _needed(config, limited, train, test, stored=stored, kept=kept)
    if takes <= half:
        return
    least = _needed(config, 1, train, test, stored=stored, kept=kept)
    fits = int((half - least) / max(takes - least, 1) * limited) if least < half else 0
    limit = f"type dataset.limit={fits}, or " if fits else ""
    size = " x ".join(map(str, train[1:]))
    raise InputError(
        f"{where}: {limited} training and {test[0]} test images of {size} take {takes / 1e9:.1f} GB while training; "
        f"half of this machine's memory is {half / 1e9:.1f} GB; {limit}{advice}"
    )


def _needed(
    config: Limits, limited: int, train: tuple[int, ...], test: tuple[int, ...], *, stored: int, kept: int
) -> int:
    """Estimate the bytes that a dataset takes until its training ends.

    They are what is `stored`, the images as they are kept, the engine's copy of `limited` training images, and what is
    prepared before training, floats of 4 bytes: test images, and those that are held out.
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
