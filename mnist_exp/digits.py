"""Make an image like MNIST's of a picture of a hand-drawn digit.

MNIST's images are 28 by 28, bright on black. Each digit was scaled to fit 20 by 20, in grey levels and with its aspect
kept, and its centre of mass moved to the centre (Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of
handwritten digits).
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # comes with MLflow

from mnist_exp.errors import InputError

_Floats = npt.NDArray[np.float64]

_MAX_WORKING_PIXELS = 400  # the longer side: more do not help, fewer hide thin strokes
_MIN_CONTRAST = 0.1  # between ink and background, of 1
_FAINT = 0.1  # lighter pixels do not belong to a digit
_SPECK = 0.02  # share of the largest stroke's area: smaller strokes are dirt
_BOX = 20 / 28  # the share of an image that a digit fills
_THIN, _THICK = 0.06, 0.2  # MNIST's strokes are mostly as wide as this share of a digit's longer side
_TALL = 0.6  # share of a digit's height: two strokes side by side, both as tall, are two digits
_STEP_PIXELS = 16  # taken off a stroke at once, since the time grows with the square
_NOTHING = "no digit stands out from the background"


def to_mnist_format(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a digit as in MNIST: bright on black, scaled, centred, (height, width).

    Args:
        picture: in any two colours, transparent or not; most of its border is background.
        height: in pixels.
        width: in pixels.

    Raises:
        InputError: if nothing stands out from the background, which must be most of the border, the picture is
            smaller than 8 by 8, or a pixel is no number.
    """
    if min(picture.size) < 8:
        raise InputError(f"is {picture.width} by {picture.height} pixels; must be at least 8 by 8")
    digit = _normalize_stroke(_crop(_ink(_flat(picture))))
    scale = _BOX * min(height / digit.shape[0], width / digit.shape[1])
    rows, columns = (max(1, round(length * scale)) for length in digit.shape)
    small = Image.fromarray(digit.astype(np.float32)).resize((columns, rows), Image.Resampling.BILINEAR)
    scaled = np.clip(np.asarray(small, np.float64), 0, None)
    scaled /= scaled.max()
    down, across = ndimage.center_of_mass(scaled)
    # In MNIST's files the centre of mass is pixel (14, 14), counted from 0, to within half a pixel.
    top = int(np.clip(round(height / 2 - down), 0, height - rows))
    left = int(np.clip(round(width / 2 - across), 0, width - columns))
    image = np.zeros((height, width), np.uint8)
    image[top : top + rows, left : left + columns] = np.rint(255 * scaled)
    return image


def holds_several(picture: Image.Image) -> bool:
    """Return whether a picture seems to hold several digits side by side.

    True for 6 of MNIST's 70,000 digits, and for 98 of 100 pairs of them.
    """
    ink = _crop(_ink(_flat(picture))) > 0.5
    strokes, _ = ndimage.label(ink, np.ones((3, 3)))
    places = ndimage.find_objects(strokes)
    spans = sorted((across.start, across.stop) for down, across in places if down.stop - down.start > _TALL * len(ink))
    return any(start >= end for (_, end), (start, _) in pairwise(spans))


def resize(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a picture in colour, (height, width, 3).

    Args:
        picture: in any colours.
        height: in pixels.
        width: in pixels.

    Raises:
        InputError: if a pixel is no number.
    """
    flat = Image.fromarray(np.rint(255 * _flat(picture)).astype(np.uint8))
    return np.asarray(flat.resize((width, height), Image.Resampling.BILINEAR), np.uint8)


def _flat(picture: Image.Image) -> _Floats:
    """Return colours (rows, columns, 3) from 0 to 1, without transparency.

    Transparent pixels get the colour of the border; if that is transparent, too, white for a dark picture, else black.
    """
    if picture.mode[0] in "FI":  # 16 bits and more, which Pillow cuts off at 255
        picture = Image.fromarray(np.asarray(picture, np.float32))
        picture.thumbnail((_MAX_WORKING_PIXELS, _MAX_WORKING_PIXELS))
        values = np.asarray(picture, np.float64)
        if not np.isfinite(values).all():
            raise InputError("must have numbers as pixels; some are infinite or NaN")
        picture = Image.fromarray(np.rint(255 * values.clip(0) / max(values.max(), 1)).astype(np.uint8))
    picture = picture.convert("RGBA")
    picture.thumbnail((_MAX_WORKING_PIXELS, _MAX_WORKING_PIXELS))
    pixels = np.asarray(picture, np.float64) / 255
    colours, opaque = pixels[..., :3], pixels[..., 3:]
    border = _border(opaque.shape[:2])
    if (opaque[border] > 0.5).mean() > 0.5:
        paper = np.median(colours[border & (opaque[..., 0] > 0.5)], axis=0)
    else:
        brightness = (colours * opaque).sum() / max(3 * opaque.sum(), 1e-9)
        paper = np.full(3, 1.0 if brightness < 0.5 else 0.0)
    return np.asarray(colours * opaque + paper * (1 - opaque))


def _border(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels within a fiftieth of the shorter side from an edge."""
    width = max(1, min(shape) // 50)
    border = np.ones(shape, bool)
    border[width:-width, width:-width] = False
    return border


def _ink(colours: _Floats) -> _Floats:
    """Return each pixel's distance from the background's colour, 0 to 1.

    Noise, dirt and shadows become 0.
    """
    border = _border(colours.shape[:2])
    distance = np.abs(colours - np.median(colours[border], axis=0)).max(axis=-1)
    if distance.max() < _MIN_CONTRAST:
        raise InputError(_NOTHING)
    threshold = _otsu(distance)
    if (distance[border] > threshold).mean() >= 0.5:  # the median lies between two colours
        raise InputError(_NOTHING)
    strokes, count = ndimage.label(distance > threshold, np.ones((3, 3)))
    areas = np.bincount(strokes.reshape(-1), minlength=count + 1)
    areas[0] = 0
    kept = ndimage.binary_dilation((areas >= _SPECK * areas.max())[strokes], iterations=2)
    noise = min(float(np.quantile(distance[distance <= threshold], 0.95)), threshold)
    full = float(np.median(distance[distance > threshold]))
    return np.asarray(np.clip((distance - noise) / max(full - noise, 1e-9), 0, 1) * kept)


def _otsu(values: _Floats) -> float:
    """Return the threshold that leaves the least variance within two groups.

    The method is N. Otsu's, 1979.
    """
    counts, edges = np.histogram(values, bins=64, range=(0, values.max()))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (mean_below - mean_above) ** 2)])


def _crop(ink: _Floats) -> _Floats:
    rows, columns = (np.flatnonzero((ink > _FAINT).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise InputError(_NOTHING)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _normalize_stroke(digit: _Floats) -> _Floats:
    """Thicken fine strokes, which would fade when scaled, and thin thick ones."""
    length = max(digit.shape)
    inside = np.pad(digit > 0.5, 1)
    outline = inside.sum() - ndimage.binary_erosion(inside).sum()
    stroke = 2 * inside.sum() / max(outline, 1)
    missing, excess = round(_THIN * length - stroke), round(stroke - _THICK * length)
    if missing > 0:
        return _crop(ndimage.grey_dilation(np.pad(digit, missing), footprint=_disc(missing + 1)))
    thinner = digit
    for rest in range(excess, 0, -_STEP_PIXELS):
        thinner = ndimage.grey_erosion(thinner, footprint=_disc(min(rest, _STEP_PIXELS) + 1), mode="constant")
    return _crop(thinner if (thinner > _FAINT).any() else digit)


def _disc(diameter: int) -> npt.NDArray[np.bool_]:
    places = np.arange(diameter) - (diameter - 1) / 2
    return np.asarray(places[:, None] ** 2 + places**2 <= (diameter / 2) ** 2)
