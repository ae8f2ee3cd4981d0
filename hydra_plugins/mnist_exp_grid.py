"""Hydra's basic sweeper without its check, for sweeps whose values are checked when they begin.

In `hydra_plugins`, since Hydra looks for sweepers nowhere else; it imports this at each start, so nothing heavy here.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Launches every combination."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check nothing, since `sweeps/plan.py` has checked each value."""
