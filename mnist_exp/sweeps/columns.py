"""Define the lines and columns of a ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from mnist_exp.errors import InputError, did_you_mean
from mnist_exp.sweeps.formats import decimals, every_key, mean
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.names import parse_value
from mnist_exp.tracking.records import Record


@dataclass(frozen=True)
class Line:
    """A row, one job of it (best first), or jobs outside all rows, without a `place`."""

    values: Mapping[str, str]
    jobs: Sequence[Record]
    status: str
    place: int | None = None
    row: Row | None = None

    def mean(self, measured: Callable[[Record], float | None]) -> float | None:
        """Return the mean over the jobs, or None if one lacks a value."""
        values = [value for job in self.jobs if (value := measured(job)) is not None]
        return mean(values) if len(values) == len(self.jobs) else None


@dataclass(frozen=True)
class Column:
    """A column of a ranking.

    Attributes:
        key: its name in records, CSV and JSON; "" where they lack it.
        header: its name in tables; None where they lack it.
        value: returns the value of a line in records, or None.
        text: returns the text of a line in tables; by default, the value is shown, a score with four decimals.
        is_text: whether it is aligned to the left, and jobs that no row holds have a text.
        spare: a narrow terminal lacks it, 1 first. Markdown and LaTeX have only columns with 0.
    """

    key: str
    header: str | None
    value: Callable[[Line], Any]
    text: Callable[[Line], str] | None = None
    is_text: bool = False
    spare: int = 0

    def cell(self, line: Line) -> str:
        """Return the text of a line."""
        if line.row is None and not self.is_text:
            return ""
        if self.text is not None:
            return self.text(line)
        value = self.value(line)
        return "" if value is None else decimals(value) if isinstance(value, float) else str(value)


def column_value(key: str, line: Line) -> str | float | bool | None:
    """Return the value of a varying key, as a number if it is one.

    Choices, digests, files and versions are texts.
    """
    text = line.values.get(key)
    is_name = ("." not in key and key != "seed") or key.endswith((".path", ".name")) or key.startswith("packages.")
    return text if text is None or is_name else parse_value(text)


def mark(line: Line) -> str:
    """Return the place of a line, marked = if its row may be better than the first."""
    return "-" if line.row is None else f"{line.place}{'=' if line.row.is_open else ''}"


def seeds(planned: int, row: Row) -> str:
    """Return how many seeds a row has, and of how many if some are missing."""
    due = max(planned, len(row.jobs) + row.missing)
    return f"{len(row.jobs)} of {due}" if due > len(row.jobs) else str(due)


def count_pruned(row: Row) -> str:
    """Return how many jobs of a row were pruned."""
    return f"{row.pruned} of {row.pruned + len(row.jobs)}" if row.pruned else ""


def seconds(line: Line) -> str:
    """Return the mean time of training."""
    seconds = line.mean(attrgetter("seconds"))
    return "" if seconds is None else f"{seconds:.1f}"


def reason(job: Record) -> str:
    """Return why a job has no place, as far as it is known."""
    if job.reason or job.status != "FINISHED":
        return job.reason
    return f"pruned after epoch {job.pruned}" if job.pruned is not None else "no objective"


def why_stopped(jobs: Sequence[Record], planned: int) -> str:
    """Say how the jobs of a combination without a finished job ended."""
    epochs = sorted(job.pruned for job in jobs if job.pruned is not None)
    killed = " and ".join(sorted({job.status for job in jobs if job.pruned is None}))
    if not epochs:
        return f"{killed}, 0 of {planned} seeds" if planned > 1 else killed
    when = f"epochs {epochs[0]} to {epochs[-1]}" if epochs[0] < epochs[-1] else f"epoch {epochs[0]}"
    pruned = f"{len(epochs)} pruned after {when}" if len(epochs) > 1 else f"pruned after {when}"
    return f"{pruned}, {len(jobs) - len(epochs)} {killed}" if killed else pruned


def about_at_best(rows: Sequence[Row]) -> str:
    """Explain the column `at best`, or return "" without one."""
    if all(row.comparison is None for row in rows):
        return ""
    marked = ", else marked =" if any(row.is_open for row in rows) else ""
    return f"At best: by how much a row may be better than the first; below 0, it is beaten{marked}."


def make_deviation_column(column: Column) -> Column:
    """Return the column of the objective with the deviation behind each mean."""

    def text(line: Line) -> str:
        deviation = line.row.deviation if line.row else None
        return column.cell(line) if deviation is None else f"{column.cell(line)} ± {decimals(deviation)}"

    return replace(column, text=text)


def find_column(name: str, columns: Sequence[Column], jobs: Sequence[Record]) -> Column:
    """Return the column of this name, or else of a score or a parameter.

    Args:
        name: of a column, a score or a parameter.
        columns: of the table.
        jobs: of all its rows.

    Raises:
        InputError: if no job has recorded such a value.
    """
    for column in columns:
        if name in (column.key, column.header, column.key.rpartition(".")[2]):
            return replace(column, header=column.header or name)
    scores = {score for job in jobs for score in job.scores}
    parameters = {key for job in jobs for key in job.parameters}
    if name in scores:
        return Column(name, name, lambda line: line.mean(lambda job: job.scores.get(name)))
    ends = {key.rpartition(".")[2]: key for key in parameters}
    if key := name if name in parameters else ends.get(name, ""):
        texts = every_key([job.parameters for job in jobs if key in job.parameters])
        return Column(
            name,
            name,
            lambda line: parse_value(line.jobs[0].parameters.get(key, "null")),
            lambda line: texts.cell(key, line.jobs[0].parameters.get(key, "")),
            is_text=True,
        )
    known = {*(column.key for column in columns if column.key), *scores}
    hint = (
        did_you_mean(name, {*known, *parameters, *ends})
        or f"; there are {', '.join(sorted(known))}, and each parameter"
    )
    raise InputError(f"--columns {name}: is not recorded{hint}")
