"""Models that are damaged, or made to harm."""

import io
import json
import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mnist_exp.training import saved_models

from .configurations import often
from .data_files import changes, damaged
from .outcome import Kind

nodes = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.sampled_from([10**30, 1e400, float("nan"), [], {}, [None, 28, 28], "\x1b[2J", "../x", "os.system"]),
    st.text(max_size=5),
    st.sampled_from(["Lambda", "Dense", "Flatten", "TFSMLayer", "keras.layers", "builtins", "eval", "float16", "relu"]),
    st.just({"class_name": "__lambda__", "config": {"value": "e30="}}),
    st.just({"class_name": "Lambda", "module": "keras.layers", "config": {}}),
)
model_files = st.tuples(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), nodes, st.sampled_from(["replace", "replace", "rename", "drop"])),
        max_size=3,
    ),
    st.sampled_from(["config.json", "metadata.json", "model.weights.h5", "whole", ""]),
    often(st.just([]), changes),
    st.sampled_from(["", "", "", "", "", "", "", "", "x.txt", "../x", "assets/a", "twice", "deep", "bomb"]),
)


@cache
def _model() -> bytes:
    """Return a model as a run keeps it."""
    from mnist_exp.config.composition import compose
    from mnist_exp.training import models
    from mnist_exp.training.preprocessing import Preprocessor

    config = compose(["model=cnn", "preprocessing=image", "model.filters=2", "model.hidden=2"]).config
    built = models.build(config.model, (28, 28, 1), 10)
    path = Path(f"model-{os.getpid()}.keras").absolute()
    models.servable(built, Preprocessor((28, 28, 1), 1 / 255, 0.0, 10, one_hot=True), (28, 28)).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return each place in nested values as a container with a key or index."""
    items: list[tuple[Any, Any]] = (
        list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    )
    return [place for key, value in items for place in [(node, key), *_places(value)]]


def _alter(config: Any, drawn: list[tuple[int, Any, str]]) -> None:
    for number, value, way in drawn:
        places = _places(config)
        if not places:
            return
        node, key = places[number % len(places)]
        if way == "replace" or isinstance(node, list):
            node[key] = value
        elif way == "rename":
            node[str(value)] = node.pop(key)
        else:
            del node[key]


def _keras(drawn: Any, folder: Path) -> str:
    altered, where, changed, extra = drawn
    with zipfile.ZipFile(io.BytesIO(_model())) as file:
        members = {name: file.read(name) for name in file.namelist()}
    config = json.loads(members["config.json"])
    _alter(config, altered)
    members["config.json"] = json.dumps(config).encode()
    if where in members:
        members[where] = damaged(members[where], changed)
    if extra == "deep":
        members["config.json"] = b"[" * 100_000 + b"]" * 100_000
    elif extra == "bomb":
        members["config.json"] = b" " * 60_000_000
    elif extra not in ("", "twice"):
        members[extra] = b"x"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
        if extra == "twice":
            file.writestr("config.json ", members["config.json"])
    content = written.getvalue()
    (folder / "model.keras").write_bytes(damaged(content, changed) if where == "whole" else content)
    saved_models.load(folder / "model.keras")
    return ""


KINDS = {"models": Kind(model_files, _keras, _model)}
