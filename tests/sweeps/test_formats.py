"""A ranking for other programs: nothing that a store says is more than text."""

import csv
import io
import json
import math
import re

import pytest

from mnist_exp.sweeps.formats import as_csv, as_json, as_latex, as_markdown

pytestmark = pytest.mark.fast

HOSTILE = [
    "a|b",
    "\\input{/etc/passwd}",
    "$x^2_1$ & 50 % #1 ~",
    "<script>",
    "[link](javascript:x)",
    "`code`",
    "x\ny\x1b[2J",
]
RECORDS: list[dict[str, object]] = [
    {"rank": 1, "a": "1", "loss": 0.1 + 0.2},
    {"rank": None, "b": "=1+1", "loss": math.nan},
]


def test_csv_has_all_columns_in_full_and_no_formula() -> None:
    first, second = csv.DictReader(io.StringIO(as_csv(RECORDS)))
    assert first == {"rank": "1", "a": "1", "loss": "0.30000000000000004", "b": ""}
    assert (second["rank"], second["a"], second["b"]) == ("", "", "'=1+1")
    [kept] = csv.DictReader(io.StringIO(as_csv([{"x": "-1.5e-3", "y": -0.5, "z": "@sum", "w": "a,\n\x1b"}])))
    assert kept == {"x": "-1.5e-3", "y": "-0.5", "z": "'@sum", "w": "a,??"}


def test_json_is_valid_whatever_was_measured() -> None:
    assert json.loads(as_json(RECORDS)) == [
        {"rank": 1, "a": "1", "loss": 0.1 + 0.2},
        {"rank": None, "b": "=1+1", "loss": None},
    ]


def test_markdown_is_a_table_of_text() -> None:
    text = as_markdown("2 runs", [["", "val_accuracy"], *([cell, "0.5"] for cell in HOSTILE)], [0], ["A *note*"])
    title, table, note = text.split("\n\n")
    assert (title, note) == ("2 runs", "A \\*note\\*")
    header, rule, *rows = table.split("\n")
    assert (header, rule) == ("|  | val_accuracy |", "| :--- | ---: |")
    assert len(rows) == len(HOSTILE)
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
        assert not re.search(r"(?<!\\)[`<>*\[\]]", row)


def test_latex_is_a_table_of_text() -> None:
    text = as_latex("2 runs \\par", [["", "a_b"], *([cell, "-0.5"] for cell in HOSTILE)], [0], ["note\n\\evil"])
    lines = text.split("\n")
    assert lines[:4] == ["% 2 runs \\par", "\\begin{tabular}{lr}", "\\toprule", " & a\\_b \\\\"]
    assert lines[-3:] == ["\\bottomrule", "\\end{tabular}", "% note?\\evil"]
    rows = lines[5:-3]
    assert len(rows) == len(HOSTILE)
    for row in rows:
        assert row.endswith(r" & $-$0.5 \\")
        cell = row.removesuffix(r" & $-$0.5 \\")
        assert not re.search(r"(?<!\\)[&%$#_^~]", cell)
        assert set(re.findall(r"\\[a-zA-Z]+", cell)) <= {
            "\\textbackslash", "\\textasciicircum", "\\textasciitilde", "\\textless", "\\textgreater", "\\textbar"
        }  # fmt: skip
