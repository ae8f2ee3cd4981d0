"""A grid: every combination of the listed values. Imports nothing heavy."""

from typing import TYPE_CHECKING

from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Kind

if TYPE_CHECKING:
    from mnist_exp.tracking.record import SweepRecord


class Grid(Kind):
    """Every combination of the listed values."""

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:
        """Return the sweeper that does not check each job again; choices of two groups may not fit each other."""
        groups = [key for key in self.swept if "." not in key and key != "seed"]
        return ["hydra.sweeper._target_=hydra_plugins.mnist_exp_grid.GridSweeper"] if len(groups) < 2 else []
