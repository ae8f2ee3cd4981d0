"""hydra/sweeper=mnist_exp: launches the jobs that a kind of sweep proposes.

Hydra finds plugins in `hydra_plugins` only, and imports them at each start, so they import nothing heavy.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if "mnist_exp.yaml" not in ConfigStore.instance().list("hydra/sweeper"):  # a launcher may have sent it
    ConfigStore.instance().store(
        group="hydra/sweeper",
        name="mnist_exp",
        node={
            "_target_": f"{__name__}.ProposingSweeper",
            "_recursive_": False,
            "kind": "grid",
            "params": None,
            "n_trials": 20,
            "n_jobs": 1,
            "sampler": None,
            "initial_seeds": 3,
            "max_jobs": None,
            "indifference": 0.004,
            "from_sweep": None,
            "n_best": 5,
        },
        provider="mnist_exp",
    )


class ProposingSweeper(Sweeper):
    """Launch the jobs of `Task.propose` (`sweeps/jobs.py`) until it proposes none."""

    def __init__(self, **_: Any) -> None:
        """Take the settings, which `sweeps/plan.py` has read."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the chosen launcher, with a task without `propose`.

        Args:
            hydra_context: goes to the launcher.
            task_function: a `Task`, whose `propose` stays in this process.
            config: the composed sweep.
        """
        task: Any = task_function
        self._propose, self._folder = task.propose, Path(config.hydra.sweep.dir)
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=replace(task, propose=None), config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:  # noqa: ARG002
        """Run a sweep of the composed arguments, and return the launched jobs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        returned: list[JobReturn] = []
        while jobs := self._propose():
            launched: Sequence[JobReturn] = self._launcher.launch(
                [list(job) for job in jobs], initial_job_idx=len(returned)
            )
            returned += launched
        return returned
