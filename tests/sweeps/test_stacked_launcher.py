"""hydra/launcher=stacked is a launcher as Hydra's contract wants it, for any task function."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import TSweepRunner

pytestmark = pytest.mark.fast

# Hydra's tests put its singletons back as they were when they were imported, which must not be without plugins.
Plugins.instance()


@pytest.fixture(autouse=True)
def version_that_nobody_chose() -> Iterator[None]:
    """Let Hydra 1.3 act as if nobody had said which version code is written for, which its own tests assume."""
    instances: Any = Singleton._instances
    chosen = {kind: instances.pop(kind) for kind in list(instances) if kind.__name__ == "VersionBase"}
    yield
    Singleton._instances.update(chosen)


@pytest.mark.parametrize(("launcher_name", "overrides"), [("stacked", [])])
class TestStackedLauncher(LauncherTestSuite):
    """Hydra's own tests."""


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=stacked"])])
class TestStackedLauncherIntegration(IntegrationTestSuite):
    """Hydra's own tests."""


def test_stacked_jobs_are_composed_together(
    hydra_sweep_runner: TSweepRunner,
) -> None:
    sweep: Any = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        task_function=None,
        config_path="configs",
        config_name="compose.yaml",
        overrides=["hydra/launcher=stacked", "+seed=1,2", "+x=1,2"],
    )
    steps: list[Any] = []

    def compose(composed: Any) -> int:
        job: int = 10 * composed.x + composed.seed
        steps.append(job)
        return job

    def run_jobs(jobs: list[int]) -> list[int]:
        steps.append(jobs)
        return [10 * job for job in jobs]

    sweep.compose, sweep.run_jobs = compose, run_jobs
    with sweep:
        [returned] = sweep.returns
    assert [job.return_value for job in returned] == [110, 210, 120, 220]
    assert steps == [11, 12, [11, 12], 21, 22, [21, 22]]
