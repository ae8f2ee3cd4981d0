"""hydra/sweeper=grid: Hydra's basic sweeper without its check, which would compose each job once more.

In `hydra_plugins`, since Hydra looks for sweepers nowhere else; it imports this at each start, so nothing heavy here.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

if "grid.yaml" not in ConfigStore.instance().list("hydra/sweeper"):  # as it is where a launcher sent Hydra's state
    ConfigStore.instance().store(
        group="hydra/sweeper",
        name="grid",
        node={"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": None},
        provider="mnist_exp",
    )


class GridSweeper(BasicSweeper):
    """Launches every combination; each value was checked when the sweep began, by `plan` in `sweeps/plan.py`."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check nothing."""
