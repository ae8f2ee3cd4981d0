"""Suggest where to look next: beyond numbers that are best at the edge of a sweep."""

from collections.abc import Sequence
from dataclasses import asdict

from mnist_exp.config.overrides import flatten
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.importance import as_numbers
from mnist_exp.sweeps.ranking import Row
from mnist_exp.tracking.names import short_names, show_value
from mnist_exp.tracking.records import Record

_FEWEST = 3  # values: of two, each is an end


def suggest_values(rows: Sequence[Row], jobs: Sequence[Record], sweep: Sweep) -> str:
    """Say which numbers of the best row are the smallest or largest tried, 0 aside.

    Seeds and data are left out, and keys with another value whose row may be as good.

    Args:
        rows: best first, and compared.
        jobs: of the sweep.
        sweep: has the values that vary.
    """
    if not rows or not rows[0].is_whole:
        return ""
    names, sentences = short_names(rows[0].values), []
    listed = [*(job.values for job in jobs), *(flatten(asdict(config)) for config in sweep.configs)]
    for key, best in rows[0].values.items():
        tried = as_numbers([values.get(key, "") for values in listed])
        others = [row for row in rows if row.values[key] != best]
        may_be_as_good = [row for row in others if row.is_open or row.comparison is None]
        if key == "seed" or key.startswith("dataset.") or tried is None or not others or may_be_as_good:
            continue
        ends = {max(tried): ("largest", "larger"), min(tried): ("smallest", "smaller")}
        if len(set(tried)) >= _FEWEST and float(best) in ends and float(best) != 0:
            end, further = ends[float(best)]
            sentences.append(
                f"The best {names[key]}, {show_value(best)}, is the {end} that was tried; try {further} ones."
            )
    return " ".join(sentences)
