"""What a report of a sweep says: collected when the sweep ends, kept in its folder, and made into a page."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from mnist_exp.config.overrides import Override
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.outcome import Outcome
from mnist_exp.sweeps.page import Report, page
from mnist_exp.sweeps.ranking import Row
from mnist_exp.sweeps.search import is_search
from mnist_exp.tracking.folder import now
from mnist_exp.tracking.record import SweepRecord

FILES = ("report.json", "figures/objective.png", "code.patch")  # in the folder of a sweep, what a page is made from
_FACTS = {
    "mlflow.source.git.commit": "commit",
    "mnist_exp.code": "digest of the code that trains",
    "mnist_exp.own_code": "code of one's own",
    "mnist_exp.packages": "packages",
    "mnist_exp.machine": "machine",
    "mnist_exp.threads": "threads",
}
_reports = TypeAdapter(Report)


def write_report(sweep: Sweep, record: SweepRecord, outcome: Outcome, curves: Sequence[Curve]) -> None:
    """Write `report.json`, and the page `report.html`, into the sweep's folder.

    Args:
        sweep: that has ended.
        record: its own.
        outcome: its ranking, with at least one row.
        curves: of each row, best first.
    """
    lines, texts = outcome.cells()
    best = outcome.best
    assert best is not None
    kept, data = record.folder.read(), record.data(best)
    seconds = outcome.scores()["fit_seconds"]
    facts = {
        "command": shlex.join(["python", "-m", "mnist_exp", "-m", *sweep.overrides]),
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
        curves=curves,
        importance=outcome.importance.shares if outcome.importance is not None else {},
        varied=sweep.swept,
        fixed=kept.parameters,
        facts=facts,
        pictures={},
        patch="",
    )
    folder = record.folder.path
    (folder / "report.json").write_bytes(_reports.dump_json(report, indent=1))
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
        report = _reports.validate_json(files["report.json"], strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"report.json: is no report of this version ({where or 'the file'}: {first['msg']})") from None
    picture, patch = (files.get(name, b"") for name in FILES[1:])
    pictures = {"The objective by what varies": picture} if picture else {}
    return page(replace(report, pictures=pictures, patch=patch.decode(errors="replace")))


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _command(sweep: Sweep, row: Row) -> str:
    """Return what one types for the jobs of a row alone.

    What a preset of a sweep sets cannot be typed for a run; then it is the command that repeats the row's first job.
    """
    preset = any(Override.of(text).key == "sweep" for text in sweep.overrides)
    if preset or is_search(sweep) or sweep.race is not None:
        run_id = row.jobs[0].run_id
        return shlex.join(["python", "-m", "mnist_exp.rerun", run_id]) if run_id else ""
    fixed = [text for text in sweep.overrides if Override.of(text).key not in sweep.swept]
    typed = {key: Override.of(text) for text in sweep.overrides if (key := Override.of(text).key) in sweep.swept}
    return shlex.join(["python", "-m", "mnist_exp", *fixed, *_varied(typed, row)])


def _varied(typed: Mapping[str, Override], row: Row) -> Iterator[str]:
    """Yield the overrides of what varies, as a row has them; several seeds are a sweep."""
    seeds = list(dict.fromkeys(job.values["seed"] for job in row.jobs if "seed" in job.values))
    if len(seeds) > 1:
        yield "-m"
    for key, override in typed.items():
        yield override.set_to(",".join(seeds) if key == "seed" else row.values[key])
