"""The keys of conf/, for messages about a key that is not there. Imports nothing heavy."""

import re
from collections.abc import Iterable
from functools import cache
from textwrap import shorten
from typing import Any

from mnist_exp.config.overrides import leaves
from mnist_exp.config.presets import CONF
from mnist_exp.errors import OTHER_WORDS, did_you_mean, show


def unknown(key: str, value: Any, place: str, siblings: Iterable[str]) -> str:
    """Return the message about an unknown key: which one may be meant, and what to type.

    Args:
        key: the full key, such as `model.hiden`.
        value: its value; of a map, the first leaf was typed.
        place: the name of what has no such key.
        siblings: the keys that are known there.
    """
    above, dot, _ = key.rpartition(".")
    word = re.split("[./]", key)[-1]
    (_, *below), leaf = next(leaves({key: value}))
    typed = "" if leaf == {} else f"={shorten(show(leaf), 60)}"
    tail = "".join(f".{part}" for part in below) + typed
    siblings = [name for name in siblings if name != "kind" and name[:1] != "_"]
    is_here = not below and OTHER_WORDS.get(word.lower(), word.lower()) in siblings
    hint = "" if is_here else _elsewhere([*below[-1:], word], above, typed)
    hint = hint or did_you_mean(word, siblings, f"{above}{dot}", tail)
    keys = f"; its keys are {', '.join(siblings)}" if siblings else ""
    return f"{key}{tail}: {place} has no such key{hint or keys}"


def _elsewhere(words: Iterable[str], above: str, typed: str) -> str:
    """Return the hint at a key that has one of these words as its last part."""
    for word in words:
        meant = OTHER_WORDS.get(word.lower(), word.lower())
        found = {full: choices for full, choices in _keys().items() if full.rpartition(".")[2] == meant}
        if choices := found.get(f"{above}.{meant}"):
            return f"; it is a key of {', '.join(choices)}"
        for full, choices in found.items():
            needs = f"-m {choices[0]} " if full.startswith("hydra.") else ""
            return f"; did you mean {needs}{full}{typed}?"
    return ""


@cache
def _keys() -> dict[str, list[str]]:
    """Return the choices that have each key, such as `{"model.filters": ["model=cnn"]}`."""
    found: dict[str, list[str]] = {"seed": [], "hydra/launcher": []}
    found["hydra.launcher.n_jobs"] = ["hydra/launcher=joblib"]
    for file in sorted(CONF.glob("*/*.yaml")):
        group = file.parent.name
        above, depth = ("hydra.sweeper", 4) if group == "sweep" else (group, 0)
        if group != "experiment":
            for key in re.findall(rf"^ {{{depth}}}(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE):
                found.setdefault(f"{above}.{key}", []).append(f"{group}={file.stem}")
    return found
