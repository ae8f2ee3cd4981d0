"""Sweeps in real processes on real stores: how they group, rank, fail and resume."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl

import mnist_exp
from mnist_exp import run
from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.config.schema import objective_direction
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent
from mnist_exp.tracking.tracker import join_sweep

from ..conftest import (
    SIX,
    artifacts,
    facts,
    in_process,
    runs_in,
    start,
    store,
    sweep_in,
    wait_for_line,
)

FAST = ("dataset.limit=1200", "dataset.validation=200", "training.epochs=2", "training.batch_size=100")
LONG = ("training.epochs=100000", "dataset.limit=2000", "training.batch_size=100")


def test_a_sweep_is_one_parent_with_its_jobs_below(sweep_folder: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mnist_exp.overrides"] == " ".join(SIX)
    assert {job.info.status for job in jobs} == {"FINISHED"}
    assert [job.info.run_name for job in jobs] == [
        f"hidden={hidden} activation={activation}" for hidden in (16, 32, 64) for activation in ("sigmoid", "relu")
    ]
    assert len(runs_in(sweep_folder)) == 7
    for job in jobs:
        assert {"test_loss", "test_accuracy", "fit_seconds", "objective", "val_accuracy"} <= set(job.data.metrics)
        assert job.data.metrics["objective"] == job.data.metrics["val_accuracy"]
        assert (sweep_folder / job.data.tags["mnist_exp.output"] / "model.keras").is_file()


def test_the_parent_holds_the_ranking_figures_and_the_best(sweep_folder: Path, tmp_path: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    client = store(sweep_folder)
    best = max(jobs, key=lambda job: float(job.data.metrics["objective"]))
    assert artifacts(client, parent.info.run_id) == {
        "best.yaml",
        "ranking.csv",
        "report.html",
        "figures/curves.png",
        "figures/objective.png",
    }
    assert facts(parent)["best_run"] == best.info.run_id
    for name in ("test_loss", "test_accuracy", "objective", "val_accuracy"):
        assert parent.data.metrics[name] == best.data.metrics[name]
    config = Path(client.download_artifacts(parent.info.run_id, "best.yaml", str(tmp_path)))
    assert yaml.safe_load(config.read_text())["model"]["hidden"] == int(best.data.params["model.hidden"])
    ranking = Path(client.download_artifacts(parent.info.run_id, "ranking.csv", str(tmp_path)))
    lines = list(csv.DictReader(ranking.read_text().splitlines()))
    assert [line["run_id"] for line in lines] == [
        job.info.run_id for job in sorted(jobs, key=lambda job: -float(job.data.metrics["objective"]))
    ]


def test_the_test_score_has_the_interval_that_its_images_allow(sweep_folder: Path) -> None:
    _, jobs = sweep_in(sweep_folder)
    best = max(jobs, key=lambda job: float(job.data.metrics["objective"])).data.metrics["test_accuracy"]
    interval = scipy.stats.binomtest(round(best * 10_000), 10_000).proportion_ci(method="wilson")
    assert (
        f"test_accuracy {best:.4f} of the first row is measured on 10,000 images; on others like them it would be "
        f"{interval.low:.4f} to {interval.high:.4f} (95 %, Wilson)."
    ) in (sweep_folder / "stdout").read_text().splitlines()


def test_figures_and_the_model_are_kept_of_the_best_alone(sweep_folder: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    client = store(sweep_folder)
    kept = {job.info.run_id for job in jobs if "figures/curves.png" in artifacts(client, job.info.run_id)}
    assert kept == {job.info.run_id for job in jobs if "predictions.csv" in artifacts(client, job.info.run_id)}
    assert kept == {facts(parent)["best_run"]}
    models = client.search_logged_models([parent.info.experiment_id])
    assert {model.source_run_id for model in models} == kept


def test_the_terminal_shows_progress_and_the_ranking(sweep_folder: Path) -> None:
    parent, _ = sweep_in(sweep_folder)
    lines = (sweep_folder / "stdout").read_text().splitlines()
    assert (sweep_folder / "stderr").read_text() == ""
    assert lines[0] == "6 jobs: model.hidden=16,32,64 model.activation=sigmoid,relu"
    assert [line.partition(" done")[0] for line in lines[1:7]] == [f"{n} of 6" for n in range(1, 7)]
    assert "s left" in lines[3]
    assert "hidden=16 activation=sigmoid: val_accuracy 0.77" in lines[1]
    title, header, *rows = lines[8:16]
    assert title.startswith("6 jobs, largest val_accuracy first, MEASURED ON THE TEST SET")
    assert title.endswith(": to hold images out instead, dataset.validation=300")  # 300 of 2000 images
    assert header.split() == ["hidden", "activation", "val_accuracy", "test_loss", "test_accuracy", "seconds"]
    assert rows[0].split()[:3] == ["1", "64", "relu"]
    assert rows[5].split()[:3] == ["6", "16", "sigmoid"]
    assert lines[16].startswith("hidden=64 activation=relu leads with 0.8")
    assert "on these 10,000 test images, but a single run may be better or worse by chance" in lines[16]
    assert not any("explains" in line for line in lines)  # six jobs are too few
    assert lines[-2] == f"Sweep {parent.info.run_id} in experiment mnist_exp; mlflow ui, then"


def test_a_terminal_has_a_bar_below_the_lines_of_the_jobs(tmp_path: Path) -> None:
    longer = ("dataset.limit=null", "training.epochs=6")  # than until the bar is drawn anew
    done = in_process("-m", *FAST, *longer, "model.hidden=8,32", "tracking=none", cwd=tmp_path, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"(?:^|\x1b\[2K)(\d of \d done: .*?) 0\.", done.stdout, re.MULTILINE)
    assert ended == ["1 of 2 done: hidden=8: val_accuracy", "2 of 2 done: hidden=32: val_accuracy"]
    assert re.search(r"━ [01] of 2 done.*; hidden=\d", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout))


def test_seeds_are_one_row(tmp_path: Path) -> None:
    done = in_process("-m", *FAST, "model.hidden=8,32", "seed=0,1", "tracking.keep=all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 jobs, largest val_accuracy first\n" in done.stdout  # images are held out: nothing to say
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("1  ", "2= "))]
    assert [(row[1], row[4]) for row in rows] == [("32", "2"), ("8", "2")]
    _, jobs = sweep_in(tmp_path)
    wide = [float(job.data.metrics["objective"]) for job in jobs if job.data.params["model.hidden"] == "32"]
    assert float(rows[0][2]) == pytest.approx(np.mean(wide), abs=1e-4)
    assert float(rows[0][3]) == pytest.approx(np.std(wide, ddof=1), abs=1e-4)
    assert "hidden=32 leads with 0." in done.stdout
    assert "on these 200 images; the other may be better, " in done.stdout
    for job in jobs:
        assert "figures/predictions.png" in artifacts(store(tmp_path), job.info.run_id)


def test_importance_is_worded_and_drawn(tmp_path: Path) -> None:
    keys = ("model.hidden=8,16", "optimizer.learning_rate=0.0001,0.01", "seed=0,1,2")
    done = in_process("-m", *FAST, *keys, "tracking=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nOf the variance of val_accuracy, learning_rate explains " in done.stdout
    folder = last_sweep(tmp_path)
    assert (folder / "figures/importance.png").is_file()
    assert ">interactions and chance<" in (folder / "report.html").read_text()


def test_a_job_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    sweep = ("-m", *FAST, "optimizer=sgd", "optimizer.learning_rate=0.01,1e38,0.1")
    done = in_process(*sweep, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "1 of 3 jobs did not finish; the same command with resume=true retries them\n"
    [unranked] = [line for line in done.stdout.splitlines() if line.startswith("-  1e+38")]
    assert "FAILED: loss became nan in epoch 1" in unranked
    parent, jobs = sweep_in(tmp_path)
    assert parent.info.status == "FAILED"
    assert [job.info.status for job in jobs] == ["FINISHED", "FAILED", "FINISHED"]
    failed = jobs[1].info.run_id
    assert "Traceback" in Path(store(tmp_path).download_artifacts(failed, "error.txt", str(tmp_path))).read_text()
    again = in_process(*sweep, "resume=true", cwd=tmp_path)
    assert again.returncode == 1
    assert "2 of 3 finished before" in again.stdout
    parent, jobs = sweep_in(tmp_path)
    assert sorted(job.info.status for job in jobs) == ["FAILED", "FINISHED", "FINISHED"], "a retry replaces"
    assert len(list(csv.DictReader((last_sweep(tmp_path) / "ranking.csv").read_text().splitlines()))) == 3


def last_sweep(folder: Path) -> Path:
    return sorted(folder.glob("multirun/*/*"))[-1]


def test_a_job_that_cannot_be_configured_is_recorded_as_failed(tmp_path: Path) -> None:
    # Each value is good with the first of the others, so that only the job itself finds the two that do not fit.
    callbacks = "training.callbacks={},{SwapEMAWeights:{}}"
    done = in_process("-m", *FAST, "optimizer.use_ema=true,false", callbacks, cwd=tmp_path)
    assert done.returncode == 1
    _, jobs = sweep_in(tmp_path)
    assert [job.info.status for job in jobs] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert facts(jobs[3])["error"] == "training.callbacks.SwapEMAWeights: needs optimizer.use_ema=true"
    assert jobs[3].info.run_name == "use_ema=false callbacks={SwapEMAWeights:{}}"
    assert "error.txt" in artifacts(store(tmp_path), jobs[3].info.run_id)


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        ("model.hidden=16,0", "model.hidden=0: must be a whole number, at least 1"),
        ("model.hiden=16,32", "model.hiden=16: model (mlp) has no such key; did you mean model.hidden=16?"),
        ("model=mlp,cn", "model=cn: no such choice; did you mean model=cnn?"),
        ("tracking.run_name=a,b", "tracking.run_name: must have one value, which all jobs of a sweep share"),
        ("training.checkpoint_seconds=9,10", "training.checkpoint_seconds: must have one value, which all jobs"),
        ("seed=range(0)", "seed=range(0): has no value; type at least one, such as seed=0,1"),
        ("seed=0,1,0", "seed=0,1,0: must list each value only once"),
        ("objective=loss,val_loss", "objective: must have one value"),
        (
            "optimizer.rho=interval(0.1,0.5)",
            "optimizer.rho=interval(0.1,0.5): is a range to draw from, for sweep=random",
        ),
    ],
)
def test_values_are_checked_before_the_first_job(tmp_path: Path, swept: str, message: str) -> None:
    done = in_process("-m", swept, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("sweep=grid", "sweep=grid: is a sweep; type python -m mnist_exp -m sweep=grid\n"),
        ("hydra.mode=MULTIRUN", "hydra.mode=MULTIRUN: is for a sweep; type -m instead\n"),
    ],
)
def test_a_sweep_needs_m(tmp_path: Path, typed: str, message: str) -> None:
    done = in_process(typed, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, message)
    assert not list(tmp_path.iterdir())


def test_presets_hold_out_images_to_rank_by() -> None:
    for path in (CONF / "sweep").glob("*.yaml"):
        validation = yaml.safe_load(path.read_text())["dataset"]["validation"]
        assert isinstance(validation, int), path
        assert validation >= 5000


@pytest.mark.slow
def test_kill_9_and_resume(tmp_path: Path) -> None:
    sweep = ("-m", *FAST, "model.hidden=8,16", "seed=0,1")
    process = start(*sweep, cwd=tmp_path)
    wait_for_line(process, "1 of 4 done")
    process.kill()
    process.communicate()
    parent, _ = sweep_in(tmp_path)
    assert parent.info.status == "RUNNING"
    records = [Folder(path.parent).read() for path in last_sweep(tmp_path).glob("*/run.json")]
    finished = {record.id for record in records if record.status == "FINISHED"}
    assert 1 <= len(finished) < 4
    done = in_process(*sweep, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed, jobs = sweep_in(tmp_path)
    assert resumed.info.run_id == parent.info.run_id
    assert resumed.info.status == "FINISHED"
    assert (last_sweep(tmp_path) / "report.html").is_file()
    by_status = [job.info.status for job in jobs]
    assert by_status.count("FINISHED") == 4
    assert "RUNNING" not in by_status
    assert finished < {job.data.tags["mnist_exp.folder"] for job in jobs if job.info.status == "FINISHED"}
    assert f"{len(finished)} of 4 finished before" in done.stdout
    lines = list(csv.DictReader((last_sweep(tmp_path) / "ranking.csv").read_text().splitlines()))
    assert [line["status"] for line in lines] == ["FINISHED"] * 4
    again = in_process(*sweep, "resume=true", cwd=tmp_path)
    assert again.returncode == 0
    assert len(sweep_in(tmp_path)[1]) == len(jobs)


def test_resume_skips_runs_that_finished_elsewhere(tmp_path: Path) -> None:
    assert in_process(*FAST, "model.hidden=8", cwd=tmp_path).returncode == 0
    [single] = runs_in(tmp_path)
    assert "mlflow.parentRunId" not in single.data.tags
    done = in_process("-m", *FAST, "model.hidden=8,16", "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _, jobs = sweep_in(tmp_path)
    assert [job.info.run_name for job in jobs] == ["hidden=16"]
    lines = list(csv.DictReader((last_sweep(tmp_path) / "ranking.csv").read_text().splitlines()))
    assert {line["model.hidden"]: line["run_id"] for line in lines} == {
        "8": single.info.run_id,
        "16": jobs[0].info.run_id,
    }
    again = in_process(*FAST, "model.hidden=8", "resume=true", cwd=tmp_path)
    assert again.stdout == f"Run {single.info.run_id} has finished this before; resume=false runs it again\n"
    assert len(runs_in(tmp_path)) == 3
    assert in_process(*FAST, "model.hidden=8", "seed=1", "resume=true", cwd=tmp_path).returncode == 0
    assert len(runs_in(tmp_path)) == 4


@pytest.mark.slow
def test_two_sweeps_at_once_do_not_mix(tmp_path: Path) -> None:
    processes = [start("-m", *FAST, f"model.hidden={hidden}", "seed=0,1", cwd=tmp_path) for hidden in (8, 16)]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    runs = runs_in(tmp_path)
    sweeps = [run for run in runs if "mnist_exp.sweep" in run.data.tags]
    parents = {run.info.run_id: run.data.tags["mnist_exp.overrides"] for run in sweeps}
    assert len(parents) == 2
    for job in runs:
        if "mnist_exp.swept" in job.data.tags:
            assert f"model.hidden={job.data.params['model.hidden']}" in parents[job.data.tags["mlflow.parentRunId"]]
    assert len(runs) == 6


def test_a_sweep_without_a_store_is_ranked_from_its_folder(tmp_path: Path) -> None:
    done = in_process("-m", *FAST, "tracking=none", "optimizer=sgd", "optimizer.learning_rate=0.1,1e38", cwd=tmp_path)
    assert done.returncode == 1
    folder = last_sweep(tmp_path)
    lines = list(csv.DictReader((folder / "ranking.csv").read_text().splitlines()))
    assert [(line["optimizer.learning_rate"], line["status"]) for line in lines] == [
        ("0.1", "FINISHED"),
        ("1e+38", "FAILED"),
    ]
    assert "loss became nan" in lines[1]["reason"]
    assert (folder / "figures" / "curves.png").is_file()
    assert (folder / "0" / "figures" / "predictions.png").is_file()
    assert "2 of 2 done: learning_rate=1e+38: FAILED loss became nan" in done.stdout
    assert not (tmp_path / "mlflow.db").exists()


def test_the_epoch_that_early_stopping_restored_counts() -> None:
    stopping = "training.callbacks={EarlyStopping:{monitor:val_accuracy,mode:max,patience:2,restore_best_weights:true}}"
    result = run(*FAST, "training.epochs=30", stopping, "optimizer.learning_rate=0.1", "tracking=none")
    measured = result.history["val_accuracy"]
    assert measured.index(max(measured)) < len(measured) - 1  # a best last epoch would test nothing
    assert result.objective == max(measured) != measured[-1]
    saved = json.loads((result.output / "run.json").read_text())
    assert saved["kept_epoch"] == measured.index(max(measured)) + 1
    without = run(*FAST, "objective=test_loss", "tracking=none")
    assert without.objective == without.scores["test_loss"]


def test_objective_direction_follows_the_metric() -> None:
    for override, expected in {
        "objective=val_accuracy": "maximize",
        "objective=val_loss": "minimize",
        "objective=test_accuracy": "maximize",
        "objective=val_auc training.metrics=[AUC]": "maximize",
        "objective=val_mean_squared_error training.metrics=[MeanSquaredError]": "minimize",
        "objective=val_mine training.metrics=[{F1Score:{average:macro,name:mine}}]": "maximize",
        "objective=val_loss direction=maximize": "maximize",
    }.items():
        assert objective_direction(compose(override.split(" ")).config) == expected
    with pytest.raises(
        InputError, match=r"objective=val_acuracy: this run logs no such metric; did you mean val_accuracy\?"
    ):
        compose(["objective=val_acuracy"])
    with pytest.raises(InputError, match=r"objective=val_accuracy: .* it logs loss, val_loss, test_loss"):
        compose(["training.metrics=[]"])


def test_a_job_that_does_not_see_its_sweep_says_so(tmp_path: Path) -> None:
    tracking = compose([]).config.tracking
    said = re.escape(f"hydra.sweep.dir={tmp_path}: {socket.gethostname()} does not see this sweep's folder; jobs on ")
    with pytest.raises(InputError, match=said):
        join_sweep(Parent("0" * 32, "0" * 32, tracking, (), tmp_path))
    Folder(tmp_path).write(Record("another sweep", {}))
    with pytest.raises(InputError, match=said):
        join_sweep(Parent("0" * 32, "0" * 32, tracking, (), tmp_path))


@pytest.mark.release
def test_memory_stays_flat_over_many_jobs(tmp_path: Path) -> None:
    """Between two collections of garbage it goes up and down by 100 MB and more, so that only the least counts.

    Over the first 40 jobs that grows by about 100 MB, and then stays.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the memory of a process from /proc")
    process = start("-m", *FAST, "training.epochs=1", "seed=range(63)", "tracking=none", cwd=tmp_path)
    measured = []
    for job in range(1, 61):  # before the last, when the process may have gone
        wait_for_line(process, f"{job} of 63 done")
        measured.append(resident_kilobytes(Path(f"/proc/{process.pid}/status")))
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    # From one ten to the other it is 20 jobs: if each left 5 MB, the least would be 100 MB higher.
    assert min(measured[50:]) < min(measured[30:40]) + 90_000, measured


def resident_kilobytes(status: Path) -> int:
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def test_sweep_is_checked_before_mlflow_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([m for m in ('tensorflow', 'mlflow', 'optuna', 'scipy') if m in sys.modules]))\n"
        "from mnist_exp.__main__ import main\n"
        "main()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, "-m", "model.hidden=16,0"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("typed", "times"),
    [((), 1), (("-m", "seed=range(4)"), 3), (("-m", "model=mlp,linear", "seed=0,1"), 4)],
    ids=["run", "sweep", "groups"],
)
def test_jobs_that_differ_in_values_are_composed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], times: int
) -> None:
    """A sweep is composed as typed, then as it is launched, and once for each group that its jobs choose."""
    composed: list[object] = []
    load = ConfigLoaderImpl._load_configuration_impl

    def counted(*given: Any, **named: Any) -> Any:
        composed.append(given)
        return load(*given, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counted)
    done = in_process(*typed, *FAST, "training.epochs=1", "tracking=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(composed) == times
