"""What a ranking decides, as a sentence: which rows can be told from the first one."""

from collections.abc import Sequence
from statistics import fmean

from mnist_exp.sweeps.formats import decimals
from mnist_exp.sweeps.ranking import Rounds, Row, compared, is_open
from mnist_exp.sweeps.statistics import seeds_to_tell, wilson
from mnist_exp.tracking.job import job_name


def verdict(rows: Sequence[Row], keys: Sequence[str], direction: str, raced: Rounds | None = None) -> str:
    """Return a sentence: which rows can be told from the first one? Empty with fewer than two rows.

    Args:
        rows: best first.
        keys: what varies.
        direction: `maximize` or `minimize`.
        raced: of a race.
    """
    if len(rows) < 2 or rows[0].failed:
        return ""
    found = compared(rows, raced)
    told = [comparison for comparison in found if comparison is not None]
    name = job_name(rows[0].values, keys) or "The first row"
    if not told and raced is not None:
        return f"{name} is left, since jobs of all others failed."
    uncompared = [row for row, one in zip(rows[1:], found, strict=True) if one is None]
    if not told and (rows[0].pruned or all(row.pruned for row in uncompared)):
        return (
            "Rows with a pruned job are not compared, since the mean of the others flatters them; the same command "
            "without prune, with resume=true, trains what was pruned to its end."
        )
    if not told:
        return "A single run may be better or worse by chance; add seed=0,1,2,3,4 to run each row with five seeds."
    notes = " Rows of a single run are not compared." * any(row.is_whole for row in uncompared)
    notes += " Rows with a pruned job are not compared." * any(row.pruned for row in uncompared)
    still_open = [place for place, one in enumerate(found, start=2) if is_open(rows[place - 1], one)]
    several = [f"{told[0].pairs} pairs"] if told[0].pairs > 1 else []
    several += [f"{raced.rounds} rounds"] if raced is not None else []
    corrected = f"corrected for {' and '.join(several)}" if several else "95 % interval"
    if not still_open:
        # In a race, a row may have been beaten by one that was beaten later, and still be open to this one.
        nearest = min(told, key=lambda one: (one.is_open, abs(one.difference)))
        low, high = sorted((abs(nearest.low), abs(nearest.high)))
        how = f"paired over {nearest.seeds} seeds" if nearest.seeds else "compared by Welch's test"
        side = "above" if direction == "maximize" else "below"
        size = f"{decimals(abs(nearest.difference))} [{decimals(low)}, {decimals(high)}]"
        return f"{name} is best: {size} {side} the next, {how}, {corrected}.{notes}"
    smallest = found[still_open[0] - 2]
    assert smallest is not None
    seeds = seeds_to_tell(smallest)
    needed = f"about {seeds} seeds each" if seeds is not None else "more than 200 seeds each"
    if still_open == list(range(2, 2 + len(still_open))):
        which = f"The first {1 + len(still_open)} rows cannot be told apart"
    else:
        which = "The rows marked = cannot be told from the first"
    size = f"a difference of {decimals(abs(smallest.difference))}"
    return f"{which} ({corrected}); {needed} would tell {size}.{notes}"


def on_other_images(best: Row, count: int) -> str:
    """Return between what the accuracy of a row lies on images like those of the test set; empty without an accuracy.

    Args:
        best: of which the mean over its seeds is taken.
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
