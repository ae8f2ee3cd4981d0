"""hydra/launcher=stacked: runs the jobs of a sweep together. Imports nothing heavy, as Hydra always imports it."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job
from omegaconf import open_dict

# python -m mnist_exp -m hydra/launcher=stacked backend=jax 'seed=range(8)' optimizer.learning_rate=0.001,0.01
if "stacked.yaml" not in ConfigStore.instance().list("hydra/launcher"):  # a launcher may have sent it
    ConfigStore.instance().store(
        group="hydra/launcher",
        name="stacked",
        node={"_target_": f"{__name__}.StackedLauncher"},
        provider="mnist_exp",
    )


class StackedLauncher(BasicLauncher):
    """Composes each job as Hydra's basic launcher does, then runs all by `Task.run_jobs` of `sweeps/jobs.py`.

    A task function without `run_jobs` is called for each job.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return them with their objectives."""
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
