"""What `python -m mnist_exp.compare` prints and draws of a real sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from .conftest import QUICK, in_process, runs_in


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


def test_compare_chooses_runs_by_words(sweep_folder: Path, tmp_path: Path) -> None:
    def first_columns(*arguments: str) -> list[list[str]]:
        done = compare(*arguments, "--plot", "some.svg", cwd=tmp_path, store=sweep_folder)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return [line.split()[2:4] for line in lines[2:] if line[:1].isdigit()]

    for words in (
        ["model.activation=relu"],
        ["activation='RELU'", "status=finished", "hidden>4"],
        ["model.hidden=16,32,64", "activation=relu"],
    ):
        assert [row[0] for row in first_columns(*words)] == ["64", "32", "16"]
    assert first_columns("model=mlp", "test_loss<1e9", "hidden=16,32") == [
        ["32", "relu"], ["16", "relu"], ["32", "sigmoid"], ["16", "sigmoid"]
    ]  # fmt: skip
    assert first_columns("--sort", "test_accuracy")[-1] == ["16", "sigmoid"]
    assert first_columns("--sort", "test_loss")[0] == ["64", "relu"]
    assert first_columns("--last", "2") == [["relu", "0.8933"], ["sigmoid", "0.8625"]]
    assert (tmp_path / "some.svg").is_file()
    done = compare("--columns", "hidden,training.epochs,loss", "--format", "latex", cwd=tmp_path, store=sweep_folder)
    assert done.stdout.splitlines()[3].split(" & ") == ["", "hidden", "training.epochs", "loss \\\\"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hiden=3"], "hiden=3: no run has hiden; did you mean hidden=3?"),
        (["acuracy>0.5"], "acuracy>0.5: no run has acuracy; did you mean 'accuracy>0.5'?"),
        (["accuracy>much"], "accuracy>much: must compare a metric with a number, such as 'val_accuracy>0.9'"),
        (["--sort", "tes_loss"], "--sort tes_loss: no run has this metric; did you mean test_loss?"),
        (["--columns", "hiden"], "--columns hiden: is not recorded; did you mean"),
        (["seed=77"], "seed=77: there is no such run"),
        (["accuracy=0.9"], "accuracy=0.9: is a metric; compare it, such as 'accuracy>0.9'"),
        (["tracking.experiment=other"], "tracking.experiment=other: no such experiment; the store has mnist_exp"),
        (["tracking.uri=sqlite:///nowhere.db"], "no such store"),
        (["tracking=none"], "tracking=none: has no store"),
        (["--last", "0"], "--last 0: must be a whole number, at least 1"),
        (["--last", "ten"], "--last ten: must be a whole number, at least 1"),
        (["--like", "3f"], "3f: no such run"),
        (["--plot", "nowhere/a.png"], "--plot nowhere/a.png: must be"),
        (["model=cnn"], "model=cnn: there is no such run"),
        (["tracking.experiment=mnist_exp", "3f"], "tracking.experiment: is not used with ids"),
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


def test_closed_pipe_ends_compare_silently(sweep_folder: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "mnist_exp.compare", f"tracking.uri=sqlite:///{sweep_folder}/mlflow.db"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141


def test_repeated_runs_count_once_and_failures_come_last(tmp_path: Path) -> None:
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
    assert mixed.startswith("1 run, smallest val_loss first")
    [other] = [line for line in mixed.splitlines() if "--like" in line]
    assert other.startswith("2 more runs are measured with objective=val_accuracy: python -m mnist_exp.compare --like ")
    assert "Left out, since a newer run has the same configuration and code: 1 (" in mixed
    liked = compare("--like", other.split()[-1], cwd=tmp_path, store=tmp_path).stdout
    assert liked.startswith("2 runs, largest val_accuracy first")


def test_runs_that_differ_in_more_than_the_seed_are_no_row(tmp_path: Path) -> None:
    for typed in (["model.hidden=8"], ["model.hidden=16", "seed=1"], ["model=cnn", "model.filters=2"]):
        assert in_process(*QUICK, *typed, cwd=tmp_path).returncode == 0
    done = compare(cwd=tmp_path, store=tmp_path)
    assert done.stdout.startswith("3 runs")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isdigit()][1:] == ["1", "2", "3"]
    assert " std " not in lines[1]
    [beside] = [line for line in lines if line.startswith("Without a column: ")]
    assert {"filters", "kernel_size"} <= set(beside.removesuffix("; --columns shows them.").split(": ")[1].split(", "))
