"""What runs differ in, and the text for it. Pure functions: nothing here reads a store."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnist_exp.tracking.job import short_names, shown_value

Values = Mapping[str, str]

_LONGEST = 110  # characters of a value


@dataclass(frozen=True)
class Differences:
    """What runs differ in: the names of the keys that have a column, and of those beside; texts by key and value.

    `usual`: the values of keys beside that most runs have, which are not repeated.
    """

    columns: Values
    beside: Values
    usual: Values
    texts: Mapping[str, Values]

    def cell(self, key: str, value: str) -> str:
        """Return the text of a value; as it is, where a refused run has one that is not known."""
        return self.texts[key].get(value, value)

    def also(self, values: Values) -> str:
        """Return what no column says of a run, such as `filters=[16, 32] kernel_size=3`."""
        return self._text(self.beside, values)

    def label(self, values: Values) -> str:
        """Return all that a run differs in, such as `hidden=64 epochs=20`, the model first."""
        names = {**self.columns, **self.beside}
        return self._text(dict(sorted(names.items(), key=lambda item: not item[0].startswith("model."))), values)

    def unsaid(self) -> str:
        """Return the values of `usual`, such as `epochs=10`."""
        return " ".join(f"{self.beside[key]}={self.cell(key, value)}" for key, value in self.usual.items())

    def _text(self, names: Values, values: Values) -> str:
        keys = [key for key in names if key in values and values[key] != self.usual.get(key)]
        return " ".join(f"{names[key]}={self.cell(key, values[key])}" for key in keys)


def differing_keys(runs: Sequence[Values]) -> list[str]:
    """Return the keys that not all runs have with the same value, in their order."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return [key for key in keys if len({run.get(key) for run in runs}) > 1]


def every_key(runs: Sequence[Values]) -> Differences:
    """Return the values of runs with a column for each key, whether they differ or not."""
    names = short_names(dict.fromkeys(key for run in runs for key in run))
    return Differences(names, {}, {}, {key: shown_values(run[key] for run in runs if key in run) for key in names})


def find_differences(runs: Sequence[Values], typed: Sequence[str], width: int) -> Differences:
    """Return what runs differ in.

    A key that all runs have gets a column, those of most different values first, as far as the width allows. A key that
    comes with a choice, such as an optimizer's own, is said only where it differs or was typed.

    Args:
        runs: the configuration of each, flattened.
        typed: the overrides of each, in one text.
        width: of all columns together, in characters.
    """
    keys = differing_keys(runs)
    values = {key: Counter(run[key] for run in runs if key in run) for key in keys}
    shared = [key for key in keys if values[key].total() == len(runs)]
    said = [key for key in keys if key in shared or len(values[key]) > 1 or not _comes_with_choice(key, runs, typed)]
    texts = {key: shown_values(values[key]) for key in said}
    names = dict(zip(said, short_names(key.removesuffix(".kind") for key in said).values(), strict=True))
    columns, usual = set(), {}
    for key in sorted(shared, key=lambda key: max(values[key].values())):
        wide = 2 + max(map(len, [names[key], *texts[key].values()]))
        [(most_common, count)] = values[key].most_common(1)
        if wide <= width:
            width -= wide
            columns.add(key)
        elif key != "seed" and count > len(runs) / 2:
            usual[key] = most_common
    beside = {key: name for key, name in names.items() if key not in columns}
    return Differences(
        {key: name for key, name in names.items() if key in columns},
        beside,
        {key: usual[key] for key in beside if key in usual},
        texts,
    )


def _comes_with_choice(key: str, runs: Sequence[Values], typed: Sequence[str]) -> bool:
    """Return whether the choice of a group implies this key; of a model's, only those that several kinds have."""
    group, _, name = key.partition(".")
    kind = f"{group}.kind"
    if "." in name or len({run.get(kind) for run in runs}) == 1 or any(f"{key}=" in text for text in typed):
        return False
    return group != "model" or len({run.get(kind) for run in runs if key in run}) > 1


def shown_values(values: Iterable[str]) -> dict[str, str]:
    """Return the text of each value of one key; where values are long, the beginning and what differs."""
    shown = {value: shown_value(value) for value in values}
    short = shortened(shown.values(), _LONGEST)
    return {value: short[text] for value, text in shown.items()}


def shortened(texts: Iterable[str], most: int) -> dict[str, str]:
    """Return each text in about so many characters; of those that begin alike, the beginning and what differs.

    >>> list(shortened(["[{Dense:{units:16,activation:relu}}]", "[{Dense:{units:16,activation:selu}}]"], 30).values())
    ['[{Dense:{u…activation:relu}}]', '[{Dense:{u…activation:selu}}]']
    """
    alike: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(text[: most // 3], []).append(text)
    found: dict[str, str] = {}
    for head, members in alike.items():
        if len(members) == 1 or max(map(len, members)) <= most:
            found |= {text: text if len(text) <= most else f"{text[: most - 1]}…" for text in members}
            continue
        first, last = min(members), max(members)
        same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
        word = max(first.rfind(sign, 0, same) for sign in " (,{") + 1
        part = max(len(head), word if same - word < most // 2 else same)
        rests = shortened((text[part:] for text in members), max(most - len(head) - 1, 8))
        found |= {text: f"{head}…{rests[text[part:]]}" for text in members}
    return found
