"""Digits drawn by script: strokes in varied sizes, colours, widths and places."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, ...]
Stroke = list[tuple[float, float]]


@dataclass(frozen=True)
class Style:
    """`scale`: of the shorter side. `place`: of the digit's corner, in pixels. Colours of four numbers have alpha."""

    size: tuple[int, int]
    ink: Colour
    paper: Colour
    width: int
    place: tuple[int, int]
    scale: float
    noise: float = 0


def _arc(x: float, y: float, across: float, down: float, start: float, end: float) -> Stroke:
    angles = np.radians(np.linspace(start, end, 40))
    return [(x + across * np.cos(a), y + down * np.sin(a)) for a in angles]


STROKES: dict[int, list[Stroke]] = {
    0: [_arc(0.5, 0.5, 0.28, 0.42, 0, 360)],
    1: [[(0.38, 0.25), (0.55, 0.08), (0.52, 0.92)]],
    2: [[*_arc(0.5, 0.3, 0.26, 0.22, 180, 380), (0.25, 0.9), (0.8, 0.88)]],
    3: [_arc(0.45, 0.28, 0.26, 0.2, 200, 440), _arc(0.45, 0.69, 0.29, 0.22, -80, 150)],
    4: [[(0.62, 0.92), (0.6, 0.1), (0.2, 0.62), (0.85, 0.6)]],
    5: [[(0.75, 0.1), (0.32, 0.12), (0.3, 0.45), *_arc(0.48, 0.65, 0.26, 0.24, -120, 140)]],
    6: [[(0.65, 0.08), (0.4, 0.35), *_arc(0.5, 0.68, 0.24, 0.22, 190, 560)]],
    7: [[(0.2, 0.15), (0.78, 0.12), (0.42, 0.92)]],
    8: [_arc(0.5, 0.29, 0.2, 0.19, 90, 450), _arc(0.5, 0.7, 0.25, 0.22, -90, 270)],
    9: [[*_arc(0.48, 0.32, 0.23, 0.22, 0, 360), (0.71, 0.34), (0.62, 0.92)]],
}

STYLES = {
    0: Style((200, 300), (0, 0, 0), (255, 255, 255), 14, (40, 60), 0.55),
    1: Style((64, 64), (255, 255, 255), (0, 0, 0), 5, (5, 5), 0.8),
    2: Style((900, 700), (200, 30, 30), (250, 250, 210), 40, (300, 20), 0.6),
    3: Style((28, 28), (255, 255, 255), (20, 20, 60), 2, (4, 4), 0.7),
    4: Style((500, 500), (20, 60, 200), (230, 255, 230), 4, (250, 240), 0.45),
    5: Style((1200, 1600), (10, 10, 10), (245, 240, 230), 60, (100, 700), 0.5, noise=8),
    6: Style((300, 300), (255, 220, 0), (40, 40, 90), 34, (20, 20), 0.9),
    7: Style((640, 480), (0, 0, 0, 255), (0, 0, 0, 0), 18, (380, 30), 0.5),
    8: Style((120, 90), (255, 255, 255, 255), (0, 0, 0, 0), 6, (30, 10), 0.8),
    9: Style((400, 800), (70, 70, 70), (180, 180, 180), 10, (30, 400), 0.45),
}


def draw(digit: int, style: Style) -> Image.Image:
    """One digit in a style, its edges smooth; with `noise`, grain and a shadow from left to right as of a photo."""
    fine = 4 if max(style.size) < 700 else 1
    width, height = (length * fine for length in style.size)
    picture = Image.new("RGBA" if len(style.ink) == 4 else "RGB", (width, height), style.paper)
    pen, side, line = ImageDraw.Draw(picture), min(width, height) * style.scale, style.width * fine
    for stroke in STROKES[digit]:
        points = [(style.place[0] * fine + x * side, style.place[1] * fine + y * side) for x, y in stroke]
        pen.line(points, fill=style.ink, width=line, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - line / 2, y - line / 2, x + line / 2, y + line / 2], fill=style.ink)
    picture = picture.resize(style.size, Image.Resampling.LANCZOS)
    if style.noise:
        pixels = np.asarray(picture, np.float64)
        pixels = pixels + np.random.default_rng(0).normal(0, style.noise, pixels.shape)
        pixels -= np.linspace(0, 40, pixels.shape[1])[None, :, None]
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return picture


def draw_all(folder: Path) -> list[Path]:
    """A file a digit, 0 to 9."""
    paths = [folder / f"{digit}.{'jpg' if style.noise else 'png'}" for digit, style in STYLES.items()]
    for path, (digit, style) in zip(paths, STYLES.items(), strict=True):
        draw(digit, style).save(path)
    return paths
