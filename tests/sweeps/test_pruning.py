"""Jobs that are stopped early: by which rule, and what becomes of them, on real MNIST in real stores."""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import run
from mnist_exp.config.composition import check_composed, compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.schema import Config, NoTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.sweeps.formats import as_csv
from mnist_exp.sweeps.past import drop_repeats
from mnist_exp.sweeps.plan import plan
from mnist_exp.sweeps.pruning import Pruning
from mnist_exp.sweeps.ranking import compare_rows, find_unranked, rank
from mnist_exp.sweeps.table import Table
from mnist_exp.sweeps.verdict import judge, word
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent, SweepRecord

from ..conftest import (
    Command,
    OnJax,
    alone_with_ray,
    command,
    facts,
    in_process,
    installed,
    recorded_job,
    runs_in,
    store,
    sweep_in,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed("optuna"), reason="needs pip install -e '.[optuna]'")]

# Of two learning rates, the second is far behind after the first of four epochs, with any seed.
TWO = (
    "optimizer.learning_rate=0.03,0.0001",
    "dataset.limit=2500",
    "dataset.validation=500",
    "training.epochs=4",
    "training.batch_size=100",
)
MEDIAN = ("prune=median", "prune.n_startup_trials=1")


def settings(*overrides: str) -> Config:
    """The configuration of a job of four epochs, of a sweep."""
    return check_composed(compose_values(["training.epochs=4", "tracking=none", *overrides]), None)


def record_in(folder: Path) -> SweepRecord:
    """The record of a sweep without jobs."""
    return SweepRecord(Parent("", "", NoTracking(kind="none"), (), folder))


def pruning(folder: Path, ended: Sequence[Sequence[float]], *overrides: str) -> Pruning:
    """What compares jobs with these curves of `val_accuracy`, or of the objective that is typed."""
    curves = {str(place): list(curve) for place, curve in enumerate(ended)}
    return Pruning(record_in(folder), [Experiment(settings(*overrides), (), folder)], curves)


def stopped(
    rule: Pruning,
    jobs: Sequence[Sequence[float]],
    metric: str = "val_accuracy",
    epochs: int = 4,
) -> dict[int, int]:
    """Let jobs train together; return after which epoch each of those that were stopped was."""
    found: dict[int, int] = {}
    for epoch in range(1, epochs + 1):
        running = {place: {metric: curve[epoch - 1]} for place, curve in enumerate(jobs) if place not in found}
        found |= dict.fromkeys(rule.find_unpromising(epoch, running), epoch)
    return found


MEDIAN_OF_3 = ("prune=median", "prune.n_startup_trials=3")
BEST_FIFTH = ("prune=percentile", "prune.percentile=20")
PATIENT = ("prune=patient", "prune.patience=1")
WRAPPED = (*PATIENT, "prune.wrapped_pruner.n_startup_trials=1")
THREE = [[0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.6, 0.7], [0.3, 0.4, 0.5, 0.6]]
NINE = [[place / 10] * 4 for place in range(1, 10)]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("rule", "ended", "job", "after"),
    [
        (MEDIAN_OF_3, THREE, [0.39, 0.9, 0.9, 0.9], 1),
        (MEDIAN_OF_3, THREE, [0.41, 0.49, 0.9, 0.9], 2),
        (MEDIAN_OF_3, THREE, [0.41, 0.51, 0.61, 0.1], None),  # after the last there is no point
        (MEDIAN_OF_3, THREE, [0.9, 0.1, 0.1, 0.1], None),  # its best epoch counts
        (MEDIAN_OF_3, THREE[:2], [0.1] * 4, None),  # three have to end first
        ((*MEDIAN_OF_3, "prune.n_warmup_steps=2"), THREE, [0.1] * 4, 3),
        (BEST_FIFTH, NINE, [0.70] * 4, 1),
        (BEST_FIFTH, NINE, [0.75] * 4, None),
        (("prune=threshold", "prune.lower=0.2"), [], [0.3, 0.1, 0.3, 0.3], 2),
        ((*PATIENT, "prune.wrapped_pruner=null"), [], [0.5, 0.4, 0.3, 0.2], 3),
        (WRAPPED, NINE, [0.6, 0.5, 0.55, 0.2], None),  # no better, but above the median
        (WRAPPED, NINE, [0.4, 0.3, 0.3, 0.2], 3),
        (("prune=median", "prune.n_startup_trials=2"), [[0.5] * 4, [math.nan] * 4], [math.nan, 0.4, 0.4, 0.4], 2),
        (("prune=median", "prune.n_startup_trials=2"), [[math.nan] * 4] * 2, [0.1] * 4, None),
    ],
)
def test_rule_stops_a_job_after_its_epoch(
    tmp_path: Path, rule: Sequence[str], ended: Sequence[Sequence[float]], job: Sequence[float], after: int | None
) -> None:
    assert stopped(pruning(tmp_path, ended, *rule), [job]).get(0) == after


@pytest.mark.fast
@pytest.mark.parametrize(("loss", "expected"), [(1.1, {0: 1}), (0.9, {})])
def test_pruning_prefers_a_smaller_loss(tmp_path: Path, loss: float, expected: dict[int, int]) -> None:
    rule = (*MEDIAN, "objective=val_loss")
    assert stopped(pruning(tmp_path, [[1.0] * 4], *rule), [[loss] * 4], "val_loss") == expected


@pytest.mark.fast
def test_jobs_of_one_program_are_compared_with_each_other(tmp_path: Path) -> None:
    rule = MEDIAN_OF_3
    jobs = [[0.1 * place + 0.01 * epoch for epoch in range(4)] for place in range(8)]
    # Those that were stopped still count: it is not the half of the rest that goes in the next epoch.
    assert stopped(pruning(tmp_path, [], *rule), jobs) == {0: 1, 1: 1, 2: 1, 3: 1}
    falls = [*jobs[:7], [0.7, 0.0, 0.0, 0.0]]
    assert stopped(pruning(tmp_path, [], *rule), falls) == {0: 1, 1: 1, 2: 1, 3: 1}  # the best value of a job counts
    assert stopped(pruning(tmp_path, [], *rule), jobs[:3]) == {}  # each has two beside it


@pytest.mark.fast
@pytest.mark.parametrize("judged", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 1])
def test_after_an_interruption_a_job_is_judged_as_before(tmp_path: Path, after: int, judged: int) -> None:
    job = [0.1, 0.2, 0.3, 0.4]
    experiment = Experiment(settings(*MEDIAN), (), tmp_path, resumes=True)
    folder = Folder(tmp_path)
    folder.begin(Record("job", {"mnist_exp.pruned": "2"} if judged == 2 else {}))
    for epoch in range(judged):
        folder.measure(epoch + 1, {"val_accuracy": job[epoch]})
    again = Pruning(record_in(tmp_path), [experiment], {"since": [0.5] * 4})
    (tmp_path / "metrics.jsonl").write_text("")
    found: list[int] = []
    for epoch in range(after + 1, 5):
        for earlier in range(1, epoch + 1) if epoch == after + 1 else [epoch]:
            folder.measure(earlier, {"val_accuracy": job[earlier - 1]})
        found += [epoch] * len(again.find_unpromising(epoch, {0: {"val_accuracy": job[epoch - 1]}}))
    assert found[0] == max(judged, after) + (judged < 2)


@pytest.mark.fast
def test_a_record_that_cannot_be_read_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "run.json").write_text("{")
    assert stopped(pruning(tmp_path, [[0.5] * 4], *MEDIAN), [[0.1] * 4]) == {0: 1}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prune=threshold"], r"prune\.lower: must be set, or prune\.upper, such as prune\.lower=0\.5"),
        (["prune=threshold", "prune.lower=1", "prune.upper=0.5"], r"prune\.lower=1: must be at most prune\.upper=0\.5"),
        (["prune=percentile", "prune.percentile=101"], r"prune\.percentile=101: must be a number from 0 to 100"),
        (["prune=median", "prune.percentile=5"], r"prune\.percentile=5: .*it is a key of prune=percentile"),
        (
            ["prune=patient", "prune.wrapped_pruner.kind=patient"],
            r"prune\.wrapped_pruner\.kind=patient: must be one of",
        ),
        (["prune=median", "objective=test_accuracy"], r"known after the last epoch, .*; type objective=val_accuracy"),
        (["prune=median,threshold", "seed=0,1"], "prune: must have one value, which all jobs of a sweep share"),
        (["prune=median", "prune.n_warmup_steps=0,1"], r"prune\.n_warmup_steps: must have one value"),
        (["prune=median", "sweep=race", "model.hidden=4,8"], "prune=median: leave it out of a race"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(compose_values(overrides), overrides, None, JobLoader.of_conf())


@pytest.mark.fast
def test_single_run_has_no_comparison() -> None:
    with pytest.raises(InputError, match="prune=median: stops jobs of a sweep, and this is a single run; type -m"):
        run("prune=median")


@pytest.mark.fast
def test_only_a_preset_of_a_sweep_can_choose_it(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /prune: median\nprune:\n  n_warmup_steps: 2\n"
    for group in ("sweep", "experiment"):
        (tmp_path / group / group).mkdir(parents=True)
        (tmp_path / group / group / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="a preset from elsewhere may not choose this"):
        compose(["experiment=mine"], tmp_path / "experiment")
    with pytest.raises(InputError, match="sweep=mine: is a sweep"):  # the preset was read and composed
        compose(["sweep=mine"], tmp_path / "sweep")


def job(rate: str, seed: int, objective: float, pruned: int | None = None) -> Record:
    values = {"optimizer.learning_rate": rate, "seed": str(seed)}
    return recorded_job(values, "FINISHED", objective, {}, 1.0, run_id=f"{rate}-{seed}", pruned=pruned)


@pytest.mark.fast
def test_a_row_with_a_pruned_job_is_not_compared() -> None:
    jobs = [
        *(job("0.01", seed, 0.90 + seed / 1000) for seed in range(3)),
        *(job("0.02", seed, 0.80 + seed / 500) for seed in range(3)),
        job("0.03", 0, 0.75), job("0.03", 1, 0.74), job("0.03", 2, 0.51, pruned=2),
        job("0.04", 0, 0.3, pruned=1), job("0.04", 1, 0.2, pruned=3),
    ]  # fmt: skip
    rows = compare_rows(rank(jobs, "maximize"), "maximize")
    table = Table("val_accuracy", "maximize", rows, find_unranked(jobs))
    assert [row.values["optimizer.learning_rate"] for row in rows] == ["0.01", "0.02", "0.03"]
    assert rows[2].mean == pytest.approx(0.745)
    assert (rows[2].pruned, len(rows[2].jobs)) == (1, 2)
    assert [row.comparison is not None for row in rows] == [False, True, False]
    lines = table.text().splitlines()[1:]
    assert "pruned" in lines[0]
    assert "seed" not in lines[0]
    assert "1 of 3" in lines[3]
    assert lines[4].startswith("-  0.04")
    assert lines[4].endswith("2 pruned after epochs 1 to 3")
    assert len(lines) == 6  # one line says what "at best" means
    said = word(judge(rows), partial(job_name, keys=["optimizer.learning_rate"]))
    assert said.startswith("learning_rate=0.01 is best of the 2 rows that are compared: ")
    assert said.endswith("Rows with a pruned job are not compared.")
    for few in ([rows[0], rows[2]], [rows[2], rows[1]]):
        assert [row.comparison for row in compare_rows(few, "maximize")] == [None, None]
        assert "but a row with a pruned job is not compared, since" in word(
            judge(compare_rows(few, "maximize")), partial(job_name, keys=["optimizer.learning_rate"])
        )
    written = list(csv.DictReader(as_csv(table.records).splitlines()))
    reasons = [line["reason"] for line in written if not line["rank"]]
    assert reasons == [f"pruned after epoch {epoch}" for epoch in (2, 1, 3)]


@pytest.mark.fast
def test_a_comparison_prefers_a_whole_run_to_a_newer_pruned_one() -> None:
    runs = [replace(job("0.01", seed, 0.9, pruned), start=seed) for seed, pruned in enumerate((None, 2))]
    for run_compared in runs:
        run_compared.tags["mnist_exp.signature"] = "same"
    assert drop_repeats(runs) == runs[:1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the second job of a sweep was pruned."""
    path = tmp_path_factory.mktemp("pruned")
    done = in_process("-m", *TWO, *MEDIAN, cwd=path)
    assert done.returncode == 0, done.stderr
    (path / "stdout").write_text(done.stdout)
    return path


def test_a_hopeless_job_stops_and_is_recorded_as_pruned(folder: Path) -> None:
    parent, [whole, pruned] = sweep_in(folder)
    assert [run.info.status for run in (parent, whole, pruned)] == ["FINISHED"] * 3
    assert facts(pruned)["pruned"] == "1"
    assert "pruned" not in facts(whole)
    client = store(folder)
    lengths = [len(client.get_metric_history(run.info.run_id, "val_accuracy")) for run in (whole, pruned)]
    assert lengths == [4, 1]
    assert pruned.data.metrics["objective"] == pruned.data.metrics["val_accuracy"]
    said = (folder / "stdout").read_text()
    assert "2 of 2 done: learning_rate=0.0001: pruned after epoch 1, val_accuracy " in said
    assert "2 jobs, 1 of them pruned, largest val_accuracy first" in said
    assert said.split("largest val_accuracy first")[1].splitlines()[3].endswith("pruned after epoch 1")
    assert "prune" not in {key.split(".")[0] for key in pruned.data.params}


def test_a_pruned_job_is_never_taken_for_a_finished_one(folder: Path) -> None:
    _, [whole, pruned] = sweep_in(folder)
    again = in_process("-m", *TWO, *MEDIAN, "resume=true", cwd=folder)
    assert "1 of 2 finished before" in again.stdout
    assert "pruned after epoch 1" in again.stdout
    to_the_end = in_process("-m", *TWO, "resume=true", cwd=folder)  # the same sweep, since `prune` does not tell it
    assert "1 of 2 finished before" in to_the_end.stdout
    assert "pruned" not in to_the_end.stdout
    parent, jobs = sweep_in(folder)
    assert [run.info.run_id for run in jobs[:2]] == [whole.info.run_id, pruned.info.run_id]
    assert [facts(run).get("pruned") for run in jobs] == [None, "1", "1", None]
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {parent.info.run_id}
    assert len({run.data.tags["mnist_exp.signature"] for run in jobs[1:]}) == 1
    single = [text.replace("0.03,", "") for text in TWO]
    assert in_process(*single, "resume=true", cwd=folder).stdout.startswith(f"Run {jobs[3].info.run_id} ")


def test_a_pruned_job_is_repeated_to_its_end(folder: Path) -> None:
    pruned = next(run for run in runs_in(folder) if "pruned" in facts(run))
    done = in_process(pruned.info.run_id, cwd=folder, module="mnist_exp.rerun")
    assert done.returncode == 0, done.stdout
    assert f"{pruned.info.run_id} was pruned after epoch 1, which a repeat is not; only its epochs" in done.stdout
    assert f"Identical to {pruned.info.run_id}: all 4 values of 4 metrics" in done.stdout
    assert len(store(folder).get_metric_history(runs_in(folder)[-1].info.run_id, "val_accuracy")) == 4


@pytest.mark.parametrize(
    ("extra", "launcher"),
    [
        ("hydra-core", ("tracking=none",)),
        ("hydra-joblib-launcher", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")),
        pytest.param(
            "hydra-ray-launcher",
            ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=1"),
            marks=pytest.mark.release,
        ),
        ("jax", ("backend=jax", "hydra/launcher=stacked")),
    ],
)
def test_pruning_works_with_every_launcher(
    tmp_path: Path, jax_command: Command, extra: str, launcher: tuple[str, ...]
) -> None:
    if not installed(extra):
        pytest.skip(f"needs {extra}")
    by = {"hydra-core": in_process, "jax": jax_command}.get(extra, command)
    with alone_with_ray() if "ray" in extra else nullcontext():
        done = by("-m", *TWO, *MEDIAN, *launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 1 of them pruned" in done.stdout
    [ranking] = tmp_path.glob("multirun/*/*/ranking.csv")
    lines = list(csv.DictReader(ranking.open()))
    assert [(line["optimizer.learning_rate"], line["rank"], line["reason"]) for line in lines] == [
        ("0.03", "1", ""),
        ("0.0001", "", "pruned after epoch 1"),
    ]


def trained_in_a_stack(stop: Mapping[int, Sequence[int]]) -> tuple[list[list[Any]], list[int], list[int]]:
    """Train eight jobs as one program; `stop`: which to stop, by epoch.

    Returns:
        The weights and the number of epochs of each, and the sizes of the programs that were filled.
    """
    from mnist_exp.experiment import Child
    from mnist_exp.training.engine import choose_engine
    from mnist_exp.training.split import load_data
    from mnist_exp.training.training import TrainingResult

    overrides = ("tracking=none", "backend=jax", "dataset.limit=1000", "training.epochs=4", "training.batch_size=100")
    rates = [0.001 * (seed + 1) for seed in range(8)]
    jobs = [compose([*overrides, f"seed={seed}", f"optimizer.learning_rate={rate}"]) for seed, rate in enumerate(rates)]
    jobs = [replace(job, child=Child("", {})) for job in jobs]
    sizes: list[int] = []
    engine = choose_engine("jax")
    fill = vars(engine)["stack_variables"]

    def filled(models: Sequence[Any]) -> Any:
        sizes.append(len(models))
        return fill(models)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "stack_variables", filled)
        trained = engine.train(jobs, load_data(jobs[0].config.dataset), lambda epoch, _: stop.get(epoch, ()))
    assert all(isinstance(result, TrainingResult) for result in trained)
    whole = [result for result in trained if isinstance(result, TrainingResult)]
    return [result.model.get_weights() for result in whole], [len(result.history["loss"]) for result in whole], sizes


@pytest.mark.skipif(not installed("jax"), reason="needs pip install -e '.[jax]'")
def test_a_half_pruned_stack_continues_as_a_smaller_program(on_jax: OnJax) -> None:
    stop = {1: [1, 4], 2: [0, 6]}
    weights, epochs, sizes = on_jax(trained_in_a_stack, stop)
    whole, _, _ = on_jax(trained_in_a_stack, {})
    assert epochs == [2, 1, 4, 4, 1, 4, 2, 4]
    assert sizes == [8, 4]
    for place in (2, 3, 5, 7):
        for weight, other in zip(weights[place], whole[place], strict=True):
            np.testing.assert_allclose(weight, other, atol=1e-5)
    assert any(not np.allclose(weight, other, atol=1e-3) for weight, other in zip(weights[1], whole[1], strict=True))
