"""Which kind a sweep is of, and sweepers that this project does not know."""

import os
from pathlib import Path

import pytest
from hydra.types import RunMode

import mnist_exp
from mnist_exp.config.composition import compose_values
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.sweeps.kind import Grid, Kind
from mnist_exp.sweeps.plan import kind_of, plan
from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.search import Search

from ..conftest import QUICK, command, runs_in, sweep_in

# Launches the two ends of an interval.
SWEEPER = """
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

node = {"_target_": f"{__name__}.EndsSweeper", "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="ends", node=node)


class EndsSweeper(BasicSweeper):
    def sweep(self, arguments):
        jobs = [[text.replace("interval(0.01,0.02)", end) for text in arguments] for end in ("0.01", "0.02")]
        return [self.launcher.launch(jobs, initial_job_idx=0)]
"""


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "kind", "jobs"),
    [
        (["seed=0,1", "model.hidden=4,8"], Grid, 4),
        (["sweep=race", "model.hidden=4,8"], Race, 6),
    ],
)
def test_hydras_sweeper_decides_of_which_kind_a_sweep_is(typed: list[str], kind: type[Kind], jobs: int) -> None:
    _, planned = plan(compose_values(typed, RunMode.MULTIRUN), typed, None, JobLoader.of_conf())
    assert (type(planned), planned.jobs) == (kind, jobs)
    assert kind_of("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper") is Search


def test_any_other_sweeper_is_a_search(tmp_path: Path) -> None:
    (tmp_path / "path/hydra_plugins").mkdir(parents=True)
    (tmp_path / "path/hydra_plugins/ends.py").write_text(SWEEPER)
    path = os.pathsep.join([str(Path(mnist_exp.__file__).parents[1]), str(tmp_path / "path")])
    typed = ("-m", "hydra/sweeper=ends", "optimizer.learning_rate=interval(0.01,0.02)", *QUICK)
    done = command(*typed, cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    parent, jobs = sweep_in(tmp_path)
    assert {job.data.params["optimizer.learning_rate"] for job in jobs} == {"0.01", "0.02"}
    assert f"-m sweep=race hydra.sweeper.of={parent.info.run_id}" in done.stdout
    assert {one.info.status for one in runs_in(tmp_path)} == {"FINISHED"}
