"""What runs differ in, and how their values are shown. Pure functions: nothing here reads a store."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnist_exp.tracking.job import short_names, shown_value

Values = Mapping[str, str]

_LONGEST = 110  # characters of a value


@dataclass(frozen=True)
class Differences:
    """The names of the keys that have a column, and of those that have none (`beside`); texts by key and value."""

    columns: Values
    beside: Values
    texts: Mapping[str, Values]

    def cell(self, key: str, value: str) -> str:
        """Return the text of a value; the value itself, which a refused run may have, where it is unknown."""
        return self.texts[key].get(value, value)

    def also(self, values: Values) -> str:
        """Return the values that have no column, such as `filters=[16, 32] kernel_size=3`."""
        return self._text(self.beside, values)

    def label(self, values: Values) -> str:
        """Return all values of a run, the model's first, such as `hidden=64 epochs=20`."""
        names = {**self.columns, **self.beside}
        return self._text(dict(sorted(names.items(), key=lambda item: not item[0].startswith("model."))), values)

    def _text(self, names: Values, values: Values) -> str:
        return " ".join(f"{name}={self.cell(key, values[key])}" for key, name in names.items() if key in values)


def differing_keys(runs: Sequence[Values]) -> list[str]:
    """Return the keys that not all runs have with the same value, in their order."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return [key for key in keys if len({run.get(key) for run in runs}) > 1]


def every_key(runs: Sequence[Values]) -> Differences:
    """Return a column for each key of the runs, whether they differ in it or not."""
    names = short_names(dict.fromkeys(key for run in runs for key in run))
    return Differences(names, {}, _texts(names, runs))


def find_differences(runs: Sequence[Values], width: int) -> Differences:
    """Return the keys in which runs differ.

    Keys that all runs have get a column, those whose values are most mixed first, as long as all columns together are
    at most `width` characters wide.
    """
    keys = differing_keys(runs)
    texts = _texts(keys, runs)
    names = dict(zip(keys, short_names(key.removesuffix(".kind") for key in keys).values(), strict=True))
    shared = [key for key in keys if all(key in run for run in runs)]
    columns = set()
    for key in sorted(shared, key=lambda key: max(Counter(run[key] for run in runs).values())):
        wide = 2 + max(map(len, [names[key], *texts[key].values()]))
        if wide <= width:
            width -= wide
            columns.add(key)
    beside = {key: name for key, name in names.items() if key not in columns}
    return Differences({key: name for key, name in names.items() if key in columns}, beside, texts)


def _texts(keys: Iterable[str], runs: Sequence[Values]) -> dict[str, dict[str, str]]:
    return {key: shown_values(run[key] for run in runs if key in run) for key in keys}


def shown_values(values: Iterable[str]) -> dict[str, str]:
    """Return the text of each value of one key; where values are long, the beginning and what differs."""
    shown = {value: shown_value(value) for value in values}
    short = shortened(shown.values(), _LONGEST)
    return {value: short[text] for value, text in shown.items()}


def shortened(texts: Iterable[str], most: int) -> dict[str, str]:
    """Return each text in about `most` characters; where texts begin alike, the beginning and what differs.

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
