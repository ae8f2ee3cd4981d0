"""The columns of a ranking: what each shows of a row, or of a job, and how."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.job import Job, job_name, mean

if TYPE_CHECKING:
    from mnist_exp.sweeps.table import Table


@dataclass(frozen=True)
class Line:
    """A row, or one job of it, the best job first; or jobs that no row holds, which have no `place`."""

    values: Mapping[str, str]
    jobs: Sequence[Job]
    status: str
    place: int | None = None
    row: Row | None = None

    def mean(self, measured: Callable[[Job], float | None]) -> float | None:
        """Return the mean over the jobs; None where one lacks a value."""
        values = [value for job in self.jobs if (value := measured(job)) is not None]
        return mean(values) if len(values) == len(self.jobs) else None


@dataclass(frozen=True)
class Column:
    """A column: under `key` in records, below `header` in the table, and not there where that is None.

    `value` returns a line's value, None for none, and `show` its text. If `is_text`, the column is aligned to the left,
    and lines without a row have a text, too. `spare`: a narrow terminal lacks it, 1 first; 0 for never.
    """

    key: str | None
    header: str | None
    value: Callable[[Line], Any]
    show: Callable[[Any], str] = str
    is_text: bool = False
    spare: int = 0

    def cell(self, line: Line) -> str:
        """Return the text for a line."""
        value = self.value(line) if self.is_text or line.row else None
        return "" if value is None else self.show(value)


def columns_of(table: "Table") -> list[Column]:
    """Return the columns of a table, in their order."""
    objective, shown, rows = table.objective, table.varied, table.rows
    others = table.lines[len(rows) :]
    keys = dict.fromkeys(key for job in table.jobs for key in job.values)
    tests = dict.fromkeys(name for job in table.jobs for name in job.scores or {} if name.startswith("test_"))

    def varied(key: str) -> Column:
        header = shown.columns.get(key) if key != "seed" or not table.has_seeds else None
        return Column(key, header, lambda line: line.values.get(key), partial(shown.cell, key), is_text=True)

    def score(name: str) -> Column:
        spare = 0 if name == "test_accuracy" else 1
        return Column(
            name, name, lambda line: line.mean(lambda job: (job.scores or {}).get(name)), decimals, spare=spare
        )

    def of_comparison(key: str, header: str) -> Column:
        return Column(key, header if table.is_compared else None, _attribute(f"row.comparison.{key}"), _signed)

    note = partial(_note, 1 if table.direction == "maximize" else -1)
    return [
        Column("rank", None, attrgetter("place")),
        Column(None, "", _mark, is_text=True),
        Column(None, "id" if table.ids else None, lambda line: table.ids[line.jobs[0].run_id], is_text=True),
        *map(varied, keys),
        Column(objective, objective, lambda line: line.row and line.mean(attrgetter("objective")), decimals),
        Column("mean", None, _attribute("row.mean")),
        Column("std", "std" if table.has_seeds else None, _attribute("row.deviation"), decimals, spare=3),
        Column("n", None, lambda line: line.row and len(line.row.jobs)),
        Column(None, "n" if table.has_seeds else None, attrgetter("row"), partial(_seeds, table.planned)),
        of_comparison("difference", "difference"),
        of_comparison("at_best", "at best"),
        Column("low", None, _attribute("row.comparison.low")),
        Column("high", None, _attribute("row.comparison.high")),
        Column("beaten", None, _attribute("row.comparison.is_beaten")),
        Column("shared_seeds", None, _attribute("row.comparison.seeds")),
        Column("dropped" if table.raced else None, None, _attribute("row.dropped")),
        Column("against" if table.raced else None, None, partial(_against, shown.names)),
        Column(None, "dropped" if table.raced else None, attrgetter("row"), partial(_dropped, table)),
        Column(None, "pruned" if any(row.pruned for row in rows) else None, attrgetter("row"), _pruned),
        *(score(name) for name in tests if name != objective),
        Column("seconds", "seconds", lambda line: line.mean(attrgetter("seconds")), "{:.1f}".format, spare=2),
        Column(None, "note" if any(map(note, rows)) else None, attrgetter("row"), note),
        Column(None, "status" if others else None, attrgetter("status"), is_text=True),
        Column("status", None, lambda line: line.jobs[0].status),
        Column("reason", None, lambda line: "" if line.row else reason(line.jobs[0])),
        Column("run_id", None, lambda line: line.jobs[0].run_id),
        Column(None, "also" if any(table.also) else None, lambda line: shown.also(line.values), is_text=True),
    ]


def reason(job: Job) -> str:
    """Return why a job has no place, as far as it is known."""
    if job.reason or job.status != "FINISHED":
        return job.reason
    return f"pruned after epoch {job.pruned}" if job.pruned is not None else "no objective"


def _attribute(path: str) -> Callable[[Any], Any]:
    """Return a function that gets an attribute of a line, such as `row.mean`; None where there is none."""
    return lambda line: reduce(lambda owner, name: getattr(owner, name, None), path.split("."), line)


def _mark(line: Line) -> str:
    return "-" if line.row is None else f"{line.place}{'=' * line.row.is_open}"


def _pruned(row: Row) -> str:
    return f"{row.pruned} of {row.pruned + len(row.jobs)}" if row.pruned else ""


def _seeds(planned: int, row: Row) -> str:
    due = max(planned, len(row.jobs) + row.missing)
    return f"{len(row.jobs)} of {due}" if due > len(row.jobs) else str(due)


def _against(keys: Iterable[str], line: Line) -> str | None:
    return job_name(line.row.against, keys) if line.row is not None and line.row.against is not None else None


def _dropped(table: "Table", row: Row) -> str:
    if row.dropped is None:
        return ""
    leader = row.against if row.against and row.against != table.rows[0].values else None
    by = f" by {job_name(leader, table.varied.names)}" if leader else ""
    return f"{'failed, ' * row.failed}round {row.dropped}{by}"


def _note(sign: int, row: Row) -> str:
    """Say that a row is better than the first one on the seeds that both have; `sign` is -1 to minimize."""
    found = row.comparison
    if found is None or row.dropped is not None or sign * found.difference <= 0:
        return ""
    return f"ahead on {found.seeds} shared seeds"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{decimals(abs(value))}"
