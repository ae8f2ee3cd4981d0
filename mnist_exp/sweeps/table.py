"""A ranking as a table: lines of rows and of the jobs that no row holds, the sentences below them, and records."""

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
    against,
    ahead,
    dropped,
    mark,
    pruned,
    reason,
    recorded,
    seeds,
    signed,
)
from mnist_exp.sweeps.formats import Differences, aligned, as_markdown, decimals, every_key
from mnist_exp.sweeps.importance import Importance
from mnist_exp.sweeps.ranking import Row, combination, is_missing
from mnist_exp.text import cut, wrapped
from mnist_exp.tracking.records import Record

_ROWS_SHOWN = 20  # on a page of MLflow, and of each part of a table on a terminal
_LONGEST = 2000  # characters of a text, but for CSV and JSON
_AT_BEST = "At best: by how much a row may be better than the first{}; below 0, it is beaten{}."
_OR_LEADER = ", or than the one that dropped it"


@dataclass(frozen=True)
class Table:
    """Rows in their order, the jobs that no row holds (`rest`), and the sentences around them, which may be empty.

    `differences`: how values are shown, by default all in columns. `ids`: a text for each run id; empty for no such
    column. `raced`: whether rows can have been dropped. `planned`: how many seeds each row was to run; 0 if unknown.
    `listed`: whether each job has its own line. `title` is above, `legend`, `verdict` (which row to take) and `notes`
    are below. `importance`: how much each key matters.
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
        return [text for text in (self.verdict, *self.notes, self._at_best, self.legend) if text]

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
    def has_also(self) -> bool:
        """Whether a line has values that have no column."""
        return any(self.varied.also(line.values) for line in self.lines)

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each row, then those of the jobs that no row holds."""
        best_first = partial(sorted, key=attrgetter("objective"), reverse=self.direction == "maximize")
        rows = [
            Line(row.values, best_first(row.jobs), "FINISHED", place, row) for place, row in enumerate(self.rows, 1)
        ]
        return [*rows, *self._others()]

    def _others(self) -> Iterator[Line]:
        """Yield a line for each job that failed, and one for all of a combination without a row that were stopped."""
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
                yield Line(dict(shared), jobs, _why_stopped(jobs, self.planned))

    @cached_property
    def has_seeds(self) -> bool:
        """Whether rows have several seeds."""
        return self.planned > 1 or any(len(row.jobs) > 1 for row in self.rows)

    @cached_property
    def is_compared(self) -> bool:
        """Whether a row is compared with the first one."""
        return any(row.comparison is not None for row in self.rows)

    @property
    def _at_best(self) -> str:
        leader, marked = (any(row.against for row in self.rows), any(row.is_open for row in self.rows))
        return _AT_BEST.format(_OR_LEADER * leader, ", else marked =" * marked) if self.is_compared else ""

    @cached_property
    def columns(self) -> list[Column]:
        """The columns, in their order."""
        return columns_of(self)

    @cached_property
    def cells(self) -> tuple[list[list[str]], list[int]]:
        """The lines as text, the header first, and the places of the columns that are aligned to the left."""
        return self._cells(self.columns, self.lines)

    def _cells(self, columns: Sequence[Column], of: Sequence[Line]) -> tuple[list[list[str]], list[int]]:
        shown = [column for column in columns if column.header is not None]
        lines = [[column.header or "" for column in shown]]
        lines += [[column.cell(line) for column in shown] for line in of]
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

    def text(self, whole: str = "ranking.csv has all") -> str:
        """Return the table for people; below a line are its values without a column.

        A terminal shows the first rows, and the first of the jobs that no row holds, in its width, if possible; `whole`
        says where all are.
        """
        most = _ROWS_SHOWN if sys.stdout.isatty() else len(self.lines)
        rows, others = self.lines[: len(self.rows)][:most], self.lines[len(self.rows) :][:most]
        columns = [column for column in self.columns if column.spare >= 0]
        for spare in (1, 2, 3, 4, None):  # what is left after 4 stays, however wide
            header, *lines = aligned(*self._cells(columns, [*rows, *others])).split("\n")
            if max(map(len, [header, *lines[: len(rows)]])) <= shutil.get_terminal_size().columns:
                break
            columns = [column for column in columns if column.spare != spare]
        for place, line in enumerate((*rows, *others)):
            status, also = (cut(text, _LONGEST) for text in (line.status, self.varied.also(line.values)))
            lines[place] += f"  {status}" * (line.row is None) + f"\n   also {also}" * bool(also)
        left = len(self.lines) - len(lines)
        more = [f"... and {left} more rows and jobs; {whole}"] if left else []
        title, *sentences = (wrapped(cut(text, _LONGEST)) for text in (self.title, *self.sentences))
        return "\n".join([title, header, *lines, *more, *sentences])

    def markdown(self, most: int) -> str:
        """Return the verdict and as many rows as fit into `most` characters; nothing if not even one does."""
        lines, texts = self.cells
        for rows in range(min(len(lines) - 1, _ROWS_SHOWN), 0, -1):
            left = len(lines) - 1 - rows
            more = f"{left} more in ranking.csv, among the artifacts." if left else ""
            # MLflow shows only the first lines, unless it is asked for more.
            below = [text for text in self.sentences if text != self.verdict]
            first, *notes = [*filter(None, [self.verdict, self.title, *below, more])] or [""]
            if len(text := as_markdown(first, lines[: rows + 1], texts, notes)) <= most:
                return text
        return ""


def _why_stopped(jobs: Sequence[Record], planned: int) -> str:
    epochs = sorted(job.pruned for job in jobs if job.pruned is not None)
    killed = " and ".join(sorted({job.status for job in jobs if job.pruned is None}))
    if not epochs:
        return f"{killed}, 0 of {planned} seeds" if planned > 1 else killed
    when = f"epochs {epochs[0]} to {epochs[-1]}" if epochs[0] < epochs[-1] else f"epoch {epochs[0]}"
    pruned = f"{f'{len(epochs)} ' * (len(epochs) > 1)}pruned after {when}"
    return f"{pruned}, {len(jobs) - len(epochs)} {killed}" if killed else pruned


def columns_of(table: Table) -> list[Column]:
    """Return the columns of a ranking, in their order; those that it has no values for have no header."""
    rows, names, objective = table.rows, table.varied.names, table.objective
    first = rows[0].values if rows else {}
    keys = dict.fromkeys(key for job in table.jobs for key in job.values)
    tests = dict.fromkeys(name for job in table.jobs for name in job.scores if name.startswith("test_"))
    row, counted, differs = (
        attrgetter("row"),
        partial(seeds, table.planned),
        "difference" if table.is_compared else None,
    )
    unranked, also = "status" if len(table.lines) > len(rows) else None, table.varied.also
    note = partial(ahead, 1 if table.direction == "maximize" else -1)

    def varied(key: str) -> Column:
        header = table.varied.columns.get(key) if key != "seed" or not table.has_seeds else None
        text = partial(table.varied.cell, key)
        return Column(key, header, partial(recorded, key), text, lambda line: line.values.get(key), is_text=True)

    def score(name: str) -> Column:
        spare = 0 if name == "test_accuracy" else 1
        return Column(name, name, lambda line: line.mean(lambda job: job.test_scores.get(name)), decimals, spare=spare)

    def compared(name: str) -> Callable[[Line], Any]:
        return lambda line: getattr(line.row and line.row.comparison, name, None)

    race = [
        Column("dropped", "dropped", lambda line: line.row and line.row.dropped, partial(dropped, first, names), row),
        Column("against", None, partial(against, names)),
    ]
    return [
        Column("rank", "", attrgetter("place"), shown=mark, is_text=True),
        Column("", "id" if table.ids else None, lambda line: table.ids[line.jobs[0].run_id], is_text=True),
        *map(varied, keys),
        Column(objective, objective, lambda line: line.row and line.mean(attrgetter("objective")), decimals),
        Column("mean", None, lambda line: line.row and line.row.mean),
        Column(
            "std", "std" if table.has_seeds else None, lambda line: line.row and line.row.deviation, decimals, spare=3
        ),
        Column("n", "n" if table.has_seeds else None, lambda line: line.row and len(line.row.jobs), counted, row),
        Column("difference", differs, compared("difference"), signed, spare=4),
        Column("at_best", differs and "at best", compared("at_best"), signed),
        Column("low", None, compared("low")),
        Column("high", None, compared("high")),
        Column("beaten", None, compared("is_beaten")),
        Column("shared_seeds", None, compared("seeds")),
        *(race if table.raced else []),
        Column("", "pruned" if any(one.pruned for one in rows) else None, row, pruned),
        *(score(name) for name in tests if name != objective),
        Column("seconds", "seconds", lambda line: line.mean(attrgetter("seconds")), "{:.1f}".format, spare=2),
        Column("", "note" if any(map(note, rows)) else None, row, note),
        Column("status", unranked, lambda line: line.jobs[0].status, str, attrgetter("status"), True, -1),
        Column("reason", None, lambda line: "" if line.row else reason(line.jobs[0])),
        Column("run_id", None, lambda line: line.jobs[0].run_id),
        Column("", "also" if table.has_also else None, lambda line: also(line.values), is_text=True, spare=-1),
    ]
