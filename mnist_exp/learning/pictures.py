"""From picture files to pixels, the same for training and for predicting."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mnist_exp.errors import InputError

# Of the formats that Pillow knows, those that people draw in; some others are programs, such as PostScript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@contextmanager
def reading() -> Iterator[None]:
    """Let threads call `open_picture`: what Pillow warns of is refused if it is a size, and else does not matter."""
    with warnings.catch_warnings():  # which is for a whole process, so that no thread may do it by itself
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_picture(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Read a picture, turned upright, of at most 89 million pixels; within `reading`.

    Raises:
        InputError: for a file that is none.
    """
    try:
        with Image.open(path, formats=formats) as picture:
            picture.load()
            return _upright(picture)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: must have at most {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # Pillow raises whatever foreign bytes make of it
        raise InputError(f"{path}: must be a whole picture in one of the formats {', '.join(formats)}") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow raises whatever damaged metadata makes of it; the pixels are whole
        return picture.copy()


def pixels(picture: Image.Image, height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return a picture resized, whatever its proportions were, of shape (height, width, channels), or 2 axes for one.

    Without a channel for it, transparency becomes white: the paper that most such pictures were drawn for.

    Args:
        picture: of any of the usual modes, or with whole numbers of 16 bits.
        height: in pixels.
        width: in pixels.
        channels: 1 for grey, 2 with opacity, 3 for red, green and blue, 4 with opacity.

    Raises:
        InputError: for pixels of another kind.
    """
    if picture.mode[0] == "I":  # 16 bits, which Pillow's own conversion cuts off at 255
        values = np.asarray(picture, np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError("must have pixels of 8 or 16 bits")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
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
