"""Saved models of strangers: what is no model of a run is one message, and nothing of it is followed or made."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mnist_exp.config.keras_backend import keras
from mnist_exp.data import memory
from mnist_exp.errors import InputError
from mnist_exp.training import saved_models
from mnist_exp.training.saved_models import load


def kept_model(folder: Path) -> Path:
    [path] = folder.glob("outputs/*/*/model.keras")
    return path


def altered(path: Path, target: Path, compressed: bool = False, **contents: bytes) -> Path:
    """A kept model with other contents of its members, `config` and `weights`."""
    names = {"config.json": "config", "model.weights.h5": "weights"}
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", 8 if compressed else 0) as copy:
        for name in source.namelist():
            copy.writestr(name, contents.get(names.get(name, ""), source.read(name)))
    return target


def rewritten(folder: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    """A kept model whose weights are changed."""
    with zipfile.ZipFile(kept_model(folder)) as source:
        content = io.BytesIO(source.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        change(file)
    return altered(kept_model(folder), target / "model.keras", weights=content.getvalue())


def tampered(path: Path, target: Path, change: dict[str, Any]) -> Path:
    """A kept model whose first dense layer's entry in config.json is changed."""
    with zipfile.ZipFile(path) as source:
        saved = json.loads(source.read("config.json"))
    [model] = [layer for layer in saved["config"]["layers"] if layer["class_name"] == "Functional"]
    dense = next(layer for layer in model["config"]["layers"] if layer["class_name"] == "Dense")
    dense |= change
    return altered(path, target, config=json.dumps(saved).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"class_name": "Lambda"},
        {"inbound_nodes": [{"args": [{"class_name": "Popen", "module": "subprocess", "config": {}}], "kwargs": {}}]},
        {"class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "HACKED"]}},
        {"registered_name": "mine>Popen"},
        {"config": {"units": 16, "activation": {"class_name": "function", "module": "os", "config": "system"}}},
        {"build_config": {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": []}},
    ],
)
def test_models_with_classes_beyond_configuration_are_refused(
    tracked_folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"model\.keras: contains .*, which models here may not"):
        load(tampered(kept_model(tracked_folder), tmp_path / "model.keras", change))
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[" * 10**6, "must be a file model.keras"),
        (
            b'{"class_name":"Functional","module":"keras.src.models.functional","config":' * 99 + b"1" + b"}" * 300,
            "must",
        ),
        (b" " * 5_000_001, "its config.json has more than 5000000 bytes"),
        ({"config": {"name": "\x1b[2J", "units": 3}}, "must be a file model.keras"),
        ({"config": {"units": 17}}, "must be a file model.keras"),
    ],
)
def test_a_configuration_of_any_text_is_one_message(
    tracked_folder: Path, tmp_path: Path, config: Any, message: str
) -> None:
    kept, target = kept_model(tracked_folder), tmp_path / "model.keras"
    changed = altered(kept, target, config=config) if isinstance(config, bytes) else tampered(kept, target, config)
    with pytest.raises(InputError, match=message) as caught:
        load(changed)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_weights_are_not_made_unless_the_file_has_them(tmp_path: Path) -> None:
    inputs = keras.Input((28, 28))
    kept = tmp_path / "kept.keras"
    keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))).save(kept)
    with zipfile.ZipFile(kept) as source:
        config = source.read("config.json").replace(b'"units": 10', b'"units": 1000000000')
    with pytest.raises(InputError, match="asks for 3140000000000 bytes of weights, more than the file has"):
        load(altered(kept, tmp_path / "model.keras", config=config))
    assert load(kept).output_shape == (None, 10)


VARIABLES = "layers/functional/layers/dense/vars"
REFUSED = "is not an array of numbers, or too large"


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (f"{VARIABLES}/0", lambda _: h5py.ExternalLink("pipe", "/x"), "ExternalLink"),
        ("layers", lambda _: h5py.ExternalLink("pipe", "/x"), "must be a file model"),
        (
            "0",
            lambda file: file.create_dataset("x", (784, 16), "f4", external=[("pipe", 0, 50176)]),
            "external Dataset",
        ),
        ("0", lambda file: file.create_dataset("x", (10**4, 10**4), "f4", compression="gzip"), REFUSED),
        ("0", lambda file: file.create_dataset("x", data=[file.ref], dtype=h5py.ref_dtype), REFUSED),
        (VARIABLES, lambda file: file, "must be a file model.keras"),
    ],
)
def test_weights_are_plain_arrays_in_the_file_itself(
    tracked_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")  # whoever followed a link to it would wait
    place = f"{VARIABLES}/0" if name == "0" else name

    def change(file: h5py.File) -> None:
        del file[place]
        file[place] = make(file)

    with pytest.raises(InputError, match=message):
        load(rewritten(tracked_folder, tmp_path, change))


def test_groups_that_no_layer_names_take_no_time(tracked_folder: Path, tmp_path: Path) -> None:
    def nest(group: h5py.Group) -> None:
        for _ in range(2000):
            group = group.create_group("g")

    assert load(rewritten(tracked_folder, tmp_path, nest)).output_shape == (None, 10)


def test_a_file_far_larger_than_its_weights_is_refused(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_model(tracked_folder)
    monkeypatch.setattr(saved_models, "_MAX_OTHER_BYTES", 1000)
    with pytest.raises(InputError, match=r"it has \d+ bytes for 50920 bytes of weights"):
        load(kept)
    monkeypatch.setattr(memory, "memory", lambda: 2 * 50_000)
    with pytest.raises(InputError, match="must have at most 50000"):
        load(kept)


def test_weights_of_16_bits_are_loaded(tmp_path: Path) -> None:
    inputs = keras.Input((28, 28))
    layer = keras.layers.Dense(10, dtype="bfloat16")
    keras.Model(inputs, layer(keras.layers.Flatten()(inputs))).save(tmp_path / "model.keras")
    [kernel, _] = load(tmp_path / "model.keras").get_weights()
    np.testing.assert_array_equal(kernel, layer.get_weights()[0])


def test_compressed_cut_or_crowded_model_files_are_refused(tracked_folder: Path, tmp_path: Path) -> None:
    kept, target = kept_model(tracked_folder), tmp_path / "model.keras"
    assert load(altered(kept, target)).count_params() == 784 * 16 + 16 + 16 * 10 + 10
    with pytest.raises(InputError, match="each of its members must be there once, and not be compressed"):
        load(altered(kept, target, compressed=True))
    for length in (10, 1000, -1, -30000):
        target.write_bytes(kept.read_bytes()[:length])
        with pytest.raises(InputError, match=r"must be a file model\.keras that a run wrote"):
            load(target)
    for name, message in (("config.json", "must be there once"), ("../x", r"it also has \.\./x")):
        with zipfile.ZipFile(altered(kept, target), "a") as file, warnings.catch_warnings(action="ignore"):
            file.writestr(name, "{}")
        with pytest.raises(InputError, match=message):
            load(target)


def test_a_model_of_something_else_than_images_is_refused(tmp_path: Path) -> None:
    for shapes in ([(784,), (10,)], [(28, 28, 5), (10,)], [(28, 28), (28, 28)], [(0, 0), (10,)]):
        inputs = keras.Input(shapes[0])
        outputs = keras.layers.Reshape(shapes[0])(inputs)
        if len(shapes[1]) == 1:
            outputs = keras.layers.Dense(10)(keras.layers.Flatten()(outputs))
        keras.Model(inputs, outputs).save(tmp_path / "model.keras")
        with pytest.raises(InputError, match="must take images and give a probability for each class"):
            load(tmp_path / "model.keras")
