"""What a file model.keras or an npz file says about its images, and what is not believed."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.data.datasets import Data
from mnist_exp.data.metadata import Metadata, read_metadata, write_metadata
from mnist_exp.errors import InputError

pytestmark = pytest.mark.fast


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as file:
        file.writestr("config.json", "{}")
    return tmp_path / "model.keras"


def test_no_metadata_is_written_for_mnist(model: Path, mnist: Data) -> None:
    before = model.read_bytes()
    write_metadata(model, mnist.metadata())
    assert model.read_bytes() == before
    assert read_metadata(model) == Metadata()
    assert Metadata().class_names(10, model) == tuple("0123456789")


def test_written_metadata_is_read_back(model: Path, mnist: Data) -> None:
    names = ("猫", *"123456789")
    write_metadata(model, replace(mnist, names=names, maximum=0.5, resized=True).metadata())
    known = read_metadata(model)
    assert known == Metadata(names=names, maximum=0.5, resized=True)
    assert known.class_names(10, model) == names
    with pytest.raises(InputError, match=r"model\.keras: names 10 classes; must name 9, as many as it has"):
        known.class_names(9, model)
    with zipfile.ZipFile(model) as file:
        assert file.testzip() is None
        assert file.namelist() == ["config.json", "mnist_exp.json"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("no JSON", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('"' + "x" * 10_000_000 + '"', "has more than 10000000 bytes"),
        ([], "is no map"),
        ({"classes": "ab"}, "must have a list of the classes' names"),
        ({"classes": ["a", 1]}, "must have a list of the classes' names"),
        ({"classes": ["a", "\x1b[2J"]}, "must have a list of the classes' names"),
        ({"classes": ["a", "b" * 256]}, "must have a list of the classes' names"),
        ({"maximum": 0}, "must have a maximum above 0"),
        ({"maximum": True}, "must have a maximum above 0"),
        ({"maximum": float("nan")}, "must have a maximum above 0"),
    ],
)
def test_metadata_of_a_foreign_file_is_checked(model: Path, told: Any, message: str) -> None:
    with zipfile.ZipFile(model, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("mnist_exp.json", told if isinstance(told, str) else json.dumps(told))
    with pytest.raises(InputError, match=message):
        read_metadata(model)
