"""A sweep as one HTML page that can be mailed. Pure functions: nothing here reads a store.

The page loads nothing and runs nothing but its own script, whatever a store says: all of it is escaped, and the page's
policy names the script by its digest.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from string import Template

from mnist_exp.sweeps import svg
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.svg import escaped

_LARGEST = 3_000_000  # bytes, which every mail server takes
_ROWS = 1000
_LONG, _FOLDED = 24, 75  # characters of a text that may break, and of one of which only the start is shown
_START = re.compile(r".{30,60}(?<=[,: ])|.{60}", re.DOTALL)  # of such a text, if it can be, to the end of a part
_OPEN = ' class="open"'  # a row that may be the best


@dataclass(frozen=True)
class Report:
    """What a page shows.

    Attributes:
        title: such as "Sweep 3f2a1c22: 6 jobs, largest val_accuracy first".
        verdict: sentences, most important first.
        lines: cells of the ranking, header first, as `ranking.cells` returns them.
        texts: the places of columns of text, aligned to the left; others are numbers, to the right.
        commands: for each line below the header, the command that repeats it; empty for none.
        metric: what the curves show, such as val_accuracy.
        curves: best first; 8 are named and coloured, others grey.
        importance: share of variance by parameter, 0 to 1; empty for none.
        varied: what varies: a key to its values, as typed.
        fixed: all other parameters, a key to its value.
        facts: what else was recorded: commit, data, packages, machine, times.
        pictures: PNG by title.
        patch: the code's difference to its commit; empty for none.
    """

    title: str
    verdict: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: Sequence[int]
    commands: Sequence[str]
    metric: str
    curves: Sequence[Curve]
    importance: Mapping[str, float]
    varied: Mapping[str, str]
    fixed: Mapping[str, str]
    facts: Mapping[str, str]
    pictures: Mapping[str, bytes]
    patch: str


def page(report: Report) -> str:
    """Return the page, of at most 3 MB in UTF-8.

    It shows up to 1,000 rows. What makes it larger is left out, and named in the page: pictures, largest first, then
    the patch, then the lower half of the ranking until it fits.
    """
    left_out: list[str] = []
    if len(report.lines) > 1 + _ROWS:
        report, what = _with_rows(report, _ROWS)
        left_out.append(what)
    text = _page(report, left_out)
    while len(text.encode()) > _LARGEST and (report.pictures or report.patch or len(report.lines) > 2):
        report, what = _smaller(report)
        left_out.append(what)
        text = _page(report, left_out)
    return text


def _smaller(report: Report) -> tuple[Report, str]:
    """Return a report with less in it, and what it lacks."""
    if report.pictures:
        largest = max(report.pictures, key=lambda title: len(report.pictures[title]))
        kept = {title: png for title, png in report.pictures.items() if title != largest}
        return replace(report, pictures=kept), f"the picture {largest}"
    if report.patch:
        return replace(report, patch=""), "the changes of the code"
    return _with_rows(report, (len(report.lines) - 1) // 2)


def _with_rows(report: Report, count: int) -> tuple[Report, str]:
    cut = replace(report, lines=report.lines[: 1 + count], commands=report.commands[:count])
    return cut, f"the ranking's rows below line {count}"


def _page(report: Report, left_out: Sequence[str]) -> str:
    folder = files("mnist_exp.sweeps")
    template, style, script = (folder.joinpath(f"page.{end}").read_text("utf-8") for end in ("html", "css", "js"))
    parts = {
        "ranking": ("Ranking", _ranking(report)),
        "curves": ("Curves", _curves(report.curves, report.metric)),
        "importance": ("Importance", _importance(report.importance)),
        "pictures": ("Pictures", _pictures(report.pictures)),
        "varied": ("What varies", _pairs(report.varied)),
        "fixed": ("What is fixed", _folded(f"{len(report.fixed)} parameters of all jobs", _pairs(report.fixed))),
        "facts": ("Record", _pairs(report.facts)),
        "patch": ("Changes of the code", _folded("What differs from the commit", _patch(report.patch))),
    }
    shown = {name: (title, body) for name, (title, body) in parts.items() if body}
    verdict = [f"<p>{escaped(one)}</p>" for one in report.verdict]
    if left_out:
        verdict.append(f'<p class="note">Left out, to keep this page small: {escaped("; ".join(left_out))}.</p>')
    return Template(template).substitute(
        title=escaped(report.title),
        digest=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        script=script,
        verdict="\n".join(verdict),
        links="".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in shown.items()),
        sections="\n".join(
            f'<section id="{name}">\n<h2>{title}</h2>\n{body}\n</section>' for name, (title, body) in shown.items()
        ),
    )


def _ranking(report: Report) -> str:
    (_, *names), *lines = report.lines
    header = ['<th scope="col" aria-sort="ascending">place</th>']
    header += [f'<th scope="col"{_side(column, report)}>{escaped(name)}</th>' for column, name in enumerate(names, 1)]
    header += ['<th scope="col" class="command">command</th>'] * any(report.commands)
    rows = []
    for (mark, *cells), command in zip(lines, report.commands, strict=True):
        row = [f'<th scope="row">{escaped(mark)}</th>']
        row += [_cell(cell, _side(column, report)) for column, cell in enumerate(cells, 1)]
        row += [f'<td class="command">{_command(command)}</td>'] * any(report.commands)
        rows.append(f"<tr{_OPEN if mark == '1' or mark.endswith('=') else ''}>{''.join(row)}</tr>\n")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Ranking"><table class="ranking">\n'
        f"<thead><tr>{''.join(header)}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table></div>\n"
        f'<p class="note">{" ".join(_meanings(lines, names))}</p>'
    )


def _side(column: int, report: Report) -> str:
    return "" if column in report.texts else ' class="n"'


def _cell(text: str, side: str) -> str:
    if len(text) <= _LONG:
        return f"<td{side}>{escaped(text)}</td>"
    return f'<td class="long">{_foldable(text)}</td>'


def _command(text: str) -> str:
    return f"<details><summary>show</summary><code>{escaped(text)}</code></details>" if text else ""


def _foldable(text: str) -> str:
    """Return a text; of a long one it shows the start, and the rest on demand."""
    if len(text) <= _FOLDED or not (start := _START.match(text)):
        return f"<code>{_breakable(text)}</code>"
    rest = _breakable(text[start.end() :])
    return f"<details><summary><code>{_breakable(start[0])}</code></summary><code>{rest}</code></details>"


def _breakable(text: str) -> str:
    """Return a text that breaks after its commas, and before what is nested, rather than anywhere."""
    return "<wbr>".join(map(escaped, re.split(r"(?<=,)|(?<=:)(?=[{\[])", text)))


def _meanings(lines: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """Return what the marks and columns of a ranking mean, in sentences."""
    places = [line[0] for line in lines]
    sentences = []
    if any(place.endswith("=") for place in places):
        sentences.append("Rows marked = cannot be told from the first one.")
    if "-" in places:
        sentences.append("Rows marked - have no place, for the reason that their status gives.")
    if "difference" in names:
        sentences.append("The difference is that to the first row, std the deviation over the n jobs of a row.")
    return sentences


def _curves(curves: Sequence[Curve], metric: str) -> str:
    plot = svg.lines(curves, metric)
    if not plot:
        return ""
    entries = [
        f'<li><svg class="swatch c{number}" aria-hidden="true"><path class="line" d="M2 6H34"/></svg>'
        f"<div>{_foldable(one.name)}</div><div>{svg.last(one.mean)}</div></li>"
        for number, one in enumerate(curves[: svg.NAMED], start=1)
    ]
    caption = [f"{metric}: the mean of each row's jobs. Beside its name is the value of the last epoch."]
    if any(list(one.low) != list(one.high) for one in curves[: svg.NAMED]):
        caption.append("A band reaches from the lowest job to the highest.")
    if len(curves) > svg.NAMED:
        of_all = f"the next {svg.DRAWN - svg.NAMED} of {len(curves)}" if len(curves) > svg.DRAWN else "all others"
        caption.append(f"In grey are {of_all}; what lies far from the coloured lines is outside the frame.")
    return (
        f'<figure><div class="curves">{plot}<ul class="legend">{"".join(entries)}</ul></div>'
        f'<figcaption id="curves-caption">{escaped(" ".join(caption))}</figcaption></figure>'
    )


def _importance(shares: Mapping[str, float]) -> str:
    if not shares:
        return ""
    caption = "The share of the variance of the objective that each parameter explains."
    return f'<figure>{svg.bars(shares)}<figcaption id="importance-caption">{caption}</figcaption></figure>'


def _pictures(pictures: Mapping[str, bytes]) -> str:
    figures = [
        f'<figure><img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escaped(title)}">'
        f"<figcaption>{escaped(title)}</figcaption></figure>"
        for title, png in pictures.items()
    ]
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _pairs(pairs: Mapping[str, str]) -> str:
    lines = [f"<dt>{escaped(key)}</dt><dd><code>{_breakable(value)}</code></dd>" for key, value in pairs.items()]
    return f"<dl>{''.join(lines)}</dl>" if lines else ""


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>" if body else ""


def _patch(patch: str) -> str:
    """Return the lines of a patch, whose tabs are no characters that one sees."""
    lines = "\n".join(escaped(line.expandtabs()) for line in patch.splitlines())
    return f'<pre tabindex="0">{lines}</pre>' if lines else ""
