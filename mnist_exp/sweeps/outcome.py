"""What comes of a sweep: its jobs ranked, and the sentences that say what the ranking decides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from mnist_exp.config.schema import objective_direction
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps import ranking
from mnist_exp.sweeps.differences import shown_values
from mnist_exp.sweeps.formats import as_markdown, counted
from mnist_exp.sweeps.importance import Importance, as_sentence, importance
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.verdict import on_other_images, verdict
from mnist_exp.tracking.job import Job, count_test_images
from mnist_exp.tracking.record import SweepRecord

_ROWS_SHOWN = 20  # on a page of MLflow


@dataclass(frozen=True)
class Outcome:
    """The jobs of a sweep, ranked.

    `title`: what the ranking is by. `rows`: best first. `rest`: the jobs that no row holds. `raced`: of a race that was
    run, what its intervals are corrected for. `importance`: which of the keys that vary matter, once that is known.
    `verdict`: which rows can be told from the first, empty where nothing can be said. `notes`: more sentences or empty.
    """

    title: str
    objective: str
    direction: str
    rows: Sequence[ranking.Row]
    rest: Sequence[Job]
    raced: ranking.Rounds | None
    importance: Importance | None
    verdict: str
    notes: Sequence[str]

    @property
    def metric(self) -> str:
        """The metric of an epoch that is nearest to the objective."""
        return self.objective.replace("test_", "val_", 1)

    @property
    def best(self) -> Job | None:
        """The best job of the best row."""
        return ranking.best_job(self.rows[0], self.direction) if self.rows else None

    @property
    def jobs(self) -> list[Job]:
        """All jobs, those of the rows first."""
        return [*(job for row in self.rows for job in row.jobs), *self.rest]

    @cached_property
    def cells(self) -> tuple[list[list[str]], list[int]]:
        """The table, as `ranking.cells` returns it; of layers and schedules it says what differs."""
        keys = dict.fromkeys(key for job in self.jobs for key in job.values)
        texts = {key: shown_values(job.values[key] for job in self.jobs if key in job.values) for key in keys}
        return ranking.cells(self.rows, self.rest, self.objective, raced=self.raced, texts=texts)

    def scores(self) -> dict[str, float]:
        """Return the means of the best row, its objective under its name and as `objective`; and `fit_seconds`, the sum
        over all jobs."""
        seconds = {"fit_seconds": sum(job.seconds or 0.0 for job in self.jobs)}
        if not self.rows:
            return seconds
        first = self.rows[0]
        measured = [job.scores or {} for job in first.jobs]
        tests = {name: fmean(scores[name] for scores in measured) for name in measured[0]}
        return {**tests, self.objective: first.mean, "objective": first.mean, **seconds}

    def markdown(self, most: int) -> str:
        """Return the ranking as Markdown: the verdict, then a table of as many rows as fit into `most` characters.

        Where not even one row does, nothing.
        """
        lines, texts = self.cells
        for rows in range(min(len(lines) - 1, _ROWS_SHOWN), 0, -1):
            left = len(lines) - 1 - rows
            more = [f"{left} more in ranking.csv, among the artifacts."] if left else []
            # MLflow shows but the first lines, unless it is asked for more.
            first, *notes = [one for one in (self.verdict, self.title, *self.notes, *more) if one]
            text = as_markdown(first, lines[: rows + 1], texts, notes)
            if len(text) <= most:
                return text
        return ""

    @cached_property
    def records(self) -> list[dict[str, object]]:
        """A record for each job, as `ranking.records` returns them."""
        return ranking.records(self.rows, self.rest, self.objective, self.direction, self.raced)


def rank_jobs(sweep: Sweep, record: SweepRecord, jobs: Sequence[Job], kind: Kind) -> Outcome:
    """Return the jobs of a sweep ranked, those that differ only in their seed as one row."""
    objective, direction = sweep.config.objective, objective_direction(sweep.config)
    rows, raced, notes = kind.arrange(ranking.rank(jobs, direction))
    if rows:
        data = ranking.best_job(rows[0], direction).data or {}
        notes.append(on_other_images(rows[0], count_test_images(data.get("profile"))))
    pruned = sum(job.pruned is not None for job in jobs)
    title = _title(sweep, len(jobs), pruned)
    told = kind.verdict(record.parent.run_id) or _verdict(sweep, rows, raced, pruned=pruned)
    return Outcome(title, objective, direction, rows, ranking.unranked(jobs), raced, None, told, notes)


def explained(outcome: Outcome) -> Outcome:
    """Return an outcome that says which keys matter, but for a race, whose rows have as many jobs as they are good."""
    jobs = [job for row in outcome.rows if row.is_whole for job in row.jobs]
    found = importance(jobs) if outcome.raced is None else None
    if found is None:
        return outcome
    return replace(outcome, importance=found, notes=[as_sentence(found, outcome.objective), *outcome.notes])


def _verdict(sweep: Sweep, rows: Sequence[ranking.Row], raced: ranking.Rounds | None, *, pruned: int) -> str:
    if not rows and pruned:
        return "Each job was pruned; a milder rule lets some come to their end, as do resume=true and no prune."
    return verdict(rows, tuple(sweep.swept), objective_direction(sweep.config), raced)


def _title(sweep: Sweep, jobs: int, pruned: int) -> str:
    """Return what a ranking is by, and whether the choice rests on the test set."""
    objective, of_them = sweep.config.objective, f", {pruned} of them pruned" if pruned else ""
    title = f"{counted(jobs, 'job')}{of_them}, {ranking.order(objective, objective_direction(sweep.config))}"
    if objective.startswith("test_"):
        title += ", MEASURED ON THE TEST SET: for an honest choice, objective=val_accuracy dataset.validation=10000"
    elif objective.startswith("val_") and sweep.watches_test_set:
        title += ", MEASURED ON THE TEST SET: to hold images out instead, dataset.validation=10000"
    return title
