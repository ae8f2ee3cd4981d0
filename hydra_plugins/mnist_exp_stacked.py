"""hydra/launcher=stacked: hands all jobs of a sweep over at once, where Hydra's other launchers call for each.

In `hydra_plugins`, since Hydra looks for launchers nowhere else; it imports this at each start, so nothing heavy here.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job
from omegaconf import open_dict

# python -m mnist_exp -m hydra/launcher=stacked backend=jax 'seed=range(8)' optimizer.learning_rate=0.001,0.01
if "stacked.yaml" not in ConfigStore.instance().list("hydra/launcher"):  # as it is where a launcher sent Hydra's state
    ConfigStore.instance().store(
        group="hydra/launcher",
        name="stacked",
        node={"_target_": f"{__name__}.StackedLauncher"},
        provider="mnist_exp",
    )


class StackedLauncher(BasicLauncher):
    """Composes each job as Hydra's basic launcher does, then lets the task function run them together.

    A task function without `run_jobs`, unlike `Task` in `sweeps/jobs.py`, is called for each job.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return of each what Hydra's sweepers expect, with its objective."""
        task: Any = self.task_function
        if not hasattr(task, "run_jobs"):
            return super().launch(job_overrides, initial_job_idx)
        assert self.hydra_context is not None
        assert self.config is not None
        jobs, returned = [], []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(index), index
            composed = run_job(
                task_function=task.compose,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.hydra_context,
                configure_logging=False,
            )
            jobs.append(composed.return_value)
            returned.append(composed)
        for composed, objective in zip(returned, task.run_jobs(jobs), strict=True):
            composed.return_value = objective
        return returned
