"""Format values and tables as text, CSV, JSON, Markdown and LaTeX.

All of them escape the texts of a store.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mnist_exp.errors import format_value
from mnist_exp.text import printable, truncate
from mnist_exp.tracking.names import no_formula, short_names, show_value

Values = Mapping[str, str]

_MAX_VALUE_CHARS = 110
_IN_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
}


def decimals(value: float) -> str:
    """Return a score with four decimals, or two digits if these would be zeros."""
    if 1e-8 < abs(value) < 5e-5:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def format_difference(value: float | None) -> str:
    """Return a difference with its sign, or "" for None."""
    if value is None:
        return ""
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{decimals(abs(value))}"


def mean(numbers: Sequence[float]) -> float:
    """Return the mean, or NaN of plus and minus infinity."""
    return math.nan if {math.inf, -math.inf} <= set(numbers) else fmean(numbers)


def pluralize(number: int, noun: str) -> str:
    """Return a number and a noun, such as `1 job` or `3 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def align(lines: Sequence[Sequence[str]], texts: Sequence[int]) -> str:
    """Return cells as text, with the columns in `texts` aligned to the left."""
    columns = [[printable(cell) for cell in column] for column in zip(*lines, strict=True)]
    for place, column in enumerate(columns):
        side, width = "<" if place in texts else ">", max(map(len, column))
        column[:] = [f"{cell:{side}{width}}" for cell in column]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return a line for each record, with the columns of all.

    A text like a formula gets an apostrophe.
    """

    def shown(value: object) -> object:
        return (
            no_formula(value) if isinstance(value, str) else format_value(value) if isinstance(value, bool) else value
        )

    names, text = dict.fromkeys(name for record in records for name in record), io.StringIO()
    lines: list[list[object]] = [list(names), *([record.get(name) for name in names] for record in records)]
    csv.writer(text, lineterminator="\n").writerows(map(shown, line) for line in lines)
    return text.getvalue()


def as_json(records: Sequence[Mapping[str, object]]) -> str:
    """Return a list of objects, with null for a number that is not finite."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{name: finite(value) for name, value in record.items()} for record in records], indent=2)


def as_markdown(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    """Return a Markdown table below its title, and each note as a paragraph.

    Args:
        title: above the table.
        lines: the header first.
        texts: the places of the columns that are aligned to the left.
        notes: below the table.
    """
    header, *rows = ([_in_markdown(cell) for cell in line] for line in lines)
    rule = [":---" if place in texts else "---:" for place in range(len(header))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
    return "\n\n".join([_in_markdown(title), table, *map(_in_markdown, notes)])


def _in_markdown(text: str) -> str:
    return re.sub(r"[\\`*\[\]<>|~#$&!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", printable(text))


def as_latex(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    """Return a booktabs `tabular` for LaTeX.

    Args:
        title: a comment above the table.
        lines: cells; the first line is the header.
        texts: the columns that are aligned left.
        notes: comments below the table.
    """
    columns = "".join("l" if place in texts else "r" for place in range(len(lines[0])))
    header, *rows = (f"{' & '.join(map(_in_latex, line))} \\\\" for line in lines)
    above = [f"% {printable(title)}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", header, "\\midrule"]
    below = ["\\bottomrule", "\\end{tabular}", *(f"% {printable(note)}" for note in notes)]
    return "\n".join([*above, *rows, *below])


def _in_latex(text: str) -> str:
    escaped = "".join(_IN_LATEX.get(character, character) for character in printable(text))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)  # a minus sign is longer than a hyphen


@dataclass(frozen=True)
class Differences:
    """The keys in which runs differ.

    Attributes:
        names: of the keys.
        columns: the names of those that have a column.
        texts: of their values, by key and value.
    """

    names: Values
    columns: Values
    texts: Mapping[str, Values]

    def cell(self, key: str, value: str) -> str:
        """Return the text of a value.

        A value of a refused run may be unknown, and is returned whole.
        """
        return self.texts[key].get(value, value)

    def label(self, values: Values) -> str:
        """Return a run's values, those with a column first: `hidden=64 epochs=20`."""
        keys = sorted(self.names, key=lambda key: key not in self.columns)
        return " ".join(f"{self.names[key]}={self.cell(key, values[key])}" for key in keys if key in values)


def differing_keys(runs: Sequence[Values]) -> list[str]:
    """Return the keys that not all runs have with the same value, in their order."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return [key for key in keys if len({run.get(key) for run in runs}) > 1]


def every_key(runs: Sequence[Values]) -> Differences:
    """Return a column for each key of the runs, whether they differ in it or not."""
    names = short_names(dict.fromkeys(key for run in runs for key in run))
    return Differences(names, names, _texts(names, runs))


def find_differences(runs: Sequence[Values], width: int) -> Differences:
    """Return the keys in which runs differ.

    Those that most runs have, and whose values are most mixed, get a column, as long as all columns together are at
    most `width` characters wide.
    """
    keys = differing_keys(runs)
    texts = _texts(keys, runs)
    names = dict(zip(keys, short_names(key.removesuffix(".kind") for key in keys).values(), strict=True))
    shown = set()
    for key in sorted(keys, key=lambda key: max(Counter(run.get(key) for run in runs).values())):
        wide = 2 + max(map(len, [names[key], *texts[key].values()]))
        if wide <= width:
            width -= wide
            shown.add(key)
    return Differences(names, {key: name for key, name in names.items() if key in shown}, texts)


def _texts(keys: Iterable[str], runs: Sequence[Values]) -> dict[str, dict[str, str]]:
    return {key: format_values(run[key] for run in runs if key in run) for key in keys}


def format_values(values: Iterable[str]) -> dict[str, str]:
    """Return the text of each value of a key, long ones shortened."""
    shown = {value: show_value(value) for value in values}
    short = shorten(shown.values(), _MAX_VALUE_CHARS)
    return {value: short[text] for value, text in shown.items()}


def shorten(texts: Iterable[str], most: int) -> dict[str, str]:
    """Return texts of about `most` characters, which keep their differences.

    >>> list(shorten(["[{Dense:{units:16,activation:relu}}]", "[{Dense:{units:16,activation:selu}}]"], 30).values())
    ['[{Dense:{u…activation:relu}}]', '[{Dense:{u…activation:selu}}]']
    """
    alike: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(text[: most // 3], []).append(text)
    found: dict[str, str] = {}
    for head, members in alike.items():
        if len(members) == 1 or max(map(len, members)) <= most:
            found |= {text: truncate(text, most) for text in members}
            continue
        first, last = min(members), max(members)
        same = next((i for i, (left, other) in enumerate(zip(first, last, strict=False)) if left != other), len(first))
        word = max(first.rfind(sign, 0, same) for sign in " (,{") + 1
        part = max(len(head), word if same - word < most // 2 else same)
        rests = shorten((text[part:] for text in members), max(most - len(head) - 1, 8))
        found |= {text: f"{head}…{rests[text[part:]]}" for text in members}
    return found
