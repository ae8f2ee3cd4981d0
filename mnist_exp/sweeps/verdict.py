"""The sentences below a ranking: which rows can be told from the first, and what its accuracy is worth."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.ranking import Rounds, Row
from mnist_exp.sweeps.statistics import seeds_to_tell, wilson
from mnist_exp.tracking.job import job_name

_SINGLE = "A single run may be better or worse by chance; add seed=0,1,2,3,4 to run each row with five seeds."
_PRUNED = (
    "Rows with a pruned job are not compared, since the mean of the others flatters them; the same command without "
    "prune, with resume=true, trains what was pruned to its end."
)


def verdict(rows: Sequence[Row], keys: Iterable[str], direction: str, raced: Rounds | None = None) -> str:
    """Return which rows can be told from the first one, as a sentence; empty with fewer than two rows.

    Args:
        rows: best first, compared.
        keys: what varies.
        direction: `maximize` or `minimize`.
        raced: how the intervals of a race are corrected.
    """
    if len(rows) < 2 or rows[0].failed:
        return ""
    name = job_name(rows[0].values, keys) or "The first row"
    found = [row.comparison for row in rows[1:] if row.comparison is not None]
    uncompared = [row for row in rows[1:] if row.comparison is None]
    if not found and raced is not None:
        return f"{name} is left, since jobs of all others failed."
    if not found:
        return _PRUNED if rows[0].pruned or all(row.pruned for row in uncompared) else _SINGLE
    notes = " Rows of a single run are not compared." * any(row.is_whole for row in uncompared)
    notes += " Rows with a pruned job are not compared." * any(row.pruned for row in uncompared)
    several = [f"{found[0].pairs} pairs"] * (found[0].pairs > 1)
    several += [f"{raced.rounds} rounds"] if raced is not None else []
    corrected = f"corrected for {' and '.join(several)}" if several else "95 % interval"
    are_open = [row.is_open for row in rows[1:]]
    if not any(are_open):
        # In a race, a row may have been beaten by one that was beaten later, and still be open to this one.
        nearest = min(found, key=lambda one: (one.is_open, abs(one.difference)))
        low, high = sorted((abs(nearest.low), abs(nearest.high)))
        how = f"paired over {nearest.seeds} seeds" if nearest.seeds else "compared by Welch's test"
        side = "above" if direction == "maximize" else "below"
        size = f"{decimals(abs(nearest.difference))} [{decimals(low)}, {decimals(high)}]"
        return f"{name} is best: {size} {side} the next, {how}, {corrected}.{notes}"
    smallest = next(row.comparison for row in rows if row.comparison is not None and row.is_open)
    seeds = seeds_to_tell(smallest)
    needed = f"about {seeds} seeds each" if seeds is not None else "more than 200 seeds each"
    which = "The rows marked = cannot be told from the first"
    if all(are_open[: sum(are_open)]):
        which = f"The first {1 + sum(are_open)} rows cannot be told apart"
    size = f"a difference of {decimals(abs(smallest.difference))}"
    return f"{which} ({corrected}); {needed} would tell {size}.{notes}"


def on_other_images(best: Row, count: int) -> str:
    """Return the interval of a row's mean accuracy on images like those of the test set; empty without an accuracy.

    Args:
        best: the row.
        count: how many images the test set has.
    """
    measured = [job.scores["test_accuracy"] for job in best.jobs if job.scores and "test_accuracy" in job.scores]
    if not measured or count < 1:
        return ""
    mean = fmean(measured)
    low, high = wilson(mean, count)
    return (
        f"test_accuracy {decimals(mean)} of the first row is measured on {count} images; on others like them it would "
        f"be {decimals(low)} to {decimals(high)} (95 %, Wilson)."
    )
