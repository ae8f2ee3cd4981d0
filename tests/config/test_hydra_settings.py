"""Which of Hydra's own settings are refused before anything is written."""

from pathlib import Path

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError
from mnist_exp.sweeps.kind import MAX_JOBS, Kind
from mnist_exp.sweeps.plan import plan

from ..conftest import in_process, installed


def planned(*overrides: str) -> Kind:
    composed = compose_values(overrides)
    return plan(composed, overrides, None, JobLoader.of_conf())[1]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("hydra.sweeper.initial_seeds", "1", "a whole number, at least 2"),
        ("hydra.sweeper.max_jobs", "0", "a whole number from 1 to 100,000, or null"),
        ("hydra.sweeper.indifference", "nan", "a number, at least 0"),
        ("hydra.sweeper.from_sweep", "''", "some text, on one line, or a number, or null"),
        ("hydra.sweeper.kind", "x", "one of grid, race, search"),
    ],
)
def test_every_number_of_a_sweeper_has_a_range(key: str, value: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        planned("model.hidden=4,8", f"{key}={value}")
    assert str(caught.value) == f"{key}={value.strip(chr(39))}: must be {wanted}"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.mode=x"], "hydra.mode=x: Invalid value .x., expected one of"),
        (["+hydra.sweeper.seed=1"], r"hydra.sweeper.seed=1: hydra.sweeper \(grid\) has no such key"),
        (["hydra/launcher=stacked", "backend=jax", "+hydra.launcher.n_jobs=2"], "n_jobs: is no setting of this launch"),
        (["hydra.run.dir=out"], "hydra.run.dir=out: is for a single run; with -m, hydra.sweep.dir=DIR"),
        (["sweep=grid,race"], "sweep: must have one value, which all jobs of a sweep share"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned("model.hidden=4,8", *overrides)


@pytest.mark.fast
@pytest.mark.parametrize("key", ["hydra.sweep.dir", "hydra/launcher", "hydra.launcher._target_"])
def test_a_single_run_takes_no_setting_of_a_sweep(key: str) -> None:
    with pytest.raises(InputError, match=f"{key}=basic: is for a sweep; add -m, or leave it out"):
        compose([f"{key}=basic"])


@pytest.mark.fast
@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=range(2000000000)"],
        ["sweep=race", "model.hidden=range(1,60000)"],
        ["sweep=race", "model.hidden=4,8", "hydra.sweeper.initial_seeds=60000"],
    ],
)
def test_too_many_jobs_are_refused_before_they_are_listed(overrides: list[str]) -> None:
    with pytest.raises(InputError, match=f"asks for [0-9,]+ jobs; a sweep may have {MAX_JOBS:,} at most"):
        planned(*overrides)


@pytest.mark.fast
def test_a_preset_may_not_ask_for_more(tmp_path: Path) -> None:
    (tmp_path / "presets/sweep").mkdir(parents=True)
    preset = "# @package _global_\nhydra: {sweeper: {params: {seed: 'range(0,2000000000)'}}}\n"
    (tmp_path / "presets/sweep/mine.yaml").write_text(preset)
    done = in_process("--config-dir", "presets", "-m", "sweep=mine", cwd=tmp_path)
    said = "seed=range(0,2000000000): asks for 2,000,000,000 jobs; a sweep may have 100,000 at most\n"
    assert done.stderr == f"presets/sweep/mine.yaml: {said}"
    assert {path.name for path in tmp_path.iterdir()} == {"presets"}


@pytest.mark.fast
def test_of_many_values_some_are_checked() -> None:
    assert planned("seed=range(90000)").jobs == 90_000
    with pytest.raises(InputError, match="seed=4294967296: must be a whole number"):
        planned("seed=range(4294957297,4294967297)")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("subdir", "message"),
    [
        ("x", "each job needs a folder of its own"),
        ("${dataset.seed}", "each job needs a folder of its own"),
        ("${hydra.job.num}/../..", "must be a folder in the output folder"),
        ("${hydra.job.num}-${tracking.run_name}", "must be a folder in the output folder"),
        ("${hydra.job.id}" + "x" * 300, "is too long for the name of a folder"),
    ],
)
def test_jobs_have_folders_of_their_own_in_that_of_the_sweep(subdir: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned("seed=0,1", "tracking.run_name=a/../../..", f"hydra.sweep.subdir={subdir}")


@pytest.mark.fast
def test_a_folder_may_be_named_after_a_jobs_values() -> None:
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    assert planned("seed=0,1", subdir).jobs == planned("seed=0,1", "hydra.sweep.subdir=at-${seed}").jobs == 2
    with pytest.raises(InputError, match="each job needs a folder of its own"):
        planned("seed=0,1", subdir, "hydra.job.config.override_dirname.exclude_keys=[seed]")


@pytest.mark.fast
def test_an_output_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    done = in_process("hydra.run.dir=/dev/null", "tracking=none", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("/dev/null: cannot be written (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not installed("hydra-joblib-launcher"), reason="needs pip install -e '.[joblib]'")
def test_a_launcher_refuses_its_settings_on_one_line(tmp_path: Path) -> None:
    typed = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "seed=0,1", "tracking=none")
    done = in_process("-m", *typed, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "hydra.launcher: n_jobs == 0 in Parallel has no meaning"
    assert "Traceback" not in done.stderr
