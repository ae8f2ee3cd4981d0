"""Read image files as pixels, for training and for prediction.

A folder of them is a class.
"""

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mnist_exp.config.files import open_file
from mnist_exp.data import memory
from mnist_exp.data.metadata import check_class_name
from mnist_exp.errors import InputError

# Pillow knows more formats; some of them are programs, such as PostScript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_FILE_BYTES = 300_000_000
MAX_SECONDS = 30  # processor time for a file
BYTES_PER_PIXEL = 20  # a picture and the copies that its conversions make
_IN_FOLDERS = ("PNG", "JPEG")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # it logs some errors before it raises them

Listing = list[tuple[Path, int]]  # the pictures of a set with their labels


@contextmanager
def reading() -> Iterator[None]:
    """Let threads call `open_picture`, with Pillow's warnings of huge ones as errors."""
    with warnings.catch_warnings():  # concerns all threads, so none of them may do it
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


class _Timed(io.BufferedReader):
    """An image file that may take 30 seconds of the processor.

    Pillow itself stops for no loop or endless text.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file.detach())
        self._end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end:
            raise TimeoutError
        return super().read(size)


def open_picture(path: Path, formats: tuple[str, ...] = FORMATS, at_once: int = 1) -> Image.Image:
    """Read a picture within `reading`, and turn it upright.

    Args:
        path: of the file.
        formats: of Pillow's names.
        at_once: the number of threads that read pictures, which must fit into half of the memory together.

    Raises:
        InputError: if it is no picture, is too large or takes too long.
    """
    try:
        file = _Timed(open_file(path, most=MAX_FILE_BYTES))
        with file, Image.open(file, formats=formats) as picture:
            width, height = picture.size
            what = f"{path}: decoding {at_once} at once of {width} x {height} pixels takes"
            memory.check(what, at_once * BYTES_PER_PIXEL * width * height, "save it with fewer pixels")
            picture.load()
            with suppress(Exception):  # Pillow raises anything for damaged metadata
                ImageOps.exif_transpose(picture, in_place=True)
            return picture
    except InputError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: must have at most {Image.MAX_IMAGE_PIXELS} pixels") from error
    except TimeoutError as error:
        raise InputError(f"{path}: takes more than {MAX_SECONDS} seconds to read; save it anew as PNG") from error
    except Exception as error:  # Pillow raises anything for damaged files
        raise InputError(f"{path}: must be a whole picture in one of the formats {', '.join(formats)}") from error


def pixels(picture: Image.Image, height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """Stretch a picture to (height, width, channels), or (height, width) for one.

    Args:
        picture: grey or in colour, transparent or not.
        height: in pixels.
        width: in pixels.
        channels: 1 for grey or 3 for colours, and one more for opacity; without it, transparency becomes white.

    Raises:
        InputError: if the pixels do not have 8 or 16 bits.
    """
    if picture.mode[0] == "I":  # 16 bits, which Pillow's conversion clips at 255
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise InputError("must have pixels of 8 or 16 bits")
        picture = Image.fromarray((values.astype(np.float32) / 257).round().astype(np.uint8))
    if picture.mode not in _MODES:
        raise InputError(f"must have pixels of 8 or 16 bits, in grey or colours; is of the kind {picture.mode}")
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert(picture.mode.replace("a", "A"))
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if channels in (1, 3):
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture).convert("RGB")
    small = picture.convert(_BY_CHANNELS[channels]).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8)


def find(folder: Path, share: float, seed: int) -> tuple[tuple[str, ...], Listing, Listing]:
    """Return the classes' names, the training and the test pictures.

    Args:
        folder: has a folder for each class, or `train/` and `test/` that have them.
        share: of each class that is drawn as the test set, 0 to 1, without `train/` and `test/`.
        seed: of that draw.

    Raises:
        InputError: if its folders are no classes.
    """
    key = f"dataset.path={folder}"
    if not folder.is_dir():
        raise InputError(f"{key}: must be a folder with a folder of pictures for each class")
    match [name for name in ("train", "test") if _subfolders(folder / name)]:
        case [_, _]:
            train, test = _classes(folder / "train", key), _classes(folder / "test", key)
            if differs := sorted(train.keys() ^ test.keys()):
                part = "test" if differs[0] in train else "train"
                raise InputError(f"{key}: {part}/ has no folder {differs[0]}; both sets must have the same classes")
            return tuple(train), _alternate_classes(train.values()), _alternate_classes(test.values())
        case [part]:
            raise InputError(
                f"{key}: has only {part}/ with folders of pictures; add train/ or test/ beside it, or type "
                f"dataset.path={folder / part} to hold a share of it out as the test set"
            )
    found = _classes(folder, key)
    kept, held_out = [], []
    for label, (name, paths) in enumerate(found.items()):
        if len(paths) < 2:
            raise InputError(f"{key}: {name}/ has one picture; it must have two or more, since one is held out to test")
        count = min(max(1, round(share * len(paths))), len(paths) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(paths))
        kept.append([paths[index] for index in np.sort(order[count:])])
        held_out.append([paths[index] for index in np.sort(order[:count])])
    return tuple(found), _alternate_classes(kept), _alternate_classes(held_out)


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder: numbers in their order, then words."""
    names = _names(folder, Path.is_dir)
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _names(folder: Path, is_wanted: Callable[[Path], bool]) -> list[str]:
    """Return a folder's wanted entries that are not hidden, none if it does not exist."""
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(".") and is_wanted(path)]
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _classes(folder: Path, key: str) -> dict[str, list[Path]]:
    """Return the pictures of each class."""
    found = {}
    for name in _subfolders(folder):
        check_class_name(name, key)
        files = _names(folder / name, Path.is_file)
        found[name] = [folder / name / file for file in sorted(files) if file.lower().endswith(_SUFFIXES)]
        if not found[name]:
            raise InputError(
                f"{key}: {folder / name} has no picture ({', '.join(_SUFFIXES)}); each folder there must be a class"
            )
    if len(found) < 2:
        raise InputError(
            f"{key}: {folder} has {len(found)} folders; must have one with pictures for each class, two or more"
        )
    return found


def _alternate_classes(classes: Iterable[Sequence[Path]]) -> Listing:
    """Take a picture of each class in turn, so that `dataset.limit` keeps all classes."""
    labelled = [[(path, label) for path in paths] for label, paths in enumerate(classes)]
    return [picture for turn in zip_longest(*labelled) for picture in turn if picture is not None]


def decode(paths: Sequence[Path], size: int, *, color: bool) -> npt.NDArray[np.uint8]:
    """Decode image files to (N, size, size) or (N, size, size, 3), with progress.

    Args:
        paths: N files.
        size: height and width in pixels, to which images are stretched.
        color: whether images have three channels.

    Raises:
        InputError: if one cannot be read.
    """
    images = np.empty((len(paths), size, size, *([3] if color else [])), np.uint8)
    step = max(1, len(paths) // 100) if sys.stderr.isatty() else 0

    threads = min(16, os.cpu_count() or 1)

    def read(index: int) -> None:
        picture = open_picture(paths[index], _IN_FOLDERS, threads)
        try:
            images[index] = pixels(picture, size, size, 3 if color else 1)
        except InputError as error:
            raise InputError(f"{paths[index]}: {error}") from error

    pool = ThreadPoolExecutor(threads)  # Pillow releases the GIL to decode
    with reading():
        try:
            for done, _ in enumerate(pool.map(read, range(len(paths))), 1):
                if step and done % step == 0:
                    print(f"\rReading pictures: {done} of {len(paths)}", end="", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
            if step:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return images
