"""From the jobs of a sweep to a ranking: rows, a table and a CSV. Pure functions: nothing here reads a store."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mnist_exp.errors import printable
from mnist_exp.tracking.job import Job, job_name, short_names, shown_value


@dataclass(frozen=True)
class Row:
    """Finished jobs that differ in nothing but their seed.

    `mean` and `deviation` (of the sample, None for one job) of the objective.
    """

    values: dict[str, str]
    jobs: tuple[Job, ...]
    mean: float
    deviation: float | None


def row(members: Sequence[Job]) -> Row:
    """Return one row of finished jobs."""
    objectives = [job.objective for job in members if job.objective is not None]
    values = dict(members[0].values)
    if len(members) > 1:
        values.pop("seed", None)
    return Row(values, tuple(members), fmean(objectives), stdev(objectives) if len(objectives) > 1 else None)


def rank(jobs: Sequence[Job], direction: str) -> list[Row]:
    """Return the finished jobs, those that differ only in `seed` as one row, best mean of the objective first.

    Args:
        jobs: in any order; of an objective that is not a number, none is ranked.
        direction: `maximize` or `minimize`.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        if _is_ranked(job):
            key = tuple(sorted((name, value) for name, value in job.values.items() if name != "seed"))
            groups.setdefault(key, []).append(job)
    rows = [row(members) for members in groups.values()]
    return sorted(rows, key=lambda row: row.mean, reverse=direction == "maximize")


def best_job(rows: Sequence[Row], direction: str) -> Job | None:
    """Return the best job of the best row."""
    if not rows:
        return None
    choose = max if direction == "maximize" else min
    return choose(rows[0].jobs, key=lambda job: job.objective if job.objective is not None else math.nan)


def unranked(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that no row holds: failed, killed, still running, or of an objective that is not a number."""
    return [job for job in jobs if not _is_ranked(job)]


def _is_ranked(job: Job) -> bool:
    return job.status == "FINISHED" and job.objective is not None and math.isfinite(job.objective)


def p_value(one: Row, other: Row) -> float | None:
    """Return how likely so large a difference of means is by chance: Welch's t-test, two-sided; None for a row of one.

    It takes each row's objectives as independent draws of about normal distribution that differ by seed alone. It knows
    nothing of the choice among many rows, nor of the images, which are the same for all.
    """
    first, second = ([job.objective for job in row.jobs] for row in (one, other))
    if len(first) < 2 or len(second) < 2:
        return None
    if not one.deviation and not other.deviation:
        return 1.0 if one.mean == other.mean else 0.0
    from scipy.stats import ttest_ind  # comes with MLflow; takes a second to import

    return float(ttest_ind(first, second, equal_var=False).pvalue)


def order(objective: str, direction: str) -> str:
    """Return how a ranking is ordered, in words."""
    return f"{'largest' if direction == 'maximize' else 'smallest'} {objective} first"


def table(rows: Sequence[Row], rest: Sequence[Job], objective: str, columns: Sequence[str] | None = None) -> str:
    """Return the ranking as text: what varies, objective, test scores, seconds, status; best first, the unranked last.

    Args:
        rows: in the order to show.
        rest: jobs that no row holds.
        objective: its name.
        columns: of what varies, the keys to show; None for all.
    """
    jobs = [*(job for row in rows for job in row.jobs), *rest]
    keys = _keys(jobs) if columns is None else list(columns)
    seeds = any(len(row.jobs) > 1 for row in rows)
    shown = [key for key in keys if not (seeds and key == "seed" and not rest)]
    names, tests = short_names(keys), _test_names(jobs, objective)
    header = ["", *(names[key] for key in shown), objective]
    header += ["std", "n"] if seeds else []
    lines = [[*header, *tests, "seconds", "status"]]
    for place, row in enumerate(rows, start=1):
        cells = [str(place), *(shown_value(row.values.get(key, "")) for key in shown), _number(row.mean)]
        if seeds:
            cells += ["" if row.deviation is None else _number(row.deviation), str(len(row.jobs))]
        cells += [_number(fmean((job.scores or {}).get(name, math.nan) for job in row.jobs)) for name in tests]
        cells += [f"{fmean(job.seconds or 0.0 for job in row.jobs):.1f}", "FINISHED"]
        lines.append(cells)
    for job in rest:
        blank = [""] * (len(lines[0]) - len(shown) - 2)
        reason = job.reason or ("no objective" if job.status == "FINISHED" else "")
        status = f"{job.status}: {reason}" if reason else job.status
        lines.append(["-", *(shown_value(job.values.get(key, "")) for key in shown), *blank, status])
    return _aligned(lines, text_columns=1 + len(shown))


def verdict(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """Return a sentence: is the best row significantly better than the second? Empty with fewer than two rows."""
    if len(rows) < 2:
        return ""
    p = p_value(rows[0], rows[1])
    if p is None:
        return "A single run may be better or worse by chance; add seed=0,1,2,3,4 to run each row with five seeds."
    shown = f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"
    name = job_name(rows[0].values, keys) or "The first row"
    if p < 0.05:
        return f"{name} is significantly better than the second row (Welch's t-test over the seeds, {shown})."
    return f"{name} is not significantly better than the second row (Welch's t-test over the seeds, {shown})."


def to_csv(jobs: Sequence[Job], objective: str, direction: str) -> str:
    """Return a line a job: its row's place, mean, deviation and n, what varies, objective, scores, status, run."""
    keys, tests = _keys(jobs), _test_names(jobs, objective)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", *keys, objective, "mean", "std", "n", *tests, "seconds", "status", "reason", "run_id"])
    for place, row in enumerate(rank(jobs, direction), start=1):
        deviation = "" if row.deviation is None else row.deviation
        for job in sorted(row.jobs, key=lambda job: job.objective or 0.0, reverse=direction == "maximize"):
            values = [job.values.get(key, "") for key in keys]
            scores = [(job.scores or {}).get(name, "") for name in tests]
            spread = [row.mean, deviation, len(row.jobs)]
            writer.writerow([place, *values, job.objective, *spread, *scores, job.seconds, job.status, "", job.run_id])
    for job in unranked(jobs):
        blank = [""] * (5 + len(tests))
        writer.writerow(["", *(job.values.get(key, "") for key in keys), *blank, job.status, job.reason, job.run_id])
    return text.getvalue()


def _keys(jobs: Iterable[Job]) -> list[str]:
    return list(dict.fromkeys(key for job in jobs for key in job.values))


def _test_names(jobs: Iterable[Job], objective: str) -> list[str]:
    found = dict.fromkeys(name for job in jobs for name in job.scores or {} if name.startswith("test_"))
    return [name for name in found if name != objective]


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def _aligned(lines: Sequence[Sequence[str]], text_columns: int) -> str:
    """Align columns: the first `text_columns` and the last to the left, numbers to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line[:-1], widths, strict=True))
        ]
        text.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(text)
