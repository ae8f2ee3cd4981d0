"""A ranking as a table: columns of rows, of their jobs, and of the jobs that no row holds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from operator import attrgetter
from typing import Any

from mnist_exp.errors import printable
from mnist_exp.sweeps.formats import Differences, aligned, as_markdown, cut, decimals, every_key
from mnist_exp.sweeps.importance import Importance
from mnist_exp.sweeps.ranking import Row, combination
from mnist_exp.sweeps.statistics import Comparison
from mnist_exp.tracking.job import Job, mean, typed_value

_ROWS_SHOWN = 20  # on a page of MLflow
_LONGEST = 2000  # characters of a text, but for CSV and JSON
_TEXTS = ("data", "code", "own_code")  # digests, some all of digits


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
    and lines without a row have a text, too.
    """

    key: str | None
    header: str | None
    value: Callable[[Line], Any]
    show: Callable[[Any], str] = str
    is_text: bool = False

    def cell(self, line: Line) -> str:
        """Return the text for a line."""
        value = self.value(line) if self.is_text or line.row else None
        return "" if value is None else self.show(value)


@dataclass(frozen=True)
class Table:
    """Rows in their order, the jobs that no row holds (`rest`), and the sentences around them, which may be empty.

    `differences`: how values are shown, by default all in columns. `ids`: a text for each run id; empty for no such
    column. `raced`: whether rows can have been dropped. `listed`: whether each pruned job has its own line. `title` is
    above, `legend`, `verdict` (which rows can be told apart) and `notes` are below. `importance`: how much each key
    matters.
    """

    objective: str
    direction: str
    rows: Sequence[Row]
    rest: Sequence[Job] = ()
    differences: Differences | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    raced: bool = False
    listed: bool = False
    title: str = ""
    legend: str = ""
    verdict: str = ""
    notes: Sequence[str] = ()
    importance: Importance | None = None

    @property
    def metric(self) -> str:
        """The metric of an epoch that is nearest to the objective."""
        return "val_loss" if self.objective in {"objective", "value"} else self.objective.replace("test_", "val_", 1)

    @property
    def sentences(self) -> list[str]:
        """The sentences below the table."""
        return [text for text in (self.legend, self.verdict, *self.notes) if text]

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs, those of the rows first."""
        return [*(job for row in self.rows for job in row.jobs), *self.rest]

    @property
    def best(self) -> Job | None:
        """The best job of the first row."""
        return self.lines[0].jobs[0] if self.rows else None

    @cached_property
    def varied(self) -> Differences:
        """How the values that vary are shown."""
        return self.differences or every_key([job.values for job in self.jobs])

    @cached_property
    def also(self) -> list[str]:
        """The values of each line that have no column."""
        return [cut(self.varied.also(line.values), _LONGEST) for line in self.lines]

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each row, then those of the jobs that no row holds."""
        best_first = partial(sorted, key=attrgetter("objective"), reverse=self.direction == "maximize")
        rows = [
            Line(row.values, best_first(row.jobs), "FINISHED", place, row) for place, row in enumerate(self.rows, 1)
        ]
        return [*rows, *self._others()]

    def _others(self) -> Iterator[Line]:
        """Yield a line for each job that no row holds, but one for all jobs of a combination that were pruned."""
        pruned: dict[tuple[tuple[str, str], ...], list[Job]] = defaultdict(list)
        for job in self.rest:
            if job.pruned is not None and not self.listed:
                pruned[combination(job.values)].append(job)
            else:
                yield Line(job.values, [job], ": ".join(filter(None, (job.status, _reason(job)))))
        counted = {combination(row.values) for row in self.rows if row.pruned}
        for shared, jobs in pruned.items():
            if shared not in counted:
                first, *more = sorted({job.pruned or 0 for job in jobs})
                when = f"epochs {first} to {more[-1]}" if more else f"epoch {first}"
                yield Line(dict(shared), jobs, f"{f'{len(jobs)} ' * (len(jobs) > 1)}pruned after {when}")

    @cached_property
    def columns(self) -> list[Column]:
        """The columns, in their order."""
        objective, others, shown = self.objective, self.lines[len(self.rows) :], self.varied
        several = any(len(row.jobs) > 1 for row in self.rows)
        has_seeds = not several or any("seed" in line.values for line in others)
        keys = dict.fromkeys(key for job in self.jobs for key in job.values)
        tests = dict.fromkeys(name for job in self.jobs for name in job.scores or {} if name.startswith("test_"))

        def varied(key: str) -> Column:
            header = shown.columns.get(key) if key != "seed" or has_seeds else None
            return Column(None, header, lambda line: line.values.get(key), partial(shown.cell, key), is_text=True)

        def recorded(key: str) -> Column:
            is_text = key in _TEXTS or key.startswith("packages.")
            return Column(key, None, lambda line: _value(line.values.get(key), is_text=is_text))

        def score(name: str) -> Column:
            return Column(name, name, lambda line: line.mean(lambda job: (job.scores or {}).get(name)), decimals)

        def of_seeds(key: str | None, header: str, path: str, show: Callable[[Any], str]) -> Column:
            return Column(key, header if several else None, _attribute(path), show)

        return [
            Column("rank", None, attrgetter("place")),
            Column(None, "", _mark, is_text=True),
            Column(None, "id" if self.ids else None, lambda line: self.ids[line.jobs[0].run_id], is_text=True),
            *map(varied, keys),
            *map(recorded, keys),
            Column(objective, objective, lambda line: line.row and line.mean(attrgetter("objective")), decimals),
            Column("mean", None, _attribute("row.mean")),
            of_seeds("std", "std", "row.deviation", decimals),
            Column("n", "n" if several else None, lambda line: line.row and len(line.row.jobs)),
            of_seeds("difference", "difference", "row.comparison.difference", _signed),
            Column("low", None, _attribute("row.comparison.low")),
            Column("high", None, _attribute("row.comparison.high")),
            of_seeds(None, "95 % interval", "row.comparison", _interval),
            Column(None, "dropped" if self.raced else None, attrgetter("row"), _dropped),
            Column(None, "pruned" if any(row.pruned for row in self.rows) else None, attrgetter("row"), _pruned),
            *(score(name) for name in tests if name != objective),
            Column("seconds", "seconds", lambda line: line.mean(attrgetter("seconds")), "{:.1f}".format),
            Column(None, "status" if others else None, attrgetter("status"), is_text=True),
            Column("status", None, lambda line: line.jobs[0].status),
            Column("reason", None, lambda line: "" if line.row else _reason(line.jobs[0])),
            Column("run_id", None, lambda line: line.jobs[0].run_id),
            Column(None, "also" if any(self.also) else None, lambda line: shown.also(line.values), is_text=True),
        ]

    @cached_property
    def cells(self) -> tuple[list[list[str]], list[int]]:
        """The lines as text, the header first, and the places of the columns that are aligned to the left."""
        shown = [column for column in self.columns if column.header is not None]
        lines = [[column.header or "" for column in shown]]
        lines += [[column.cell(line) for column in shown] for line in self.lines]
        lines = [[cut(text, _LONGEST) for text in line] for line in lines]
        return lines, [place for place, column in enumerate(shown) if column.is_text]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The columns' values for each job, best first; None for those that it lacks."""
        jobs = [replace(line, values=job.values, jobs=[job]) for line in self.lines if line.row for job in line.jobs]
        jobs += [Line(job.values, [job], "") for job in self.rest]
        return [{column.key: column.value(job) for column in self.columns if column.key} for job in jobs]

    def scores(self) -> dict[str, float]:
        """Return the first row's means, the objective also as `objective`, and `fit_seconds`, the sum of all jobs."""
        scores = {"fit_seconds": sum(job.seconds or 0.0 for job in self.jobs)}
        if self.rows:
            means = {column.key: column.value(self.lines[0]) for column in self.columns if column.key}
            tests = {key: mean for key, mean in means.items() if key.startswith("test_") and mean is not None}
            scores |= {**tests, self.objective: self.rows[0].mean, "objective": self.rows[0].mean}
        return scores

    def text(self) -> str:
        """Return the table for a terminal; below each line are the values that have no column."""
        lines, texts = self.cells
        end = len(lines[0]) - any(self.also)
        header, *shown = aligned([line[:end] for line in lines], texts).split("\n")
        also = [f"\n   also {printable(text)}" * bool(text) for text in self.also]
        shown = [line + text for line, text in zip(shown, also, strict=True)]
        title, *sentences = (cut(printable(text), _LONGEST) for text in (self.title, *self.sentences))
        return "\n".join([title, header, *shown, *sentences])

    def markdown(self, most: int) -> str:
        """Return the verdict and as many rows as fit into `most` characters; nothing if not even one does."""
        lines, texts = self.cells
        for rows in range(min(len(lines) - 1, _ROWS_SHOWN), 0, -1):
            left = len(lines) - 1 - rows
            more = f"{left} more in ranking.csv, among the artifacts." if left else ""
            # MLflow shows only the first lines, unless it is asked for more.
            first, *notes = [*filter(None, [self.verdict, self.title, *self.notes, more])] or [""]
            if len(text := as_markdown(first, lines[: rows + 1], texts, notes)) <= most:
                return text
        return ""


def _attribute(path: str) -> Callable[[Any], Any]:
    """Return a function that gets an attribute of a line, such as `row.mean`; None where there is none."""
    return lambda line: reduce(lambda owner, name: getattr(owner, name, None), path.split("."), line)


def _value(text: str | None, *, is_text: bool) -> str | float | bool | None:
    return text if text is None or is_text else typed_value(text)


def _mark(line: Line) -> str:
    return "-" if line.row is None else f"{line.place}{'=' * line.row.is_open}"


def _dropped(row: Row) -> str:
    return "" if row.dropped is None else f"{'failed, ' * row.failed}round {row.dropped}"


def _pruned(row: Row) -> str:
    return f"{row.pruned} of {row.pruned + len(row.jobs)}" if row.pruned else ""


def _reason(job: Job) -> str:
    if job.reason or job.status != "FINISHED":
        return job.reason
    return f"pruned after epoch {job.pruned}" if job.pruned is not None else "no objective"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{decimals(abs(value))}"


def _interval(comparison: Comparison) -> str:
    return f"{_signed(comparison.low)} to {_signed(comparison.high)}"
