"""hydra/launcher=stacked: hands all jobs of a sweep over at once, where Hydra's other launchers call for each.

In `hydra_plugins`, since Hydra looks for launchers nowhere else; it imports this at each start, so nothing heavy here.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class StackedLauncher(Launcher):
    """Composes each job as Hydra's basic launcher does, then lets the task function run them together."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs; called by Hydra."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; of each what Hydra's sweepers expect, with its objective."""
        task: Any = self._task  # as composition.py made it
        jobs, returned = [], []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(index), index
            composed = run_job(
                task_function=task.compose,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self._context,
                configure_logging=False,
            )
            jobs.append(composed.return_value)
            returned.append(composed)
        for composed, objective in zip(returned, task.run_jobs(jobs), strict=True):
            composed.return_value = objective
        return returned
