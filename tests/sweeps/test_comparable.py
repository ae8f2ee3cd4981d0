"""Which runs measure the same."""

from pathlib import Path

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError
from mnist_exp.sweeps.comparable import comparison_key, why_not_compared
from mnist_exp.sweeps.outcome import make_sweep_table
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.sweep_record import Parent, SweepRecord

from ..conftest import recorded_job

pytestmark = pytest.mark.fast

HELD_OUT = {"dataset.validation": "100", "dataset.limit": "500", "dataset.seed": "0", "training.loss": "null"}
WATCHED = HELD_OUT | {"dataset.validation": "test"}
MNIST = recorded_job({}, data={"digest": "3f2a", "profile": '{"test_digest": "beef"}'})
LARGER = recorded_job({}, data={"digest": "a7c5", "profile": '{"test_digest": "beef"}'})


@pytest.mark.parametrize(
    ("objective", "one", "other", "same"),
    [
        ("val_accuracy", HELD_OUT, {"dataset.validation": "200"}, False),
        ("val_accuracy", HELD_OUT, {"dataset.seed": "1"}, False),
        ("val_accuracy", HELD_OUT, {"dataset.limit": "600"}, False),
        ("val_accuracy", HELD_OUT, {"dataset.validation": "test"}, False),
        ("val_accuracy", HELD_OUT, {"training.loss": "KLDivergence", "seed": "1", "backend": "jax"}, True),
        ("val_accuracy", WATCHED, {"dataset.seed": "1", "dataset.limit": "600"}, True),
        ("test_accuracy", HELD_OUT, {"dataset.validation": "200", "dataset.seed": "1"}, True),
        ("accuracy", WATCHED, {"dataset.limit": "600"}, False),
        ("val_loss", HELD_OUT, {"training.loss": "KLDivergence"}, False),
        ("test_loss", HELD_OUT, {"training.loss.CategoricalFocalCrossentropy.gamma": "2"}, False),
        ("val_auc", HELD_OUT, {"training.metrics": "[accuracy, {AUC: {curve: PR}}]"}, False),
    ],
)
def test_runs_with_equal_measure_can_be_compared(
    objective: str, one: dict[str, str], other: dict[str, str], same: bool
) -> None:
    one = one | {"training.metrics": "[accuracy, AUC]"}
    assert (comparison_key(objective, one, MNIST) == comparison_key(objective, one | other, MNIST)) == same


@pytest.mark.parametrize(
    ("objective", "values", "same"),
    [("test_accuracy", HELD_OUT, True), ("val_accuracy", WATCHED, True), ("val_accuracy", HELD_OUT, False)],
)
def test_training_images_matter_only_if_some_are_held_out(objective: str, values: dict[str, str], same: bool) -> None:
    assert (comparison_key(objective, values, MNIST) == comparison_key(objective, values, LARGER)) == same
    assert comparison_key(objective, values, MNIST) != comparison_key(
        objective, values, recorded_job({}, data={"digest": "a7c5"})
    )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["dataset.seed=0,1"], "do not measure the same: dataset.seed varies."),
        (["dataset.validation=100,200"], "do not measure the same: dataset.validation varies."),
        (
            ["dataset.limit=1000,2000", "dataset.seed=0,1"],
            "do not measure the same: dataset.limit and dataset.seed vary.",
        ),
        (["training.loss=null,KLDivergence", "objective=val_loss"], "do not measure the same: training.loss varies."),
        (["training.loss=null,KLDivergence"], ""),
        (["dataset.validation=test", "dataset.seed=0,1"], ""),
        (["dataset.seed=0,1", "objective=test_accuracy"], ""),
        (["model.hidden=4,8"], ""),
    ],
)
def test_sweep_over_the_measure_warns_and_race_refuses(typed: list[str], words: str) -> None:
    typed = ["dataset.validation=100", "preprocessing.one_hot=true", "model.activation=relu,tanh", *typed]
    sweep, _ = plan(compose_values(typed), typed, None, JobLoader.of_conf())
    said = why_not_compared(sweep.config.objective, sweep.configs, [])
    assert said.endswith(words)
    assert bool(said) == bool(words)
    race = ["sweep=race", *typed]
    if words or "dataset.seed=0,1" in typed:
        with pytest.raises(
            InputError, match=r"^(dataset|training)\.\w+=\S+: must have one value in a race, whose rows"
        ):
            plan(compose_values(race), race, None, JobLoader.of_conf())
    else:
        plan(compose_values(race), race, None, JobLoader.of_conf())


def test_a_sweep_over_the_split_is_ranked_without_a_comparison(tmp_path: Path) -> None:
    typed = ["dataset.seed=0,1", "seed=0,1", "dataset.validation=100", "tracking=none"]
    sweep, kind = plan(compose_values(typed), typed, None, JobLoader.of_conf())
    jobs = [
        recorded_job(
            {"dataset.seed": split, "seed": seed}, "FINISHED", 0.8 + int(split) / 10 + int(seed) / 100, {}, 1.0
        )
        for split in ("0", "1")
        for seed in ("0", "1")
    ]
    record = SweepRecord(Parent("", "", sweep.config.tracking, tuple(sweep.swept), tmp_path))
    table = make_sweep_table(sweep, record, jobs, kind)
    assert [row.values["dataset.seed"] for row in table.rows] == ["1", "0"]
    assert {row.comparison for row in table.rows} == {None}
    assert table.verdict == ""
    said = "The rows are not compared, since they do not measure the same: dataset.seed varies."
    assert any(said in note for note in table.notes)


def test_jobs_on_other_data_are_not_compared() -> None:
    configs = [compose(["dataset.validation=100"]).config]
    assert why_not_compared("val_accuracy", configs, [MNIST, recorded_job({}), MNIST]) == ""
    assert "data varies" in why_not_compared("val_accuracy", configs, [MNIST, LARGER])


def test_a_race_refuses_another_dataset_before_it_reads_it() -> None:
    typed = ["sweep=race", "dataset=mnist,keras"]
    with pytest.raises(InputError, match=r"dataset\.kind=mnist,keras: must have one value in a race"):
        plan(compose_values(typed), typed, None, JobLoader.of_conf())
