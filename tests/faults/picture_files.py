"""Pictures, and folders of them."""

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from mnist_exp.data import pictures
from mnist_exp.data.sources import FolderDataset
from mnist_exp.predict import _prepared

from .configurations import often
from .data_files import changes, damaged, load
from .outcome import Kind

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"]
picture_files = st.tuples(
    st.tuples(st.sampled_from(MODES), st.integers(1, 60) | st.just(700), st.integers(1, 60) | st.just(3000)),
    st.sampled_from(["stripes", "halves", "checks", "noise", "gradient", "one", "nan", "digit", "border"]),
    st.tuples(st.tuples(*[st.integers(0, 255)] * 4), st.tuples(*[st.integers(0, 255)] * 4)),
    st.sampled_from(FORMATS),
    often(st.just([]), changes),
    st.sampled_from([(28, 28), (28, 28), (10, 500), (28, 28, 3), (28, 28, 2), (28, 28, 4), (28, 28, 1)]),
    st.booleans(),
)


def _pattern(name: str, width: int, height: int, seed: int) -> Any:
    """Return where a picture has its second colour, as shares from 0 to 1."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    inside = (abs(across - width / 2) < width / 4) & (abs(down - height / 2) < height / 4)
    patterns: dict[str, Any] = {
        "stripes": across // (1 + seed % 7) % 2,
        "halves": (across if seed % 2 else down) * 2 < (width if seed % 2 else height),
        "checks": (across // (1 + seed % 5) + down // (1 + seed % 5)) % 2,
        "noise": np.random.default_rng(seed).random((height, width)),
        "gradient": across / width,
        "digit": inside & (abs(across - width / 2) < width / 12),
        "border": ~inside,
    }
    return patterns.get(name, np.zeros((height, width))).astype(float)


def _picture(drawn: Any) -> bytes:
    (mode, width, height), name, (one, other), form, changed, *_ = drawn
    share = _pattern(name, width, height, sum(one))[..., None]
    pixels = np.array(one) * (1 - share) + np.array(other) * share
    if mode in ("I", "F", "I;16"):
        values = pixels[..., 0] * [1, 256, -1, 1e30][sum(other) % (4 if mode == "F" else 2)]
        if name == "nan" and mode == "F":
            values[::2] = np.nan
        picture = Image.fromarray(values.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    else:
        picture = Image.fromarray(pixels.astype(np.uint8), "RGBA")
        picture = (
            picture if mode == "RGBA" else picture.convert("RGB").convert("L" if mode == "PA" else mode).convert(mode)
        )
    file = io.BytesIO()
    try:
        picture.save(file, form)
    except (OSError, ValueError):  # a format that has no such mode, or size
        picture.convert("RGB").save(file, "PNG")
    return damaged(file.getvalue(), changed)


def _read_picture(drawn: Any, folder: Path) -> str:
    path = folder / "picture.png"
    path.write_bytes(_picture(drawn))
    shape, resized = drawn[-2:]
    with pictures.reading():
        _prepared(path, shape, resized=resized)
    return ""


names = st.sampled_from(
    ["0", "1", "cat", "dog", "train", "test", "a.png", "b.JPG", "c.jpeg", ".hidden", "é", "x" * 255, "\x1b[2J", "a\nb"]
)
entries = st.sampled_from(
    ["picture", "picture", "picture", "text", "empty", "link to itself", "link up", "fifo", "closed", "huge"]
)
RIGHT = {f"{name}/{file}": "picture" for name in ("cat", "dog") for file in ("a.png", "b.png", "c.jpg")}
trees = (
    st.dictionaries(names.map("cat/{}".format) | names, entries, max_size=2).map(lambda more: RIGHT | more)
    | st.dictionaries(st.lists(names, min_size=1, max_size=4).map("/".join), entries, min_size=1, max_size=8)
    | st.dictionaries(
        st.tuples(names, st.sampled_from(["a.png", "b.png", "c.jpg"])).map("/".join), entries, min_size=4, max_size=10
    )
)
folders = st.tuples(trees, st.booleans(), st.floats(0.01, 0.99), st.integers(0, 6))


def _folder(drawn: Any, folder: Path) -> str:
    tree, colour, share, seed = drawn
    root = folder / "data"
    root.mkdir()
    for index, (name, entry) in enumerate(tree.items()):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path, entry, index)
        except OSError:  # the name of a file and a folder, or one too long
            continue
    try:
        return load(
            FolderDataset(
                kind="folder",
                path=str(root),
                size=28,
                color=colour,
                test=share,
                validation="test",
                limit=None,
                seed=seed,
            )
        )
    finally:
        for path in root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)


def _make(path: Path, entry: str, index: int) -> None:
    match entry:
        case "picture":
            Image.fromarray(np.full((12, 12), index * 20, np.uint8)).save(path, "JPEG" if index % 3 == 0 else "PNG")
        case "huge":
            path.write_bytes(
                b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
                + struct.pack(">II", 2**31 - 1, 2**31 - 1)
                + b"\x08\x00\x00\x00\x00"
                + bytes(40)
            )
        case "text" | "empty":
            path.write_text("no picture" * (entry == "text"))
        case "link to itself":
            path.symlink_to(path)
        case "link up":
            path.symlink_to(path.parent)
        case "fifo":
            os.mkfifo(path)
        case "closed":
            path.mkdir()
            path.chmod(0)


KINDS = {"pictures": Kind(picture_files, _read_picture), "folders": Kind(folders, _folder)}
