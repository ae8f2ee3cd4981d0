"""The lines and columns of a ranking: what each shows of a row, or of a job, and how."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.names import job_name, typed_value
from mnist_exp.tracking.records import Record


@dataclass(frozen=True)
class Line:
    """A row, or one job of it, the best job first; or jobs that no row holds, which have no `place`."""

    values: Mapping[str, str]
    jobs: Sequence[Record]
    status: str
    place: int | None = None
    row: Row | None = None

    def mean(self, measured: Callable[[Record], float | None]) -> float | None:
        """Return the mean over the jobs; None where one lacks a value."""
        values = [value for job in self.jobs if (value := measured(job)) is not None]
        return mean(values) if len(values) == len(self.jobs) else None


@dataclass(frozen=True)
class Column:
    """A column of a ranking, in records and in tables.

    Attributes:
        key: its name in records, CSV and JSON; "" where they lack it.
        header: its name in tables; None where they lack it.
        value: returns the value of a line, or None.
        show: returns the text of a value in tables.
        shown: returns the value of a line in tables, if it is another there.
        is_text: whether it is aligned to the left, and lines without a row have a text, too.
        spare: a narrow terminal lacks it, 1 first; 0 for never, and -1 for a table that is text.
    """

    key: str
    header: str | None
    value: Callable[[Line], Any]
    show: Callable[[Any], str] = str
    shown: Callable[[Line], Any] | None = None
    is_text: bool = False
    spare: int = 0

    def cell(self, line: Line) -> str:
        """Return the text for a line."""
        value = (self.shown or self.value)(line) if self.is_text or line.row else None
        return "" if value is None else self.show(value)


def mean(numbers: Sequence[float]) -> float:
    """Return the mean; NaN of plus and minus infinity."""
    return math.nan if {math.inf, -math.inf} <= set(numbers) else fmean(numbers)


def reason(job: Record) -> str:
    """Return why a job has no place, as far as it is known."""
    if job.reason or job.status != "FINISHED":
        return job.reason
    return f"pruned after epoch {job.pruned}" if job.pruned is not None else "no objective"


def recorded(key: str, line: Line) -> str | float | bool | None:
    """Return the value of a key that varies, a number as a number; choices, digests, files and versions are texts."""
    text = line.values.get(key)
    is_name = ("." not in key and key != "seed") or key.endswith((".path", ".name")) or key.startswith("packages.")
    return text if text is None or is_name else typed_value(text)


def mark(line: Line) -> str:
    """Return the place of a line, marked = if its row may be better than the first."""
    return "-" if line.row is None else f"{line.place}{'=' * line.row.is_open}"


def pruned(row: Row) -> str:
    """Return how many jobs of a row were pruned."""
    return f"{row.pruned} of {row.pruned + len(row.jobs)}" if row.pruned else ""


def seeds(planned: int, row: Row) -> str:
    """Return how many seeds a row has, and of how many if some are missing."""
    due = max(planned, len(row.jobs) + row.missing)
    return f"{len(row.jobs)} of {due}" if due > len(row.jobs) else str(due)


def against(keys: Iterable[str], line: Line) -> str | None:
    """Return the name of the row that dropped this one from a race."""
    return job_name(line.row.against, keys) if line.row is not None and line.row.against is not None else None


def dropped(first: Mapping[str, str], keys: Iterable[str], row: Row) -> str:
    """Return when a race dropped a row, and which row led then, unless its values are the `first`."""
    if row.dropped is None:
        return ""
    by = f" by {job_name(row.against, keys)}" if row.against and row.against != first else ""
    return f"{'failed, ' * row.failed}round {row.dropped}{by}"


def ahead(sign: int, row: Row) -> str:
    """Say that a row is better than the first one on the seeds that both have; `sign` is -1 to minimize."""
    found = row.comparison
    if found is None or row.dropped is not None or sign * found.difference <= 0:
        return ""
    return f"ahead on {found.seeds} shared seeds"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{decimals(abs(value))}"
