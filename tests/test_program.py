"""`run` in other people's programs: in threads, in a Hydra program, and without a trace in the process."""

import io
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import mnist_exp
from mnist_exp import InputError, Result, Runs, run, runs, sweep
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import to_overrides
from mnist_exp.logs import forward_logs

from .conftest import QUICK, command

QUIET = (*QUICK, "tracking=none")


def program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a user's file, with an argument."""
    (folder / "program.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "program.py", "size=8"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_calls_from_threads_wait_and_give_equal_results() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda seed: run(*QUIET, f"seed={seed}"), (0, 1)))
    assert all(isinstance(result, Result) for result in results)
    assert results[0].history == run(*QUIET, "seed=0").history
    assert results[1].history != results[0].history
    assert len({result.output for result in results}) == 2


@pytest.mark.slow
def test_hydra_program_can_call_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("size: 4\n")
    done = program(
        """
import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from mnist_exp import run, sweep

@hydra.main(config_path=".", config_name="config", version_base="1.3")
def main(config):
    own = GlobalHydra.instance().hydra
    result = run({"model.hidden": config.size, "training.epochs": 1, "dataset.limit": 500}, "tracking=none")
    assert GlobalHydra.instance().hydra is own
    swept = sweep({"model.hidden": config.size, "training.epochs": 1}, "seed=0,1", "dataset.limit=500", "tracking=none")
    assert GlobalHydra.instance().hydra is own
    print("SWEPT", len(swept.frame()), HydraConfig.get().overrides.task)
    print("HIDDEN", result.config.model.hidden, HydraConfig.get().overrides.task, config.size)

if __name__ == "__main__":
    main()
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "SWEPT 2 ['size=8']" in done.stdout
    assert "HIDDEN 8 ['size=8'] 8" in done.stdout


def test_sweep_and_past_runs_are_data_frames(capfd: pytest.CaptureFixture[str]) -> None:
    small = ("dataset.limit=500", "dataset.validation=200", "training.epochs=1")
    varied = ("optimizer=sgd", "optimizer.learning_rate=0.01,1e38", "seed=0,1")
    result = sweep({"model.hidden": 4}, *varied, *small, verbose=0)
    assert capfd.readouterr() == ("", "")
    assert (result.jobs, result.unfinished) == (4, 2)
    frame = result.frame()
    assert list(frame["optimizer.learning_rate"]) == [0.01, 0.01, 1e38, 1e38]
    assert list(frame["status"]) == ["FINISHED", "FINISHED", "FAILED", "FAILED"]
    assert sorted(frame["seed"]) == [0, 0, 1, 1]
    assert frame["val_accuracy"][0] >= frame["val_accuracy"][1]
    alone = run({"model.hidden": 8}, *small, verbose=0)
    assert capfd.readouterr() == ("", "")
    past = runs("status=FINISHED")
    assert alone.run_id in set(past.frame()["run_id"])
    assert len(past.frame()) == 3
    assert list(past.frame()["model.hidden"]).count(4) == 2
    with pytest.raises(InputError, match="seed=0,0: must list each value only once"):
        sweep("seed=0,0")
    with pytest.raises(InputError, match="no such experiment"):
        runs({"tracking.experiment": "none"})


def test_a_program_that_logs_gets_a_line_a_run_and_a_job(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    varied = ("optimizer=sgd", "optimizer.learning_rate=0.01,1e38", "hydra.sweep.dir=swept")
    with caplog.at_level(logging.INFO):
        result = run(*QUIET, "model.hidden=4", verbose=0)
        swept = sweep(*QUIET, *varied, verbose=0)
    begun, ended, opened, first, second, report, last, unfinished = [
        (record.name.partition(".")[0], record.levelname, record.getMessage()) for record in caplog.records
    ]
    assert begun[2] == f"{' '.join((*QUICK, 'model.hidden=4'))} begins, in {result.output}"
    assert ended[2] == f"val_accuracy {result.objective:.6g}; Files in {result.output}"
    assert opened == ("mnist_exp", "INFO", "2 jobs: optimizer.learning_rate=0.01,1e38")
    assert first[2].startswith("1 of 2 done: learning_rate=0.01: val_accuracy 0.")
    assert second[2].startswith("2 of 2 done: learning_rate=1e+38: FAILED ")
    assert report[2] == "Report: swept/report.html"
    assert last[2] == f"Files in {swept.output}"
    assert unfinished == ("mnist_exp", "WARNING", "1 of 2 jobs did not finish")
    assert "of 2 done" not in "".join(path.read_text() for path in swept.output.glob("*/run.log"))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        sweep(*QUIET, "seed=0,1", verbose=0)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.fast
def test_a_log_has_the_programs_level_and_no_password(capfd: pytest.CaptureFixture[str]) -> None:
    package, hydra = (logging.getLogger(name) for name in ("mnist_exp", "hydra._internal.core_plugins.basic_launcher"))
    lines, inside = io.StringIO(), logging.getLogger("mnist_exp.runner")
    handler = logging.StreamHandler(lines)
    for level, wanted in ((logging.INFO, ["run", "postgresql://host/db"]), (logging.WARNING, ["postgresql://host/db"])):
        package.addHandler(handler)
        package.setLevel(level)
        before = (package.level, package.propagate, list(package.handlers), logging.getLogger("hydra").level)
        with forward_logs():
            inside.debug("epoch")
            inside.info("run")
            inside.warning("postgresql://me:very-secret@host/db")
            inside.error("FAILED", exc_info=ValueError("raised"))
            hydra.error("Launching")
        assert before == (package.level, package.propagate, package.handlers, logging.getLogger("hydra").level)
        package.setLevel(logging.NOTSET)
        package.removeHandler(handler)
        assert lines.getvalue().splitlines() == wanted
        lines.truncate(lines.seek(0))
    assert capfd.readouterr() == ("", "")


def test_run_restores_the_process() -> None:
    def state() -> dict[str, object]:
        numpy_state = np.random.get_state(legacy=False)
        return {
            "environment": dict(os.environ),
            "python": random.getstate(),
            "numpy": repr(numpy_state),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            "warnings": list(warnings.filters),
            "logging": (logging.root.level, list(logging.root.handlers), logging.getLogger("mnist_exp").level),
            "folder": Path.cwd(),
        }

    before = state()
    run(*QUICK)
    assert state() == before
    sweep(*QUICK, "seed=0,1", "model.hidden=4")
    assert state() == before


@pytest.mark.fast
def test_a_column_of_a_data_frame_is_all_numbers_or_all_text() -> None:
    first = {"model.hidden": 16, "model.filters": "[16, 32]", "dataset.limit": None, "seconds": None, "code": "12e4"}
    second = {"model.hidden": 8, "model.filters": 16, "dataset.limit": 500, "seconds": 0.5, "code": "00345678"}
    frame = Runs([first, second], "").frame().sort_values("model.hidden")
    assert frame["model.hidden"].sum() == 24
    assert (frame["dataset.limit"].sum(), str(frame["dataset.limit"].dtype)) == (500, "Int64")
    assert frame["seconds"].mean() == 0.5
    assert list(frame["model.filters"]) == ["16", "[16, 32]"]
    assert list(frame["code"]) == ["00345678", "12e4"]
    shown = Runs([first, second], "a < b")._repr_html_()
    assert "[16, 32]</td>" in shown
    assert shown.endswith("<p>a &lt; b</p>")


def test_map_equals_typed_overrides() -> None:
    given = {
        "model": "cnn",
        "model.filters": (4, np.int64(8)),
        "model.dropout": np.float64(0.25),
        "training.callbacks": {"EarlyStopping": {"patience": 3, "restore_best_weights": True}},
        "tracking.note": "it's a note, with = and {braces}",
        "dataset.limit": None,
    }
    typed = [
        "model=cnn",
        "model.filters=[4,8]",
        "model.dropout=0.25",
        "training.callbacks={EarlyStopping:{patience:3,restore_best_weights:true}}",
        r"tracking.note='it\'s a note, with = and {braces}'",
        "dataset.limit=null",
    ]
    assert compose(to_overrides(given)).config == compose(typed).config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["model.hidden=4"], r"\['model.hidden=4'\]: must be a text such as 'model.hidden=64', or a map"),
        (64, "64: must be a text"),
        ({"seed": 10**5000}, r"^seed=0x\w+\.\.\.: must be a number of at most 300 digits$"),
        ({"model.hidden": {4}}, r"model.hidden=\{4\}: must be a number, a text, true, false, None, or lists and maps"),
        ({"model.hiden": 4}, "model.hiden=4: model .mlp. has no such key; did you mean model.hidden"),
    ],
)
@pytest.mark.fast
def test_anything_else_is_refused_in_words(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(given)  # type: ignore[arg-type]


def test_the_environments_backend_must_equal_the_typed_one(tmp_path: Path) -> None:
    done = command(*QUIET, cwd=tmp_path, KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr == "KERAS_BACKEND=jax: differs from backend=tensorflow; unset it, or type backend=jax\n"
