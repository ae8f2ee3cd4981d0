"""Guess what a mistyped key, choice or text means."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from textwrap import shorten
from typing import Any

from mnist_exp.config import CONF, GLOBAL_GROUPS, GROUPS
from mnist_exp.config.keras_names import ALLOWED, fold
from mnist_exp.config.overrides import leaves
from mnist_exp.errors import OTHER_WORDS, did_you_mean, format_value

_QUOTES = str.maketrans("“”„«»‘’‚", '"""""' + "'''")
_OTHER_CHOICES = {"dense": "model=mlp", "images": "dataset=folder"} | {
    fold(name): f"dataset=keras dataset.name={name}" for name in ("fashion_mnist", "cifar10", "cifar100")
}
_COMMANDS = {name: f"python -m mnist_exp.{name}" for name in ("compare", "predict", "rerun", "show", "sync", "tidy")}
_COMMANDS |= {"help": "--help", "resume": "resume=true"}


def explain_unknown_key(key: str, value: Any, place: str, siblings: Iterable[str]) -> str:
    """Return the message about an unknown key: which may be meant, and what to type.

    Args:
        key: the full key, such as `model.hiden`.
        value: its value; of a map, the first leaf was typed.
        place: the name of the part that has no such key.
        siblings: the keys that are known there.
    """
    above, dot, _ = key.rpartition(".")
    word = re.split("[./]", key)[-1]
    (_, *below), leaf = next(leaves({key: value}))
    shown = shorten(format_value(leaf), 60)
    typed = "" if leaf == {} else f"={as_share(shown) or shown}"
    parts = "".join(f".{part}" for part in below)
    tail = f"{parts}{typed}"
    siblings = [name for name in siblings if name != "kind" and name[:1] != "_"]
    siblings += () if dot else GLOBAL_GROUPS  # groups that are no keys
    plain = word.lower().replace("-", "_")
    is_here = not below and OTHER_WORDS.get(plain, plain) in siblings
    hint = "" if is_here else _callback(key, tail) or _elsewhere([*below[-1:], word], above, typed)
    hint = hint or did_you_mean(word, siblings, f"{above}{dot}", tail)
    keys = f"; its keys are {', '.join(siblings)}" if siblings else ""
    return f"{key}{parts}{f'={shown}' if typed else ''}: {place} has no such key{hint or keys}"


def find_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """Return a hint at the option that was meant, of this group or another, or "".

    Args:
        group: such as "optimizer".
        choice: the unknown name.
        options: the names in the group.
    """
    if fold(choice) not in map(fold, options) and (found := _choices().get(fold(choice))):
        return f"; did you mean {found}?"
    return did_you_mean(choice, options, f"{group}=")


def respell(text: str, following: Sequence[str] = ()) -> str:
    """Return the override that a text may mean, which cannot be read, or "".

    Args:
        text: such as `--hidden`, `model.hidden:16`, `adam`, or one with quotes of a word processor.
        following: the text after it.

    >>> respell("--hidden", ["16"]), respell("lr:0.1"), respell("adam")
    ('model.hidden=16', 'optimizer.learning_rate=0.1', 'optimizer=adam')
    """
    plain = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    if plain[:1] in ("'", '"'):
        plain = plain.strip("'\"")
    if plain == text and re.fullmatch(r"[\w./]+=\S*", text):
        return ""  # its key can be read
    after = following[: 2 if following and following[0] in "=:" else 1]
    found = re.fullmatch(r"-*([A-Za-z][\w./-]*?)\s*(?:[=:]\s*|\s+)(\S.*)", " ".join([plain, *after]))
    words = {**_choices(), **_COMMANDS}
    if found is None or ("=" not in plain and ":" not in plain and fold(plain) in words):
        return words.get(fold(plain), "")
    key, value = found.groups()
    known = {fold(name): name for name in (*_keys(), *GROUPS, *GLOBAL_GROUPS)}
    if (name := known.get(fold(key))) is None:
        hint = _elsewhere(re.split("[./]", key)[::-1], "", f"={value}")
        return hint.removeprefix("; did you mean ").removesuffix("?")
    meant = f"{name}={value}"
    return meant if re.fullmatch(r"[\w.=/-]+", meant) else shlex.quote(meant)


def as_share(text: str) -> str:
    """Return the number that a percentage stands for, such as 0.2 for 20%, or ""."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text)
    return f"{float(found[1]) / 100:g}" if found else ""


def _callback(key: str, tail: str) -> str:
    """Return the hint at a callback that a part of a key names."""
    names = {fold(name): name for name in ALLOWED["callbacks"]}
    if name := next((names[fold(part)] for part in key.split(".") if fold(part) in names), None):
        set_to = tail if tail.startswith((".", "={")) else "={patience:3}" if name == "EarlyStopping" else "={}"
        return f"; did you mean training.callbacks.{name}{set_to}?"
    return ""


def _elsewhere(words: Iterable[str], above: str, typed: str) -> str:
    """Return the hint at a key that has one of these words as its last part."""
    for word in words:
        plain = word.lower().replace("-", "_")
        meant = OTHER_WORDS.get(plain, plain)
        found = {full: choices for full, choices in _keys().items() if full.rpartition(".")[2] == meant}
        if choices := found.get(f"{above}.{meant}"):
            return f"; it is a key of {', '.join(choices)}"
        for full, choices in found.items():
            needs = f"-m {choices[0]} " if full.startswith("hydra.") else ""
            return f"; did you mean {needs}{full}{typed}?"
        if fold(above + word) in (names := {fold(full): full for full in _keys()}):
            return f"; did you mean {names[fold(above + word)]}{typed}?"
    return ""


@cache
def _keys() -> dict[str, list[str]]:
    """Return the choices with each key, such as `{"model.filters": ["model=cnn"]}`."""
    found: dict[str, list[str]] = {"seed": [], "optimizer": [], "hydra/launcher": []}
    found["hydra.launcher.n_jobs"] = ["hydra/launcher=joblib"]
    for file in sorted(CONF.glob("*/*.yaml")):
        group = file.parent.name
        above, depth = ("hydra.sweeper", 4) if group == "sweep" else (group, 0)
        if group != "experiment":
            for key in re.findall(rf"^ {{{depth}}}(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE):
                found.setdefault(f"{above}.{key}", []).append(f"{group}={file.stem}")
    return found


@cache
def _choices() -> Mapping[str, str]:
    """Return the override for each choice and other program's word, by folded name."""
    found = dict(_OTHER_CHOICES)
    for group in ("prune", *reversed(GLOBAL_GROUPS), *reversed(GROUPS)):
        needs = "-m " if group in ("prune", "sweep") else ""
        found |= {fold(path.stem): f"{needs}{group}={path.stem}" for path in (CONF / group).glob("*.yaml")}
    return found
