"""Write a sweep's figures, and its report, one HTML file that can be mailed.

The page loads nothing and runs its own script alone, whatever a store says: Jinja2 and matplotlib escape all texts, and
the page's policy names the script by its digest.
"""

import hashlib
import io
import re
import shlex
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from mnist_exp import figures
from mnist_exp.config import CONF
from mnist_exp.config.files import is_file, read_text, write_text
from mnist_exp.config.overrides import Override
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.charts import Curves, importance_bars, objective_by_parameter, validation_curves
from mnist_exp.sweeps.formats import find_differences
from mnist_exp.sweeps.ranking import Row
from mnist_exp.sweeps.table import Table
from mnist_exp.text import printable
from mnist_exp.tracking.names import short_names
from mnist_exp.tracking.records import Record, now
from mnist_exp.tracking.sweep_record import SweepRecord

_MAX_ROWS, _MAX_CURVES = 200, 40
_FACTS = {
    "mlflow.source.git.commit": "commit",
    "mnist_exp.code": "digest of the code that trains",
    "mnist_exp.own_code": "code of one's own",
    "mnist_exp.packages": "packages",
    "mnist_exp.machine": "machine",
}


@dataclass(frozen=True)
class Report:
    """The contents of a page.

    Attributes:
        verdict: sentences, most important first.
        lines, texts: the ranking, as in `Table.cells`.
        commands: the command that repeats each row, or nothing.
        pictures: SVG by title.
        tables: keys with their values, by title.
    """

    title: str
    verdict: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: Sequence[int]
    commands: Sequence[str]
    pictures: Mapping[str, Markup]
    tables: Mapping[str, Mapping[str, str]]
    patch: str


def write_report(sweep: Sweep, record: SweepRecord, outcome: Table) -> None:
    """Write `figures/` and `report.html` of a sweep.

    Args:
        sweep: has the values that vary.
        record: of the sweep; the files go into its folder.
        outcome: the ranking.
    """
    folder, kept, drawn = record.folder.path, record.folder.read(), {}
    jobs = [job for row in outcome.rows for job in row.jobs]
    if names := short_names(dict.fromkeys(key for job in jobs for key in job.values)):
        measured = [({names[key]: value for key, value in job.values.items()}, job.objective or 0.0) for job in jobs]
        drawn["objective"] = objective_by_parameter(measured, outcome.objective)
    if outcome.importance is not None:
        drawn["importance"] = importance_bars(outcome.importance)
    rows = _curves(record, outcome)

    if rows:
        drawn["curves"] = validation_curves(rows, outcome.metric)
    figures.save(drawn, folder / "figures")
    titles = {
        "curves": "Curves" if len(outcome.rows) == len(rows) else f"Curves of the first {len(rows)} rows",
        "importance": "Importance",
        "objective": "The objective by key",
    }
    lines, texts = outcome.cells
    report = Report(
        title=f"Sweep {record.parent.run_id[:8] or sweep.folder.name}: {outcome.title}",
        verdict=[sentence for sentence in (outcome.verdict, *outcome.notes) if sentence],
        lines=lines,
        texts=texts,
        commands=[_command(sweep, row) for row in outcome.rows[:_MAX_ROWS]],
        pictures={title: as_svg(drawn[name], name) for name, title in titles.items() if name in drawn},
        tables={"Varied keys": sweep.swept, "Fixed keys": kept.parameters, "Record": _facts(sweep, kept, outcome)},
        patch=read_text(patch, folder=folder) if is_file(patch := folder / "code.patch", folder) else "",
    )
    write_text(folder / "report.html", render_report(report))


def render_report(report: Report) -> str:
    """Return the page, with at most 200 lines of the ranking."""
    environment = Environment(
        loader=PackageLoader("mnist_exp.sweeps", ""),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("page.js").render()
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    header, *lines = report.lines
    return environment.get_template("page.html").render(
        report=report,
        header=header,
        rows=lines[:_MAX_ROWS],
        more=len(lines[_MAX_ROWS:]),
        digest=digest,
    )


def as_svg(figure: Figure, name: str) -> Markup:
    """Return a figure as SVG for a page, with ids that begin with its name."""
    text, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(style):
        figures.write(figure, text, format="svg", metadata=nothing)
    svg = text.getvalue()
    # Groups are numbered from 1 in each figure, and nothing refers to them.
    return Markup(re.sub(r'<g id="[\w.]+"', "<g", svg[svg.index("<svg") :]))  # noqa: S704 - matplotlib escapes texts


def _curves(record: SweepRecord, outcome: Table) -> list[Curves]:
    """Return the first rows' places, differing values, and their jobs' curves."""
    combinations = [
        {key: value for key, value in row.values.items() if key != "seed"} for row in outcome.rows[:_MAX_CURVES]
    ]
    differences = find_differences(combinations, sys.maxsize)
    return [
        (str(place), differences.label(values), [record.curve(job, outcome.metric) for job in row.jobs])
        for place, (values, row) in enumerate(zip(combinations, outcome.rows, strict=False), start=1)
    ]


def _facts(sweep: Sweep, kept: Record, outcome: Table) -> dict[str, str]:
    data = (outcome.best and outcome.best.data) or {}
    return {
        "typed, but for tracking, hydra and resume": shlex.join(sweep.overrides),
        "objective": f"{outcome.objective}, {outcome.direction}d",
        "started": _date(kept.start),
        "ended": _date(now()),
        "time of all jobs": f"{outcome.scores()['fit_seconds']:.1f} s of training",
        "data": " ".join(data.get(name, "") for name in ("name", "digest")),
        **{name: kept.tags[tag] for tag, name in _FACTS.items() if tag in kept.tags},
    }


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _command(sweep: Sweep, row: Row) -> str:
    """Return the command that repeats a row's jobs.

    It repeats only the first job if a preset of the user's or a sweep's decides.
    """
    overrides = [Override.parse(text) for text in sweep.overrides]
    typed = {override.key: override for override in overrides if override.key in sweep.swept}
    presets = {f"{preset.key}/{preset.value}" for preset in overrides if preset.key in ("sweep", "experiment")}
    in_conf = {f"experiment/{path.stem}" for path in (CONF / "experiment").glob("*.yaml")}
    if not presets <= in_conf or typed.keys() != sweep.swept.keys():
        run_id = row.jobs[0].run_id
        return shlex.join(["python", "-m", "mnist_exp.rerun", run_id]) if run_id else ""
    fixed = [override.text for override in overrides if override.key not in sweep.swept]
    seeds = list(dict.fromkeys(job.values["seed"] for job in row.jobs if "seed" in job.values))
    several = ["-m"] if len(seeds) > 1 else []
    values = {**row.values, "seed": ",".join(seeds)}
    varied = [override.set_to(values[key]) for key, override in typed.items()]
    return shlex.join(["python", "-m", "mnist_exp", *fixed, *several, *varied])
