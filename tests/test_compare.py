"""What `python -m mnist_exp.compare` prints and draws of a real sweep."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from .conftest import QUICK, in_process, runs_in, sweep_in


def compare(*arguments: str, cwd: Path, store: Path) -> subprocess.CompletedProcess[str]:
    uri = f"sqlite:///{store}/mlflow.db"
    return in_process(*arguments, cwd=cwd, module="mnist_exp.compare", MLFLOW_TRACKING_URI=uri)


def test_all_runs_are_ranked_and_drawn(sweep_folder: Path, tmp_path: Path) -> None:
    uri = f"tracking.uri=sqlite:///{sweep_folder}/mlflow.db"
    done = in_process(uri, cwd=tmp_path, module="mnist_exp.compare")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    title, header, *rows = done.stdout.splitlines()
    assert title.startswith("6 runs, largest val_accuracy first, MEASURED ON THE TEST SET")
    assert header.split() == ["id", "hidden", "activation", "val_accuracy", "test_loss", "test_accuracy", "seconds"]
    assert [row.split()[2:4] for row in rows[:6]] == [
        ["64", "relu"], ["32", "relu"], ["64", "sigmoid"], ["16", "relu"], ["32", "sigmoid"], ["16", "sigmoid"]
    ]  # fmt: skip
    assert Image.open(tmp_path / "comparison.png").width == 1080


def test_a_filter_an_order_and_the_newest(sweep_folder: Path, tmp_path: Path) -> None:
    def first_columns(*arguments: str) -> list[list[str]]:
        done = compare(*arguments, "--plot", "some.svg", cwd=tmp_path, store=sweep_folder)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return [line.split()[2:4] for line in lines[2:] if line[:1].isdigit()]

    assert [row[0] for row in first_columns("--filter", "params.`model.activation` = 'relu'")] == ["64", "32", "16"]
    assert first_columns("--sort", "metrics.test_accuracy ASC")[0] == ["16", "sigmoid"]
    assert first_columns("--last", "2") == [["relu", "0.8933"], ["sigmoid", "0.8625"]]
    parent, _ = sweep_in(sweep_folder)
    assert len(first_columns("--filter", f"tags.mlflow.parentRunId = '{parent.info.run_id}'")) == 6
    assert (tmp_path / "some.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "nonsense = 3"], "--filter 'nonsense = 3': Invalid attribute key 'nonsense'"),
        (["--sort", "metrics"], "--sort 'metrics': "),
        (["--filter", "params.seed = '77'"], "has no such run"),
        (["tracking.experiment=other"], "tracking.experiment=other: no such experiment; the store has mnist_exp"),
        (["tracking.uri=sqlite:///nowhere.db"], "no such store"),
        (["tracking=none"], "tracking=none: has no store"),
        (["--last", "0"], "--last 0: must be a whole number, at least 1"),
        (["--plot", "nowhere/a.png"], "--plot nowhere/a.png: must be"),
        (["model=cnn"], "model=cnn: is not used here; tracking.uri and tracking.experiment say where runs are"),
        (["tracking.note=x"], "tracking.note=x: is not used here"),
        (["tracking.experiment=mnist_exp", "3f"], "tracking.experiment=mnist_exp: is not used with ids"),
        (["no-such-run"], "no-such-run: no such run in sqlite:///"),
    ],
)
def test_bad_input_is_one_message(sweep_folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    before = len(runs_in(sweep_folder))
    done = compare(*arguments, cwd=tmp_path, store=sweep_folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert len(runs_in(sweep_folder)) == before


def test_it_ends_without_a_word_if_nobody_reads(sweep_folder: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "mnist_exp.compare", f"tracking.uri=sqlite:///{sweep_folder}/mlflow.db"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141


def test_the_same_experiment_twice_counts_once_and_failures_come_last(tmp_path: Path) -> None:
    for _ in range(2):
        assert in_process(*QUICK, cwd=tmp_path).returncode == 0
    assert in_process(*QUICK, "optimizer.learning_rate=1e38", cwd=tmp_path).returncode == 1
    done = compare(cwd=tmp_path, store=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 runs")
    assert lines[2].startswith("1  ")
    assert "FAILED: loss became" in lines[3]
    assert in_process(*QUICK, "objective=val_loss", cwd=tmp_path).returncode == 0
    mixed = compare(cwd=tmp_path, store=tmp_path).stdout
    first, second = mixed.split("\n\n")
    assert first.startswith("1 run, smallest val_loss first")
    assert second.startswith("2 runs, largest val_accuracy first")
    assert "Left out, since a newer run has the same configuration and code: 1 (" in mixed
    assert compare("--sort", "metrics.test_loss ASC", cwd=tmp_path, store=tmp_path).returncode == 0


def test_runs_that_differ_in_more_than_the_seed_are_no_row(tmp_path: Path) -> None:
    for typed in (["model.hidden=8"], ["model.hidden=16", "seed=1"], ["model=cnn", "model.filters=2"]):
        assert in_process(*QUICK, *typed, cwd=tmp_path).returncode == 0
    done = compare(cwd=tmp_path, store=tmp_path)
    assert done.stdout.startswith("3 runs")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isdigit()][1:] == ["1", "2", "3"]
    assert " std " not in lines[1]
    [cnn] = [below for line, below in pairwise(lines) if "  cnn  " in line]
    assert "filters=2 kernel_size=3" in cnn
