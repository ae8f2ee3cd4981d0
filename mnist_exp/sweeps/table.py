"""Show a ranking as a table with sentences below it, as text or as records."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

from mnist_exp.sweeps.columns import (
    Column,
    Line,
    about_at_best,
    column_value,
    count_pruned,
    find_column,
    make_deviation_column,
    mark,
    reason,
    seconds,
    seeds,
    why_stopped,
)
from mnist_exp.sweeps.formats import (
    Differences,
    align,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    every_key,
    format_difference,
)
from mnist_exp.sweeps.importance import Importance
from mnist_exp.sweeps.ranking import Row, combination, is_missing
from mnist_exp.text import truncate, wrap_text
from mnist_exp.tracking.records import Record

_ROWS_SHOWN = 20  # on a page of MLflow, and of each part of a table on a terminal
_OF_COMPARISON = {"low": "low", "high": "high", "beaten": "is_beaten", "shared_seeds": "seeds"}
_MAX_TEXT_CHARS = 2000  # except in CSV and JSON


@dataclass(frozen=True)
class Table:
    """A ranking.

    Attributes:
        objective, direction: the metric that ranks the rows, and `maximize` or `minimize`.
        rows: in their order.
        rest: the jobs that no row holds.
        differences: how values are shown; by default, each key has a column.
        ids: a text for each run id; empty for no such column.
        raced: whether rows can have been dropped.
        planned: how many seeds each row was to run; 0 if that is unknown.
        listed: whether each job has its own line.
        only: the names of the columns that were asked for; empty for the usual ones.
        measure: its difference from other tables, such as `objective=val_loss`.
        title, verdict, notes: the sentences above and below, which may be empty.
        importance: how much each key matters.
    """

    objective: str
    direction: str
    rows: Sequence[Row]
    rest: Sequence[Record] = ()
    differences: Differences | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    raced: bool = False
    planned: int = 0
    listed: bool = False
    only: Sequence[str] = ()
    measure: str = ""
    title: str = ""
    verdict: str = ""
    notes: Sequence[str] = ()
    importance: Importance | None = None

    @property
    def metric(self) -> str:
        """The metric of an epoch that is nearest to the objective."""
        return "val_loss" if self.objective in {"objective", "value"} else self.objective.replace("test_", "val_", 1)

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences below the table."""
        measure = f"Measured with {self.measure}." if self.measure else ""
        return [text for text in (self.verdict, measure, *self.notes) if text]

    @cached_property
    def jobs(self) -> list[Record]:
        """All jobs, those of the rows first."""
        return [*(job for row in self.rows for job in row.jobs), *self.rest]

    @property
    def best(self) -> Record | None:
        """The best job of the first row."""
        return self.lines[0].jobs[0] if self.rows else None

    @cached_property
    def varied(self) -> Differences:
        """How the values that vary are shown."""
        return self.differences or every_key([job.values for job in self.jobs])

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each row, then those of the jobs that no row holds."""
        best_first = partial(sorted, key=attrgetter("objective"), reverse=self.direction == "maximize")
        rows = [Line(row.values, best_first(row.jobs), "", place, row) for place, row in enumerate(self.rows, 1)]
        return [*rows, *self._others()]

    def _others(self) -> Iterator[Line]:
        """Yield a line for each failed job and each combination that was pruned."""
        stopped: dict[tuple[tuple[str, str], ...], list[Record]] = defaultdict(list)
        for job in self.rest:
            if (job.pruned is not None or is_missing(job)) and not self.listed:
                stopped[combination(job.values)].append(job)
            else:
                status = ": ".join(filter(None, (job.status, reason(job))))
                is_one_of_several = self.has_seeds and "seed" in job.values
                yield Line(job.values, [job], f"seed {job.values['seed']} {status}" if is_one_of_several else status)
        ranked = {combination(row.values) for row in self.rows}
        for shared, jobs in stopped.items():
            if shared not in ranked:
                yield Line(dict(shared), jobs, why_stopped(jobs, self.planned))

    @cached_property
    def has_seeds(self) -> bool:
        """Whether rows have several seeds."""
        return self.planned > 1 or any(len(row.jobs) > 1 for row in self.rows)

    @cached_property
    def columns(self) -> list[Column]:
        """The columns in their order, made by `make_columns`."""
        return make_columns(self)

    @cached_property
    def cells(self) -> tuple[list[list[str]], list[int]]:
        """The lines as text, the header first, and the places of left-aligned columns."""
        return self._cells(self.columns, self.lines)

    def _cells(self, columns: Sequence[Column], lines: Sequence[Line]) -> tuple[list[list[str]], list[int]]:
        shown = [column for column in columns if column.header is not None]
        cells = [[column.header or "" for column in shown]]
        cells += [[truncate(column.cell(line), _MAX_TEXT_CHARS) for column in shown] for line in lines]
        return cells, [place for place, column in enumerate(shown) if column.is_text]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The columns' values for each job, best first, with None for missing ones."""
        jobs = [replace(line, values=job.values, jobs=[job]) for line in self.lines if line.row for job in line.jobs]
        jobs += [Line(job.values, [job], "") for job in self.rest]
        return [{column.key: column.value(job) for column in self.columns if column.key} for job in jobs]

    def scores(self) -> dict[str, float]:
        """Return the first row's means, `objective` included, and all jobs' `fit_seconds`."""
        scores = {"fit_seconds": sum(job.seconds or 0.0 for job in self.jobs)}
        if self.rows:
            means = {column.key: column.value(self.lines[0]) for column in self.columns if column.key}
            tests = {key: mean for key, mean in means.items() if key.startswith("test_") and mean is not None}
            scores |= {**tests, self.objective: self.rows[0].mean, "objective": self.rows[0].mean}
        return scores

    def text(self, whole: str = "ranking.csv has all") -> str:
        """Return the table for people.

        A terminal shows the first rows, and the first of the jobs that no row holds, in its width, if possible; `whole`
        says where all are.
        """
        most = _ROWS_SHOWN if sys.stdout.isatty() else len(self.lines)
        rows, others = self.lines[: len(self.rows)][:most], self.lines[len(self.rows) :][:most]
        columns = [column for column in self.columns if column.key != "status" or self.only]
        for spare in (1, 2, 3, 4, None):  # what is left after 4 stays, however wide
            header, *lines = align(*self._cells(columns, [*rows, *others])).split("\n")
            if max(map(len, [header, *lines[: len(rows)]])) <= shutil.get_terminal_size().columns:
                break
            columns = [column for column in columns if column.spare != spare]
        for place, line in enumerate(others, len(rows)):
            lines[place] += f"  {truncate(line.status, _MAX_TEXT_CHARS)}"
        left = len(self.lines) - len(lines)
        more = [f"... and {left} more rows and jobs; {whole}"] if left else []
        below = [*self.sentences, about_at_best(self.rows)]
        title, *sentences = (wrap_text(truncate(text, _MAX_TEXT_CHARS)) for text in (self.title, *filter(None, below)))
        return "\n".join([title, header, *lines, *more, *sentences])

    def brief(self) -> tuple[list[list[str]], list[int]]:
        """Return `cells` with few columns, the mean and its deviation in one."""
        columns = [column for column in self.columns if column.spare == 0 or self.only]
        columns = [make_deviation_column(column) if column.key == self.objective else column for column in columns]
        return self._cells(columns, self.lines)

    def markdown(self, most: int) -> str:
        """Return the verdict and the rows that fit into `most` characters, or ""."""
        lines, texts = self.brief()
        for rows in range(min(len(lines) - 1, _ROWS_SHOWN), 0, -1):
            left = len(lines) - 1 - rows
            more = f"{left} more in ranking.csv, among the artifacts." if left else ""
            # MLflow shows only the first lines, unless it is asked for more.
            first, *notes = [text for text in (self.verdict, self.title, *self.notes, more) if text] or [""]
            if len(text := as_markdown(first, lines[: rows + 1], texts, notes)) <= most:
                return text
        return ""


def format_tables(tables: Sequence[Table], form: str, notes: Sequence[str] = ()) -> str:
    """Return all tables as records, or the first with `notes` in another form.

    Args:
        tables: at least one.
        form: `table`, `csv`, `json`, `markdown` or `latex`.
        notes: sentences.
    """
    if form in {"csv", "json"}:
        records = [{"objective": table.objective, **record} for table in tables for record in table.records]
        return as_json(records) if form == "json" else as_csv(records).rstrip("\n")
    first = replace(tables[0], notes=[*tables[0].notes, *notes]) if notes else tables[0]
    if form == "table":
        return first.text("--format csv prints all")
    return (as_markdown if form == "markdown" else as_latex)(first.title, *first.brief(), first.sentences)


def make_columns(table: Table) -> list[Column]:
    """Return the columns of a ranking in their order, without headers for empty ones.

    Raises:
        InputError: if one that was asked for is neither among them nor recorded.
    """
    rows, objective, has_seeds = table.rows, table.objective, table.has_seeds
    is_compared = any(row.comparison is not None for row in rows)
    keys = dict.fromkeys(key for job in table.jobs for key in job.values)
    tests = dict.fromkeys(name for job in table.jobs for name in job.scores if name.startswith("test_"))
    unranked = "status" if len(table.lines) > len(rows) else None

    def varied(key: str) -> Column:
        header = table.varied.columns.get(key) if key != "seed" or not has_seeds else None
        text = partial(table.varied.cell, key)
        return Column(
            key, header, partial(column_value, key), lambda line: text(line.values.get(key, "")), is_text=True
        )

    def score(name: str) -> Column:
        spare = 0 if name == "test_accuracy" else 1
        return Column(name, name, lambda line: line.mean(lambda job: job.test_scores.get(name)), spare=spare)

    def compared(key: str, name: str, header: str | None = None, spare: int = 0) -> Column:
        def value(line: Line) -> Any:
            return getattr(line.row and line.row.comparison, name, None)

        return Column(
            key, header if is_compared else None, value, lambda line: format_difference(value(line)), spare=spare
        )

    def of_row(key: str, header: str | None, value: Callable[[Row], Any], text: Callable[[Row], str]) -> Column:
        return Column(
            key,
            header,
            lambda line: line.row and value(line.row),
            lambda line: text(line.row) if line.row else "",
            spare=0 if key else 5,
        )

    def dropped(row: Row) -> str:
        return "" if row.dropped is None else f"{'failed, ' if row.failed else ''}round {row.dropped}"

    columns = [
        Column("rank", "", attrgetter("place"), mark, is_text=True),
        Column("", "id" if table.ids else None, str, lambda line: table.ids[line.jobs[0].run_id], True, 5),
        *map(varied, keys),
        Column(objective, objective, lambda line: line.row and line.mean(attrgetter("objective"))),
        Column("mean", None, lambda line: line.row and line.row.mean),
        Column("std", "std" if has_seeds else None, lambda line: line.row and line.row.deviation, spare=3),
        of_row("n", "n" if has_seeds else None, lambda row: len(row.jobs), partial(seeds, table.planned)),
        compared("difference", "difference", "difference", 4),
        compared("at_best", "at_best", "at best", 5),
        *(compared(key, name) for key, name in _OF_COMPARISON.items()),
        *([of_row("dropped", "dropped", attrgetter("dropped"), dropped)] if table.raced else []),
        of_row("", "pruned" if any(row.pruned for row in rows) else None, str, count_pruned),
        *(score(name) for name in tests if name != objective),
        Column("seconds", "seconds", lambda line: line.mean(attrgetter("seconds")), seconds, spare=2),
        Column("status", unranked, lambda line: line.jobs[0].status, attrgetter("status"), True),
        Column("reason", None, lambda line: "" if line.row else reason(line.jobs[0])),
        Column("run_id", None, lambda line: line.jobs[0].run_id),
    ]
    return [columns[0], *(find_column(name, columns, table.jobs) for name in table.only)] if table.only else columns
