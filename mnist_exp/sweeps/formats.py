"""A ranking as text, CSV, JSON, Markdown and LaTeX. Whatever a store says stays text in all of them."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence

from mnist_exp.errors import printable
from mnist_exp.tracking.job import no_formula

_OF_LATEX = {
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
    """Return so many of a thing in words, such as `1 job` or `3 jobs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def aligned(lines: Sequence[Sequence[str]], texts: Sequence[int]) -> str:
    """Return lines of cells as text: the columns of `texts`, by their place, to the left, numbers to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [
            cell.ljust(width) if place in texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return a line a record, with the columns of all of them; empty where a record has none.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    names = dict.fromkeys(name for record in records for name in record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([no_formula(name) for name in names])
    for record in records:
        values = (record.get(name) for name in names)
        writer.writerow([no_formula(value) if isinstance(value, str) else value for value in values])
    return text.getvalue()


def as_json(records: Sequence[Mapping[str, object]]) -> str:
    """Return a list of objects, one a record; null for a number that is not finite."""
    finite = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in one.items()}
        for one in records
    ]
    return json.dumps(finite, indent=2)


def as_markdown(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    """Return a table in Markdown, with its title above and notes below, a paragraph each.

    Args:
        title: one line.
        lines: of cells, the header first.
        texts: the places of the columns that hold text, aligned to the left; the others to the right.
        notes: one line each.
    """
    header, *rows = ([_in_markdown(cell) for cell in line] for line in lines)
    rule = [":---" if place in texts else "---:" for place in range(len(header))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
    return "\n\n".join([_in_markdown(title), table, *map(_in_markdown, notes)])


def _in_markdown(text: str) -> str:
    r"""Return a text that stays what it is in a cell of a table.

    >>> print(_in_markdown("val_accuracy | <b>"))
    val_accuracy \| \<b\>
    """
    return re.sub(r"[\\`*\[\]<>|~#$&!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", printable(text))


def as_latex(title: str, lines: Sequence[Sequence[str]], texts: Sequence[int], notes: Sequence[str]) -> str:
    r"""Return a `tabular` for the package booktabs; title and notes are comments. The arguments are as above.

    >>> print(as_latex("1 run", [["", "a_b"], ["1", "-0.5"]], [0], []))
    % 1 run
    \begin{tabular}{lr}
    \toprule
     & a\_b \\
    \midrule
    1 & $-$0.5 \\
    \bottomrule
    \end{tabular}
    """
    columns = "".join("l" if place in texts else "r" for place in range(len(lines[0])))
    header, *rows = (f"{' & '.join(map(_in_latex, line))} \\\\" for line in lines)
    return "\n".join(
        [
            f"% {printable(title)}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            header,
            "\\midrule",
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
            *(f"% {printable(note)}" for note in notes),
        ]
    )


def _in_latex(text: str) -> str:
    escaped = "".join(_OF_LATEX.get(character, character) for character in printable(text))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)  # a minus sign is longer than a hyphen
