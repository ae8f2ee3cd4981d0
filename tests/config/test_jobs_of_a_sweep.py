"""The configuration of a sweep's job is a copy of another's wherever that is what Hydra would compose."""

from itertools import product
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values, record_typed
from mnist_exp.config.parsing import parse, to_hydra

pytestmark = pytest.mark.fast

# What each sweep fixes, what it varies, and how often Hydra composes for its jobs.
SWEEPS: list[tuple[str, dict[str, list[str]], int]] = [
    ("", {"seed": ["0", "1", "2"]}, 1),
    ("", {"model.hidden": ["16", "null", "[]", "text", "'quoted, text'"]}, 1),
    ("hydra.job.num=3 tracking=none", {"seed": ["0", "1"]}, 1),
    ("hydra.sweep.subdir=${hydra.job.num}-${seed}", {"seed": ["5", "7"]}, 1),
    ("tracking.run_name=${model.hidden}-${seed}", {"seed": ["5", "7"], "model.hidden": ["1", "2"]}, 1),
    ("dataset.seed=${seed}", {"seed": ["5", "7"]}, 1),
    ("hydra.job.config.override_dirname.item_sep=-", {"seed": ["0", "1"], "training.epochs": ["1", "2"]}, 1),
    ("sweep=stacked", {"seed": ["0", "1"], "optimizer.learning_rate": ["0.1", "0.2"]}, 1),
    ("model=layers", {"model.layers": ["[Flatten]", "[Flatten,{Dense:{units:8}}]"]}, 1),
    ("", {"model": ["mlp", "cnn"], "seed": ["0", "1", "2"]}, 2),
    ("", {"training.callbacks": ["{}", "{EarlyStopping:{patience:3}}"], "seed": ["0", "1"]}, 2),
    ("", {"+training.callbacks.EarlyStopping.patience": ["1", "2"]}, 2),
    ("", {"++training.epochs": ["1", "2"]}, 2),
    ("training.callbacks={EarlyStopping:{patience:3}}", {"training.callbacks.EarlyStopping.patience": ["1", "2"]}, 2),
    ("preprocessing=image", {"preprocessing.augment": ["[]", "[{RandomRotation:{factor:0.1}}]"]}, 1),
    ("", {"tracking.tags": ["{a:1}", "null"], "seed": ["0", "1"]}, 2),
    ("seed=9", {"seed": ["0", "1"]}, 2),
]


@pytest.mark.parametrize(("fixed", "varied", "times"), SWEEPS, ids=[f"{first}{two}" for first, two, _ in SWEEPS])
def test_job_equals_hydras_composition(
    monkeypatch: pytest.MonkeyPatch, fixed: str, varied: dict[str, list[str]], times: int
) -> None:
    sweep = compose_values(fixed.split())
    shared = [text for text in fixed.split() if not text.startswith(("hydra.", "hydra/"))]
    values = [zip(varied, chosen, strict=True) for chosen in product(*varied.values())]
    jobs = [[*shared, *(f"{key}={value}" for key, value in job)] for job in values]
    load = ConfigLoaderImpl.load_sweep_config
    expected = [load(JobLoader.of_conf(), sweep, to_hydra(parse(job))) for job in jobs]
    for composed, job in zip(expected, jobs, strict=True):
        record_typed(composed, parse(job))
    times_composed: list[object] = []

    def counted(*given: Any) -> DictConfig:
        times_composed.append(given)
        return load(*given)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    loader = JobLoader.of_conf()
    found = [loader.load_sweep_config(sweep, job) for job in jobs]
    assert [_all_of(job) for job in found] == [_all_of(job) for job in expected]
    assert len(times_composed) == times


def _all_of(job: DictConfig) -> tuple[Any, Any, Any]:
    """Return a job unresolved, its own part resolved, and the folder's name that Hydra makes of its overrides."""
    HydraConfig.instance().set_config(job)
    own = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
    return OmegaConf.to_container(job), OmegaConf.to_container(own, resolve=True), job.hydra.job.override_dirname
