"""What runs differ in, and how a table or a legend says it. Pure functions: nothing here reads a store."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mnist_exp.config.presets import parse_values
from mnist_exp.errors import InputError, show
from mnist_exp.tracking.job import short_names, shown_value

Values = Mapping[str, str]
_Parts = list[tuple[str, str]]  # where something lies in a value, such as `.Dense.units`, and what is there

_LONGEST = 110  # characters that are said of a key
_WHOLE = 32  # characters up to which a value is said with all its arguments


@dataclass(frozen=True)
class Differences:
    """What is said of each run.

    `columns`: the keys that have a column of a table, with their headers. `beside`: the other keys, with their names.
    `usual`: the most common value of some of these; only other values are said.
    """

    columns: Mapping[str, str]
    beside: Mapping[str, str]
    usual: Values
    _parts: Mapping[str, Mapping[str, _Parts]]

    def cell(self, values: Values, key: str) -> str:
        """Return the text of a column; empty for a run that does not have the key."""
        return _cut(_cell(self._parts_of(key, values[key]))) if key in values else ""

    def also(self, values: Values) -> str:
        """Return what no column says, such as `filters=[16, 32] kernel_size=3`."""
        return " ".join(map(_cut, self._told(self.beside, values)))

    def label(self, values: Values) -> str:
        """Return all of it in a line of any length, such as `hidden=64 epochs=20`, the model first."""
        names = {**self.columns, **self.beside}
        ordered = sorted(names, key=lambda key: key.split(".")[0] != "model")
        return " ".join(self._told({key: names[key] for key in ordered}, values))

    def unsaid(self) -> str:
        """Return the values of `usual`, which nothing else says."""
        return " ".join(_cut(self._said(self.beside[key], key, self.usual)) for key in self.usual)

    def _told(self, names: Mapping[str, str], values: Values) -> list[str]:
        keys = (key for key in names if key in values and values[key] != self.usual.get(key))
        return [self._said(names[key], key, values) for key in keys]

    def _said(self, name: str, key: str, values: Values) -> str:
        return " ".join(f"{name}{path}={text}" for path, text in self._parts_of(key, values[key]))

    def _parts_of(self, key: str, value: str) -> _Parts:
        return self._parts[key].get(value, [("", shown_value(value))])  # of a job that was refused, as typed


def differing_keys(runs: Sequence[Values]) -> list[str]:
    """Return the keys that not all runs have with the same value, in their order."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return [key for key in keys if len({run.get(key) for run in runs}) > 1]


def find_differences(runs: Sequence[Values], typed: Sequence[str], width: int) -> Differences:
    """Return what to say of runs.

    A key that all runs have gets a column, those of most different values first, as far as the width allows. The others
    are said beside; of the keys that only some runs have, all but those that come with a choice, such as an optimizer's
    own, which are said where they differ or were typed.

    Args:
        runs: what each was configured with; without those of which nothing is known.
        typed: the overrides of each, in one text.
        width: of all columns together, in characters.
    """
    keys = differing_keys(runs)
    shared = [key for key in keys if all(key in run for run in runs)]
    said = [key for key in keys if key in shared or not _comes_with_choice(key, runs, keys, typed)]
    parts = {key: _parts_of_texts(run[key] for run in runs if key in run) for key in said}
    short = short_names(key.removesuffix(".kind") for key in said)
    names = {key: short[key.removesuffix(".kind")] for key in said}
    most_common = {key: Counter(run[key] for run in runs).most_common(1)[0] for key in shared}
    chosen = []
    for key in sorted(shared, key=lambda key: most_common[key][1]):
        wide = 2 + max(len(names[key]), *(len(_cut(_cell(one))) for one in parts[key].values()))
        if wide <= width:
            width -= wide
            chosen.append(key)
    beside = [key for key in said if key not in chosen]
    usual = {key: most_common[key][0] for key in beside if key in shared and key != "seed"}
    return Differences(
        columns={key: names[key] for key in said if key in chosen},
        beside={key: names[key] for key in beside},
        usual={key: value for key, value in usual.items() if most_common[key][1] > len(runs) / 2},
        _parts=parts,
    )


def _comes_with_choice(key: str, runs: Sequence[Values], keys: Sequence[str], typed: Sequence[str]) -> bool:
    """Return whether the choice of a group says this key too: it has one value that nobody typed.

    Of a model's own keys that is said only of those that several kinds have.
    """
    group, _, name = key.partition(".")
    having = [run for run in runs if key in run]
    if "." in name or f"{group}.kind" not in keys or len({run[key] for run in having}) > 1:
        return False
    kinds = {run.get(f"{group}.kind") for run in having}
    return (group != "model" or len(kinds) > 1) and not any(f"{key}=" in text for text in typed)


def _cell(parts: _Parts) -> str:
    return " ".join(f"{path.removeprefix('.')}={text}" if path else text for path, text in parts)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def shortened(texts: Iterable[str], most: int) -> dict[str, str]:
    """Return each text in about so many characters; of those that begin alike, the beginning and what differs.

    >>> list(shortened(["Dense(units=16, activation=relu)", "Dense(units=16, activation=selu)", "ReLU"], 27).values())
    ['Dense(uni…activation=relu)', 'Dense(uni…activation=selu)', 'ReLU']
    """
    alike: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(text[: most // 3], []).append(text)
    found: dict[str, str] = {}
    for head, members in alike.items():
        first, last = min(members), max(members)
        if len(members) == 1 or max(map(len, members)) <= most:
            found |= {text: text if len(text) <= most else f"{text[: most - 1]}…" for text in members}
            continue
        same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
        word = max(first.rfind(sign, 0, same) for sign in " (") + 1
        part = max(len(head), word if same - word < most // 2 else same)
        rests = shortened((text[part:] for text in members), max(most - len(head) - 1, 8))
        found |= {text: f"{head}…{rests[text[part:]]}" for text in members}
    return found


def shown_values(texts: Iterable[str]) -> dict[str, str]:
    """Return what to say of each value of one key: of lists of layers and schedules what differs in them."""
    return {text: _cell(parts) for text, parts in _parts_of_texts(texts).items()}


def _parts_of_texts(given: Iterable[str]) -> dict[str, _Parts]:
    """Return what to say of each value of a key: of lists of layers and schedules what differs in them, of others
    all."""
    texts = list(dict.fromkeys(given))
    whole = {text: [("", shown_value(text))] for text in texts}
    if not any(text.startswith(("[", "{")) and "{" in text for text in texts):
        return whole
    try:  # what Hydra writes has no space after a colon, which YAML needs
        spaced = [re.sub(r":(?=\S)", ": ", text) for text in texts]
        values = [parse_values(f"value: {text}", "a value")["value"] for text in spaced]
    except (InputError, KeyError):  # anybody could have written it
        return whole
    if len(values) == 1 and isinstance(values[0], list):
        return {text: [("", " ".join(map(_text, values[0])))] for text in texts}
    if len(values) == 1 or len({type(value) for value in values}) > 1:  # a number or a schedule
        composed = [text for text, value in zip(texts, values, strict=True) if isinstance(value, list | dict)]
        shown = _texts([value for value in values if isinstance(value, list | dict)])
        return whole | {text: [("", one)] for text, one in zip(composed, shown, strict=True)}
    return dict(zip(texts, _differing_parts(values), strict=True))


def _differing_parts(values: Sequence[Any]) -> list[_Parts]:
    """Return, for each of several values, what differs from the others."""
    if all(isinstance(value, dict) for value in values) and (
        len({tuple(value) for value in values}) == 1 or any(len(value) > 1 for value in values)
    ):  # layers of one name, or arguments, which not all need to have
        return _joined([(f".{key}", [value.get(key, "") for value in values]) for key in dict.fromkeys(chain(*values))])
    if all(isinstance(value, list) for value in values) and any(isinstance(one, dict) for one in chain(*values)):
        shortest = min(map(len, values))
        start = next((i for i in range(shortest) if _differ([one[i] for one in values])), shortest)
        most = shortest - start
        end = next((i for i in range(most) if _differ([one[-1 - i] for one in values])), most)
        rests = [value[start : len(value) - end] for value in values]
        if len(set(map(len, rests))) == 1:
            return _joined([("", items) for items in zip(*rests, strict=True)])
        texts = [text.removeprefix("[").removesuffix("]") for text in _texts(rests)]
        return [[("", " ".join(["…"] * (start > 0) + [text] * bool(text) + ["…"] * (end > 0)))] for text in texts]
    return [[("", text)] for text in _texts(values)]


def _joined(places: Sequence[tuple[str, Sequence[Any]]]) -> list[_Parts]:
    """Return what differs at several places; of each, the path and what each value has there."""
    found: list[_Parts] = [[] for _ in places[0][1]]
    for path, values in places:
        if _differ(values):
            for parts, more in zip(found, _differing_parts(values), strict=True):
                parts += [(f"{path}{below}", text) for below, text in more if text]
    return found


def _differ(values: Sequence[Any]) -> bool:
    return any(show(value) != show(values[0]) for value in values)


def _texts(values: Sequence[Any]) -> list[str]:
    """Return values as text; if one is long, of layers that have the same names only the arguments that differ.

    >>> dense = [[{"Dense": {"units": units, "activation": "relu"}}, {"Dropout": {"rate": 0.1}}] for units in (16, 32)]
    >>> _texts([*dense, [{"Conv2D": {"filters": 8}}]])
    ['[Dense(units=16) Dropout]', '[Dense(units=32) Dropout]', '[Conv2D]']
    """
    found = list(map(_text, values))
    if max(map(len, found), default=0) <= _WHOLE:
        return found
    alike: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        alike.setdefault(_text(value, arguments=False), []).append(place)
    for places in alike.values():
        for place, text in zip(places, _outlines([values[place] for place in places]), strict=True):
            found[place] = text
    return found


def _outlines(values: Sequence[Any]) -> list[str]:
    """Return the names of layers, which all values share, with the arguments that differ."""
    if isinstance(values[0], list):
        columns = [_outlines(column) for column in zip(*values, strict=True)]
        return [f"[{' '.join(row)}]" for row in zip(*columns, strict=True)] if columns else ["[]"] * len(values)
    if not isinstance(values[0], dict) or not _differ(values):
        return [_text(value, arguments=False) for value in values]
    [name] = values[0]
    inside = [value[name] for value in values]
    if all(isinstance(one, list) for one in inside):
        return [f"{name}{text}" for text in _outlines(inside)]
    if all(isinstance(one, dict) for one in inside):
        keys = [key for key in dict.fromkeys(chain(*inside)) if _differ([one.get(key) for one in inside])]
        return [_text({name: {key: one[key] for key in keys if key in one}}) for one in inside]
    return list(map(_text, values))


def _text(value: Any, *, arguments: bool = True) -> str:
    """Return a layer or argument as briefly as it can be read; of layers, if need be, the names alone.

    >>> _text({"Dense": {"units": 32, "activation": "relu"}}), _text({"Residual": ["Flatten", {"Dropout": 0.5}]})
    ('Dense(units=32, activation=relu)', 'Residual[Flatten Dropout(0.5)]')
    """
    if isinstance(value, list):
        return f"[{' '.join(_text(one, arguments=arguments) for one in value)}]"
    if not isinstance(value, dict) or len(value) != 1:
        return show(value)
    [(name, inside)] = value.items()
    if isinstance(inside, list):
        return f"{name}{_text(inside, arguments=arguments)}"
    if not arguments or inside == {}:
        return str(name)
    if isinstance(inside, dict):
        return f"{name}({', '.join(f'{key}={_text(one)}' for key, one in inside.items())})"
    return f"{name}({_text(inside)})"
