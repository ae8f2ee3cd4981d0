"""Pictures that show a digit, or none."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mnist_exp import digits
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError

pytestmark = pytest.mark.fast


def two_colours(pattern: str, size: int) -> npt.NDArray[np.bool_]:
    """Which pixels have the second colour."""
    y, x = np.mgrid[:size, :size]
    patterns: dict[str, npt.NDArray[np.bool_]] = {
        "halves": x < size // 2,
        "stripes": x // 2 % 2 == 0,
        "checks": (x // 4 + y // 4) % 2 == 0,
        "a triangle": x < y,
        "a quarter": (x < size // 2) & (y < size // 2),
        "a frame": (np.minimum(x, y) == 0) | (np.maximum(x, y) == size - 1),
        "a disc": (x - size / 2) ** 2 + (y - size / 2) ** 2 < (0.47 * size) ** 2,
        "nothing": x < 0,
    }
    return patterns[pattern]


@pytest.mark.parametrize("size", [8, 51, 400])
@pytest.mark.parametrize(
    ("pattern", "is_digit"),
    [
        *((pattern, False) for pattern in ("halves", "stripes", "checks", "a triangle", "a frame", "nothing")),
        *((pattern, True) for pattern in ("a quarter", "a disc")),
    ],
)
def test_two_colours_are_a_digit_if_one_fills_the_border(pattern: str, is_digit: bool, size: int) -> None:
    mask = two_colours(pattern, size)
    for color, other in (((0, 0, 0), (255, 255, 255)), ((255, 0, 0), (0, 0, 255)), ((200, 200, 200), (100, 100, 100))):
        for colours in ((color, other), (other, color)):
            picture = Image.fromarray(np.where(mask[..., None], *np.array(colours)[::-1]).astype(np.uint8))
            try:
                found = digits.to_mnist_format(picture, 28, 28).max()
            except InputError as error:
                assert str(error) == "no digit stands out from the background"  # noqa: PT017
                found = 0
            assert found == 255 if is_digit else found in (0, 255)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -1e30, 1e-40, -1])
def test_any_float_is_a_pixel_or_refused_without_a_warning(value: float) -> None:
    pixels = np.zeros((20, 30), np.float32)
    pixels[5:15, 12:16] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prepare in (digits.to_mnist_format, digits.resize):
            try:
                assert prepare(Image.fromarray(pixels), 28, 28).dtype == np.uint8
            except InputError as error:
                assert str(error) == (  # noqa: PT017
                    "no digit stands out from the background"
                    if np.isfinite(value)
                    else "must have numbers as pixels; some are infinite or NaN"
                )


def test_two_digits_side_by_side_are_several(mnist: Data) -> None:
    framed = np.pad(mnist.x_test[:1000], ((0, 0), (4, 4), (4, 4)))
    assert sum(digits.holds_several(Image.fromarray(image)) for image in framed) <= 2
    pairs = zip(framed[0::2], framed[1::2], strict=True)
    assert sum(digits.holds_several(Image.fromarray(np.hstack(pair))) for pair in pairs) >= 0.97 * 500
