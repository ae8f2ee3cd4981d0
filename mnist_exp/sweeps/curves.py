"""The curve of a row of a ranking, as pictures and pages draw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Curve:
    """A row's metric over epochs.

    `place`: in the ranking, in words. `label`: what varies; may be empty. `jobs`: how many the row has. `mean`, `low`
    and `high`: for each epoch, of the jobs that have reached it, the mean, the smallest and the largest value.
    """

    place: str
    label: str
    jobs: int
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def name(self) -> str:
        """The place, and what varies."""
        return f"{self.place} {self.label}".strip()


def curve_of(place: str, label: str, of_jobs: Sequence[Sequence[float]]) -> Curve:
    """Return the curve of a row; `of_jobs`: of each of its jobs a value an epoch, not all of the same length."""
    epochs = range(max(map(len, of_jobs)))
    reached = [[values[epoch] for values in of_jobs if len(values) > epoch] for epoch in epochs]
    return Curve(
        place, label, len(of_jobs), list(map(fmean, reached)), list(map(min, reached)), list(map(max, reached))
    )
