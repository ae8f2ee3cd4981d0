"""hydra/sweeper=race: runs combinations in rounds, and drops what is beaten; see conf/sweep/race.yaml.

In `hydra_plugins`, since Hydra looks for sweepers nowhere else; it imports this at each start, so nothing heavy here.
What a race does is in `mnist_exp/sweeps/race.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if "race.yaml" not in ConfigStore.instance().list("hydra/sweeper"):  # as it is where a launcher sent Hydra's state
    ConfigStore.instance().store(
        group="hydra/sweeper",
        name="race",
        node={
            "_target_": f"{__name__}.RaceSweeper",
            "params": None,
            "seeds": 3,
            "max_jobs": None,
            "indifference": 0.004,
            "of": None,
            "top": 5,
        },
        provider="mnist_exp",
    )


class RaceSweeper(BasicSweeper):
    """Launches the rounds of a race, which the task function has; see `Task` in `sweeps/jobs.py`."""

    def __init__(self, **_: Any) -> None:
        super().__init__(None)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the race, which stays in this process, and make the launcher, which sends the task to others."""
        task: Any = task_function
        self.race = task.race
        super().setup(hydra_context=hydra_context, task_function=replace(task, race=None), config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:  # noqa: ARG002
        """Run the race, which knows what was typed; return what its jobs did, a list a round."""
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        rounds: list[Sequence[JobReturn]] = []

        def launch(jobs: Sequence[Sequence[str]]) -> list[Any]:
            assert self.launcher is not None
            started = sum(map(len, rounds))
            rounds.append(self.launcher.launch([list(job) for job in jobs], initial_job_idx=started))
            return [job.return_value for job in rounds[-1]]

        self.race(launch)
        return rounds
