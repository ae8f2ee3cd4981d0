"""hydra/launcher=stacked: runs the jobs of a sweep together."""

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
    """Compose jobs as Hydra's basic launcher does, and run groups of them together.

    `Task` in `sweeps/jobs.py` does both; a task function that does not is called for each job.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return them with their objectives."""
        task: Any = self.task_function
        if not hasattr(task, "run_jobs"):
            return super().launch(job_overrides, initial_job_idx)
        from mnist_exp.sweeps.jobs import group_jobs

        returned: dict[int, JobReturn] = {}
        for places in group_jobs(job_overrides):
            part = {place: self._compose(job_overrides[place], initial_job_idx + place) for place in places}
            objectives = task.run_jobs([composed.return_value for composed in part.values()])
            for composed, objective in zip(part.values(), objectives, strict=True):
                composed.return_value = objective
            returned |= part
        return [returned[place] for place in range(len(job_overrides))]

    def _compose(self, overrides: Sequence[str], number: int) -> JobReturn:
        """Return a job whose value is the result of `Task.compose`."""
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        task: Any = self.task_function
        return run_job(
            task_function=task.compose,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.hydra_context,
            configure_logging=False,
        )
