"""A grid: every combination of the listed values. Imports nothing heavy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Kind, Typed

if TYPE_CHECKING:
    from mnist_exp.tracking.record import SweepRecord


@dataclass
class Grid(Kind):
    """Every combination of the listed values."""

    @classmethod
    def of(cls, typed: Typed) -> Self:
        """Return the grid that was typed; raise InputError for a range to draw from."""
        typed.refuse_ranges()
        return super().of(typed)

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:  # noqa: ARG002
        """Return the sweeper that does not compose each job once more; choices of two groups may not fit each other."""
        groups = [key for key in self.swept if "." not in key and key != "seed"]
        return ["hydra/sweeper=grid"] if len(groups) < 2 else []
