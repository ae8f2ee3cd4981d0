"""Presets, from YAML's grammar, in a folder of the user's."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from mnist_exp.training.families import families

from .command_lines import keys
from .configurations import by_choice, chosen, configurations, often, plain, words
from .outcome import Kind, typed

GROUPS = ("dataset", "preprocessing", "model", "optimizer", "prune", "tracking")

code = st.sampled_from(
    [
        {"_target_": "os.mkdir", "path": "HACKED"},
        "${oc.env:HOME}",
        {"_target_": "subprocess.call", "args": ["mkdir", "HACKED"]},
    ]
)
names = often(st.sampled_from(["a", "b", "m", "mlp", "cnn", "_self_", "none"]), st.sampled_from(["../a", "x"]) | words)
choice = st.sampled_from(
    ["override /model", "/model", "model", "experiment", "override /hydra/launcher", "sweep", "x@y"]
)
defaults = st.lists(
    names | st.tuples(choice, often(names)).map(lambda pair: {pair[0]: pair[1]}) | often(names), max_size=3
)
foreign = often(st.just({}), st.dictionaries(keys | words, often(plain, code), min_size=1, max_size=2))
content = st.tuples(configurations, foreign, st.none() | often(defaults))
models = st.tuples(chosen("", by_choice(list(families()))), foreign, st.none() | often(defaults))
damage = st.tuples(
    st.integers(0, 400),
    st.integers(0, 9),
    st.sampled_from(
        [
            "",
            ":",
            "&a ",
            "*a",
            "!!python/object:os.system ",
            "{",
            "\t",
            "0x" + "F" * 5000,
            "- ",
            "<<: ",
            "\0",
            "\x1b[2J",
            "é",
        ]
    ),
)
presets = st.tuples(
    st.fixed_dictionaries(
        {name: st.tuples(content, often(st.none(), damage)) for name in ("experiment/a", "experiment/b", "sweep/s")}
        | {"model/m": st.tuples(models, often(st.none(), damage))}
    ),
    st.sampled_from(
        [
            "experiment=a",
            "experiment=b",
            "-m sweep=s",
            "-m experiment=a,b",
            "model=m",
            "experiment=a --cfg job",
            "-m sweep=s model=m",
            "--help",
        ]
    ),
    often(st.just("# @package _global_\n"), st.sampled_from(["", "# @package hydra\n"])),
)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys with dots as maps in maps; a choice of a group, such as `model`, gives way to its keys."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = value
    return tree


def to_yaml(drawn: Any, header: str = "") -> str:
    """Return a file's text, damaged as drawn."""
    (flat, more_keys, chooses), broken = drawn
    groups = [{f"override /{key}": value} for key, value in flat.items() if key in GROUPS]
    values = {key.lstrip("."): value for key, value in {**flat, **more_keys}.items() if key not in GROUPS}
    tree = _nested({key or "kind": value for key, value in values.items()})
    if chooses is not None or groups:
        tree["defaults"] = groups + chooses if isinstance(chooses, list) else groups or chooses
    text = header + yaml.safe_dump(tree)
    if broken is not None:
        place, gone, more = broken
        text = text[:place] + more + text[place + gone :]
    return text


def _type_presets(given: Any, folder: Path) -> str:
    written, line, header = given
    for name, drawn in written.items():
        path = folder / "presets" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_yaml(drawn, header if name != "model/m" else ""), encoding="utf-8")
    return typed(["--config-dir", "presets", *shlex.split(line)], folder)


KINDS = {"presets": Kind(presets, _type_presets)}
