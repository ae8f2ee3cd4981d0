"""Data files that are damaged, or whose headers lie."""

import gzip
import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mnist_exp.data.sources import Dataset, IdxDataset, NpzDataset
from mnist_exp.training.split import load_data

from .configurations import often
from .outcome import Kind

Changes = list[tuple[float, int, bytes]]

# Places, as shares of a file's length, with how many bytes go there and which come.
changes: st.SearchStrategy[Changes] = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 2, 8, 10**6]), st.binary(max_size=4)), max_size=3
)


def damaged(content: bytes, drawn: Changes) -> bytes:
    """Return a file's content with changes."""
    for share, gone, more in drawn:
        place = int(share * len(content))
        content = content[:place] + more + content[place + gone :]
    return content


def load(config: Dataset) -> str:
    """Load a dataset as a run does."""
    load_data(config)
    return ""


lengths = st.sampled_from([0, 1, 2, 10, 10, 28, 28, 501])
shapes = st.lists(lengths, max_size=4).filter(lambda drawn: math.prod(drawn) < 10**6).map(tuple) | st.tuples(
    st.just(12), st.just(28), st.just(28)
)
dtypes = st.sampled_from(
    ["u1", "u1", "u1", "<u2", ">f4", "f8", "f2", "i8", "?", "c8", "U3", "S2", "M8[s]", "O", "V4", "u1,f4"]
)
arrays = st.tuples(shapes, dtypes, st.sampled_from(["zeros", "random", "nan"]))
headers = st.sampled_from(
    ["", "{", "(10**400,1,1)", "{'descr': '|u1', 'fortran_order': False, 'shape': (10**400, 28, 28), }"]
    + [
        f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}"
        for kind in ("|u1", "O", "<f8")
        for order in (True, 1)
        for shape in (
            "(10**12, 28, 28)",
            "(-1, 28, 28)",
            "(12, 28.0)",
            "(12, 28, 28",
            "12",
            "[12, 28, 28]",
            "(2**63, 28, 28)",
        )
    ]
)
images = often(st.tuples(st.just((12, 28, 28)), dtypes, st.just("random")), arrays | headers)
labels = often(
    st.tuples(st.just((12,)), st.sampled_from(["u1", "i8", "U3", "f4"]), st.just("random")), arrays | headers
)
npz_files = st.tuples(
    st.fixed_dictionaries({"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}),
    often(st.just([]), changes),
    st.booleans(),
)


def _array(drawn: tuple[tuple[int, ...], str, str], labels: bool) -> Any:
    shape, dtype, values = drawn
    shape = shape[:1] if labels and values == "random" else shape
    made = np.random.default_rng(len(shape)).integers(0, 3 if labels else 255, shape)
    with np.errstate(all="ignore"):
        made = made.astype(dtype) if values == "random" else np.zeros(shape, dtype)
    if values == "nan" and made.dtype.kind == "f":
        made[...] = np.nan
    return made


def _npz(drawn: Any, folder: Path) -> str:
    parts, changed, compressed = drawn
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as members:
        for part, one in parts.items():
            with members.open(f"{part}.npy", "w") as member:
                if isinstance(one, str):
                    text = one.encode().ljust(117) + b"\n"
                    member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(100))
                else:
                    np.lib.format.write_array(member, _array(one, part.startswith("y")))
    (folder / "data.npz").write_bytes(damaged(file.getvalue(), changed))
    return load(
        NpzDataset(kind="npz", path=str(folder / "data.npz"), maximum=None, validation="test", limit=None, seed=0)
    )


numbers = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 12, 28, 0x0801, 0x0803])
idx_files = st.tuples(
    st.lists(st.tuples(st.lists(numbers, max_size=4), st.integers(0, 12000), changes), min_size=4, max_size=4)
    | st.none(),
    changes,
    st.booleans(),
)


def _idx(drawn: Any, folder: Path) -> str:
    given, changed, zipped = drawn
    for index, name in enumerate(
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    ):
        if given is None:
            right = (
                struct.pack(">4I", 0x0803, 12, 28, 28) + bytes(12 * 784)
                if index % 2 == 0
                else struct.pack(">2I", 0x0801, 12) + bytes(range(12))
            )
            content = damaged(right, changed if index == len(changed) else [])
        else:
            header, length, more = given[index]
            content = damaged(struct.pack(f">{len(header)}I", *header) + bytes(length), more)
        (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(
            damaged(gzip.compress(content), changed if given is None and index == 3 else []) if zipped else content
        )
    return load(IdxDataset(kind="idx", path=str(folder), validation="test", limit=None, seed=0))


KINDS = {"npz files": Kind(npz_files, _npz), "IDX files": Kind(idx_files, _idx)}
