"""Which kind a sweep is of."""

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Grid, Kind
from mnist_exp.sweeps.plan import plan
from mnist_exp.sweeps.race import Race


def planned(*typed: str) -> tuple[Sweep, Kind]:
    return plan(compose_values(typed), typed, None, JobLoader.of_conf())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "kind", "jobs"),
    [
        (["seed=0,1", "model.hidden=4,8"], Grid, 4),
        (["sweep=race", "model.hidden=4,8"], Race, 6),
        (["hydra.sweeper.kind=race", "model.hidden=4,8"], Race, 6),
    ],
)
def test_the_setting_kind_decides(typed: list[str], kind: type[Kind], jobs: int) -> None:
    _, chosen = planned(*typed)
    assert (type(chosen), chosen.jobs) == (kind, jobs)
    assert len(chosen.propose([], "maximize") or ()) == jobs


@pytest.mark.fast
def test_another_sweeper_is_refused() -> None:
    with pytest.raises(InputError, match=r"^hydra/sweeper=basic: is not used here; choose sweep=grid, random, optuna"):
        compose(["hydra/sweeper=basic", "seed=0"])


@pytest.mark.fast
def test_clashing_choices_are_refused_before_any_job() -> None:
    with pytest.raises(InputError, match="preprocessing=image: model=linear needs vectors"):
        planned("model=cnn,linear", "preprocessing=image,flatten")
