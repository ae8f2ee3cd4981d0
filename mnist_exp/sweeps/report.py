"""What a report of a sweep says: collected when the sweep ends, kept in its folder, and made into a page."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from mnist_exp.config.overrides import Override
from mnist_exp.config.presets import CONF
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.page import Report, page
from mnist_exp.sweeps.ranking import Row
from mnist_exp.sweeps.svg import DRAWN
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.folder import now
from mnist_exp.tracking.record import SweepRecord

FILES = ("report.json", "figures/objective.png", "code.patch")  # in the folder of a sweep, what a page is made from
_FACTS = {
    "mlflow.source.git.commit": "commit",
    "mnist_exp.code": "digest of the code that trains",
    "mnist_exp.own_code": "code of one's own",
    "mnist_exp.packages": "packages",
    "mnist_exp.machine": "machine",
}


def write_report(sweep: Sweep, record: SweepRecord, outcome: Table, curves: Sequence[Curve]) -> None:
    """Write `report.json`, and the page `report.html`, into the sweep's folder.

    Args:
        sweep: that has ended.
        record: its own.
        outcome: its ranking, with at least one row.
        curves: of each row, best first.
    """
    lines, texts = outcome.cells
    best = outcome.best
    assert best is not None
    kept, data = record.folder.read(), record.data(best)
    seconds = outcome.scores()["fit_seconds"]
    facts = {
        "typed, but for tracking and hydra": shlex.join(sweep.overrides),
        "objective": f"{outcome.objective}, {outcome.direction}d",
        "started": _date(kept.start),
        "ended": _date(now()),
        "time of all jobs": f"{seconds:.1f} s of training",
        "data": " ".join(data.get(name, "") for name in ("name", "digest")),
        **{name: kept.tags[tag] for tag, name in _FACTS.items() if tag in kept.tags},
    }
    commands = [_command(sweep, row) for row in outcome.rows]
    report = Report(
        title=f"Sweep {record.parent.run_id[:8] or sweep.folder.name}: {outcome.title}",
        verdict=[sentence for sentence in (outcome.verdict, *outcome.notes) if sentence],
        lines=lines,
        texts=texts,
        commands=[*commands, *[""] * (len(lines) - 1 - len(commands))],
        metric=outcome.metric,
        curves=curves[:DRAWN],
        importance=outcome.importance.shares if outcome.importance is not None else {},
        varied=sweep.swept,
        fixed=kept.parameters,
        facts=facts,
        pictures={},
        patch="",
    )
    folder = record.folder.path
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    made = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    (folder / "report.html").write_text(page_of(made), encoding="utf-8")


def page_of(files: Mapping[str, bytes]) -> str:
    """Return the page that is made from what a sweep has kept.

    Args:
        files: those of `FILES` that there are, by name; anybody could have written them.

    Raises:
        InputError: if `report.json` is no report.
    """
    try:
        report = TypeAdapter(Report).validate_json(files["report.json"], strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"report.json: is no report of this version ({where or 'the file'}: {first['msg']})") from None
    picture, patch = (files.get(name, b"") for name in FILES[1:])
    if not report.lines or not all(report.lines) or len(report.commands) != len(report.lines) - 1:
        raise InputError("report.json: is no report of this version (lines: must be a header and rows, each a command)")
    pictures = {"The objective by what varies": picture} if picture else {}
    return page(replace(report, pictures=pictures, patch=patch.decode(errors="replace")))


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _command(sweep: Sweep, row: Row) -> str:
    """Return what one types for the jobs of a row alone.

    Where a preset decides, of a sweep or of somebody's own, it is the command that repeats the row's first job.
    """
    overrides = [Override.of(text) for text in sweep.overrides]
    typed = {override.key: override for override in overrides if override.key in sweep.swept}
    presets = {f"{preset.key}/{preset.value}" for preset in overrides if preset.key in ("sweep", "experiment")}
    in_conf = {f"experiment/{path.stem}" for path in (CONF / "experiment").glob("*.yaml")}
    if not presets <= in_conf or typed.keys() != sweep.swept.keys():
        run_id = row.jobs[0].run_id
        return shlex.join(["python", "-m", "mnist_exp.rerun", run_id]) if run_id else ""
    fixed = [override.text for override in overrides if override.key not in sweep.swept]
    return shlex.join(["python", "-m", "mnist_exp", *fixed, *_varied(typed, row)])


def _varied(typed: Mapping[str, Override], row: Row) -> Iterator[str]:
    """Yield the overrides of what varies, as a row has them; several seeds are a sweep."""
    seeds = list(dict.fromkeys(job.values["seed"] for job in row.jobs if "seed" in job.values))
    if len(seeds) > 1:
        yield "-m"
    for key, override in typed.items():
        yield override.set_to(",".join(seeds) if key == "seed" else row.values[key])
