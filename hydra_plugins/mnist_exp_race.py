"""hydra/sweeper=race, the race of `mnist_exp/sweeps/race.py`. Imports nothing heavy, as Hydra always imports it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if "race.yaml" not in ConfigStore.instance().list("hydra/sweeper"):  # a launcher may have sent it
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
    """Launches the rounds of the race that the task function holds: `Task.race` in `sweeps/jobs.py`."""

    def __init__(self, **_: Any) -> None:
        super().__init__(None)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, with a task without the race, which stays in this process."""
        task: Any = task_function
        self.race = task.race
        super().setup(hydra_context=hydra_context, task_function=replace(task, race=None), config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:  # noqa: ARG002
        """Run the race, which has the arguments already; return the jobs of each round."""
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
