"""Pictures in a folder a class: found, decoded by several threads, and kept in the user's cache."""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from mnist_exp.errors import InputError, printable
from mnist_exp.learning import memory
from mnist_exp.learning.pictures import open_picture, pixels, reading
from mnist_exp.learning.sources import MOST_CLASSES, Arrays, FolderDataset, is_class_name

_SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_VERSION = 1  # of what `pixels` makes of a picture
_KEPT = 8  # files in the cache
_DAY = 86400  # seconds


_Listing = list[tuple[Path, int]]  # pictures of one set with their labels


def read_folder(config: FolderDataset) -> Arrays:
    """Return the images of a folder, as its `train/` and `test/` have them or with a share held out.

    Raises:
        InputError: for folders that are no classes, a picture that cannot be read, or what does not fit into memory.
    """
    folder = Path(config.path).expanduser()
    names, train, test = _sets(config, folder)
    channels = 3 if config.color else 1
    _check_fits(config, len(train), len(test), channels)
    images = _cached(folder, [path for path, _ in [*train, *test]], config.size, channels)
    return Arrays(
        x_train=images[: len(train)],
        y_train=np.array([label for _, label in train]),
        x_test=images[len(train) :],
        y_test=np.array([label for _, label in test]),
        name=folder.resolve().name,
        source=str(folder),
        names=names,
        resized=True,
    )


def _sets(config: FolderDataset, folder: Path) -> tuple[tuple[str, ...], _Listing, _Listing]:
    """Return the names of the classes, and the pictures of the training and the test set."""
    key = f"dataset.path={folder}"
    if not folder.is_dir():
        raise InputError(f"{key}: must be a folder with a folder of pictures for each class")
    split = [name for name in ("train", "test") if _subfolders(folder / name)]
    if split == ["train", "test"]:
        train, test = _classes(folder / "train", key), _classes(folder / "test", key)
        for less, more, part in ((train, test, "train"), (test, train, "test")):
            if missing := sorted(more.keys() - less.keys()):
                raise InputError(f"{key}: {part}/ has no folder {missing[0]}; both sets must have the same classes")
        return tuple(train), _listing(train.values()), _listing(test.values())  # both by name
    if split:
        other = "test" if split == ["train"] else "train"
        raise InputError(
            f"{key}: has {split[0]}/ but no {other}/ with folders of pictures; add it, or type "
            f"dataset.path={folder / split[0]} to hold a share of it out as the test set"
        )
    found = _classes(folder, key)
    kept, held_out = [], []
    for label, (name, paths) in enumerate(found.items()):
        if len(paths) < 2:
            raise InputError(f"{key}: {name}/ has one picture; it must have two or more, since one is held out to test")
        count = min(max(1, round(config.test * len(paths))), len(paths) - 1)
        chosen = set(np.random.default_rng([config.seed, label]).permutation(len(paths))[:count].tolist())
        kept.append([path for index, path in enumerate(paths) if index not in chosen])
        held_out.append([path for index, path in enumerate(paths) if index in chosen])
    return tuple(found), _listing(kept), _listing(held_out)


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that are not hidden, numbers by size, then words by name."""
    names = _names(folder, os.DirEntry.is_dir)
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _names(folder: Path, is_wanted: "Callable[[os.DirEntry[str]], bool]") -> list[str]:
    """Return the names of what is wanted and not hidden in a folder; of what is no folder, none."""
    try:
        entries = list(os.scandir(folder))
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    names = []
    for entry in entries:
        with suppress(OSError):  # a link that leads to itself, or into a closed folder
            if is_wanted(entry) and not entry.name.startswith("."):
                names.append(entry.name)
    return names


def _classes(folder: Path, key: str) -> dict[str, list[Path]]:
    """Return the pictures of each class, by name."""
    found = {}
    for name in _subfolders(folder):
        if not is_class_name(name):
            raise InputError(f"{key}: a folder is named {printable(name)!r}; a class must have some printable text")
        files = _names(folder / name, os.DirEntry.is_file)
        found[name] = [folder / name / file for file in sorted(files) if file.lower().endswith(_SUFFIXES)]
        if not found[name]:
            raise InputError(
                f"{key}: {folder / name} has no picture ({', '.join(_SUFFIXES)}); each folder there must be a class"
            )
    if len(found) > MOST_CLASSES:
        raise InputError(f"{key}: {folder} has {len(found)} folders of pictures; there can be {MOST_CLASSES} classes")
    if len(found) < 2:
        had = f"only the folder {next(iter(found))}" if found else "no folders"
        raise InputError(
            f"{key}: {folder} has {had}; there must be a folder of pictures for each of two or more classes"
        )
    return found


def _listing(classes: Iterable[Sequence[Path]]) -> _Listing:
    """Take a picture of each class in turn, so that the first of them, as `dataset.limit` takes, are of all."""
    numbered = [[(path, label) for path in paths] for label, paths in enumerate(classes)]
    return [one for turn in zip_longest(*numbered) for one in turn if one is not None]


def _check_fits(config: FolderDataset, train: int, test: int, channels: int) -> None:
    def check(size: int, channels: int, advice: str) -> None:
        sets = [(count, size, size, channels) for count in (train, test)]
        read = (train + test) * size * size * channels  # in the order of the cache, before that of the sets
        memory.check(config, f"dataset.path={config.path}", *sets, stored=read, kept=1, advice=advice)

    fits = []
    for size, colours, words in (
        *((config.size, 1, "dataset.color=false") for _ in range(config.color)),
        *((size, channels, f"dataset.size={size}") for size in range(config.size - 1, 9, -1)),
    ):
        with suppress(InputError):
            check(size, colours, "")
            fits.append(words)
            if size < config.size:
                break
    check(config.size, channels, f"type {' or '.join(fits)}" if fits else "keep fewer pictures there")


def _cached(folder: Path, paths: Sequence[Path], size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of pictures, from the cache if the same pictures were read before."""
    shape = (len(paths), size, size, *([3] if channels == 3 else []))
    order = sorted(range(len(paths)), key=lambda index: paths[index])  # another split is no other picture
    cache = platformdirs.user_cache_path("mnist_exp", appauthor=False)
    file = cache / f"pictures-{_key(folder, paths, order, shape)}.npz"
    images = _read_cache(file, shape)
    if images is None:
        images = _decode([paths[index] for index in order], shape, channels)
        _write_cache(file, images)
    positions = np.empty(len(order), np.int64)
    positions[order] = np.arange(len(order))
    return np.asarray(images[positions])


def _key(folder: Path, paths: Sequence[Path], order: Sequence[int], shape: tuple[int, ...]) -> str:
    digest = hashlib.sha256(repr((_VERSION, shape, str(folder.resolve()))).encode("utf-8", "surrogateescape"))
    for index in order:
        known = paths[index].stat()
        line = repr((str(paths[index].relative_to(folder)), known.st_size, known.st_mtime_ns))
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _read_cache(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    try:
        with np.load(file, allow_pickle=False) as cached:
            images = cached["images"]
        os.utime(file)  # the oldest are removed
        return images if images.shape == shape and images.dtype == np.uint8 else None
    except Exception:  # NumPy raises whatever a damaged file makes of it
        return None


def _write_cache(file: Path, images: npt.NDArray[np.uint8]) -> None:
    """Keep the images, whole or not at all; without a cache that can be written, they are read again next time."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=file.parent, prefix=".pictures-", suffix=".npz")
        try:
            with os.fdopen(number, "wb") as new:
                np.savez(new, images=images)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        for left in file.parent.glob(".pictures-*.npz"):  # by a process that was killed
            if left.stat().st_mtime < time.time() - _DAY:
                left.unlink(missing_ok=True)
        for old in sorted(file.parent.glob("pictures-*.npz"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)


def _decode(paths: Sequence[Path], shape: tuple[int, ...], channels: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of pictures; a terminal shows meanwhile how many have been read."""
    images = np.empty(shape, np.uint8)
    step = max(1, len(paths) // 100) if sys.stderr.isatty() else 0

    def decode(index: int) -> None:
        picture = open_picture(paths[index], _FORMATS)
        try:
            images[index] = pixels(picture, shape[1], shape[2], channels)
        except InputError as error:
            raise InputError(f"{paths[index]}: {error}") from error

    pool = ThreadPoolExecutor(os.cpu_count() or 1)  # Pillow lets go of Python while it decodes
    with reading():
        try:
            for done, _ in enumerate(pool.map(decode, range(len(paths))), 1):
                if step and done % step == 0:
                    print(f"\rReading pictures: {done} of {len(paths)}", end="", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
            if step:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return images
