"""Tables as text, CSV, JSON, Markdown and LaTeX, all of which escape the texts of a store."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mnist_exp.errors import printable
from mnist_exp.tracking.job import no_formula

_IN_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
}


def decimals(value: float) -> str:
    """Return a score as tables show it, with four decimals."""
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, such as `1 job` or `3 jobs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def aligned(lines: Sequence[Sequence[str]], texts: Sequence[int]) -> str:
    """Return cells as text; the columns whose places are in `texts` are aligned to the left."""
    columns = [[printable(cell) for cell in column] for column in zip(*lines, strict=True)]
    for place, column in enumerate(columns):
        side, width = "<" if place in texts else ">", max(map(len, column))
        column[:] = [f"{cell:{side}{width}}" for cell in column]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return a line for each record, with the columns of all; a text that looks like a formula gets an apostrophe."""
    names, text = dict.fromkeys(name for record in records for name in record), io.StringIO()
    lines: list[list[object]] = [list(names), *([record.get(name) for name in names] for record in records)]
    safe = ([no_formula(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    csv.writer(text, lineterminator="\n").writerows(safe)
    return text.getvalue()


def as_json(records: Sequence[Mapping[str, object]]) -> str:
    """Return a list of objects, with null for a number that is not finite."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{name: finite(value) for name, value in record.items()} for record in records], indent=2)


def as_markdown(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    """Return a table in Markdown, the title above and the notes below it, a paragraph each.

    `lines`: the header first. `texts`: the places of the columns that are aligned to the left.
    """
    header, *rows = ([_in_markdown(cell) for cell in line] for line in lines)
    rule = [":---" if place in texts else "---:" for place in range(len(header))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
    return "\n\n".join([_in_markdown(title), table, *map(_in_markdown, notes)])


def _in_markdown(text: str) -> str:
    return re.sub(r"[\\`*\[\]<>|~#$&!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", printable(text))


def as_latex(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    """Return a `tabular` for LaTeX's package booktabs; title and notes are comments."""
    columns = "".join("l" if place in texts else "r" for place in range(len(lines[0])))
    header, *rows = (f"{' & '.join(map(_in_latex, line))} \\\\" for line in lines)
    above = [f"% {printable(title)}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", header, "\\midrule"]
    below = ["\\bottomrule", "\\end{tabular}", *(f"% {printable(note)}" for note in notes)]
    return "\n".join([*above, *rows, *below])


def _in_latex(text: str) -> str:
    escaped = "".join(_IN_LATEX.get(character, character) for character in printable(text))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)  # a minus sign is longer than a hyphen
