"""Hydra's basic sweeper without its check.

Hydra finds plugins in `hydra_plugins` only, and imports them at each start, so they import nothing heavy.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Launches every combination."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing, since `sweeps/plan.py` has checked each value."""
