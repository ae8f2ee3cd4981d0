"""What cannot be read to its end is refused before it is opened."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_exp import commands
from mnist_exp.config.code_file import read_code
from mnist_exp.config.files import LARGEST_CODE, check_file
from mnist_exp.errors import InputError
from mnist_exp.learning.pictures import open_picture
from mnist_exp.learning.sources import IdxDataset, NpzDataset

pytestmark = pytest.mark.fast

KEYS: dict[str, Any] = {"validation": "test", "limit": None, "seed": 0}
READERS: dict[str, Callable[[Path], object]] = {
    ".png": open_picture,
    ".npz": lambda path: NpzDataset(kind="npz", path=str(path), maximum=None, **KEYS).read(),
    ".py": lambda path: read_code(str(path)),
}


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "must be a file; is a pipe, a socket or a device"),
        ("socket", "must be a file; is a pipe, a socket or a device"),
        ("device", "must be a file; is a pipe, a socket or a device"),
        ("folder", "folder"),
        ("empty", "is empty"),
        ("missing", "no such file"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("null\0", "embedded null "),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = Path(f"{kind}{suffix}")
    with socket.socket(socket.AF_UNIX) as opened:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                opened.bind(str(path))
            case "device":
                path.symlink_to("/dev/zero")
            case "folder":
                path.mkdir()
            case "empty":
                path.touch()
            case "loop":
                path.symlink_to(path)
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            READERS[suffix](path)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_none_of_the_idx_files_and_no_plot(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "plot.png"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="has no file train-images-idx3-ubyte"):
        IdxDataset(kind="idx", path=str(tmp_path), **KEYS).read()
    with pytest.raises(InputError, match="--plot"):
        commands.check_plot(tmp_path / "plot.png")


def test_a_file_of_code_is_no_larger_than_code_is(tmp_path: Path) -> None:
    with (tmp_path / "large.py").open("wb") as file:
        file.truncate(LARGEST_CODE + 1)
    with pytest.raises(InputError, match=r"large.py: has 10000001 bytes; must have at most 10000000"):
        read_code(str(tmp_path / "large.py"))
    check_file(tmp_path / "large.py")
    with pytest.raises(InputError, match=r"code=~nobody-here/mine.py: cannot be read"):
        read_code("~nobody-here/mine.py")
