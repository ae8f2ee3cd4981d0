"""Run experiments on images with Hydra, Keras and MLflow.

`run`, `sweep` and `runs` do from a notebook or a program what the commands do in a shell.
"""

import os
import re
import sys

# `python -m` puts the current folder first, where a stranger's numpy.py or hydra_plugins/ could lie. While Python
# locates this module, sys.argv[0] is "-m".
_module = re.sub("^-[A-Za-z]*?m", "", sys.orig_argv[-len(sys.argv)]) if sys.argv[:1] == ["-m"] else ""
if _module.partition(".")[0] == "mnist_exp" and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

import gc
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TypeVar

from mnist_exp.config.overrides import to_overrides
from mnist_exp.config.own_code import FUNCTIONS
from mnist_exp.errors import InputError
from mnist_exp.experiment import Result, Runs, SweepResult
from mnist_exp.version import __version__ as __version__

__all__ = ["InputError", "Result", "Runs", "SweepResult", "dataset", "model", "run", "runs", "sweep"]

_Function = TypeVar("_Function", bound=Callable[..., object])

_log = logging.getLogger(__name__)
_one_at_a_time = RLock()  # Keras and its backend have state of a whole process, such as the names of layers


def run(
    *overrides: str | Mapping[str, object], config_dir: str | Path | None = None, verbose: bool | int = True
) -> Result:
    """Run one experiment, as `python -m mnist_exp OVERRIDES` does.

    Calls in several threads run one after another.
    With `resume=true`, a run that has finished before is loaded from its folder, or run again if that cannot be read
    here. It restores the random state of Python and NumPy, and the environment.

    Args:
        overrides: such as `"model.hidden=64"`, `"experiment=convnet"` or `{"model.hidden": 64}`.
        config_dir: a folder with your own presets, as with `--config-dir`.
        verbose: whether to show progress and scores.

    Raises:
        InputError: a ValueError that names the key, its value, and what would be right.
    """
    from mnist_exp.config.composition import compose
    from mnist_exp.logs import forward_logs
    from mnist_exp.resume import finish
    from mnist_exp.runner import read_result, run_experiment
    from mnist_exp.tracking.folder import Folder

    with _one_at_a_time, _left_as_it_was(), forward_logs():
        experiment = compose([text for given in overrides for text in to_overrides(given)], config_dir)
        gc.collect()  # an earlier run's Keras model is a web of cycles that holds the data
        experiment = replace(experiment, verbose=bool(verbose))
        found = finish(experiment)
        if isinstance(found, Result):
            return found
        folder = Folder(Path(found.output))
        return read_result(folder, experiment) if folder.has_weights() else run_experiment(experiment)


def sweep(
    *overrides: str | Mapping[str, object], config_dir: str | Path | None = None, verbose: bool | int = True
) -> SweepResult:
    """Run every combination of the listed values, and rank them.

    This is `python -m mnist_exp -m OVERRIDES`. A job that fails does not stop the others.

    Args:
        overrides: such as `"model.hidden=16,32"`, `"seed=range(5)"` or `"sweep=race"`.
        config_dir: as for `run`.
        verbose: whether to show progress and the ranking.

    Raises:
        InputError: a ValueError that names the key, its value, and what would be right.
    """
    from mnist_exp.logs import forward_logs
    from mnist_exp.sweeps.plan import run_sweep

    typed = [text for given in overrides for text in to_overrides(given)]
    with _one_at_a_time, _left_as_it_was(), forward_logs():
        result = run_sweep(typed, config_dir, verbose=bool(verbose))
        if result.unfinished:
            _log.warning("%d of %d jobs did not finish", result.unfinished, result.jobs)
        return result


def runs(*which: str | Mapping[str, object], last: int | None = None) -> Runs:
    """Return past runs, ranked, as `python -m mnist_exp.compare WHICH` chooses them.

    Args:
        which: ids of runs and sweeps, such as `"3f2a1c22"`; parameters, tags and status, such as `"model.hidden=16,32"`
            or `{"status": "FINISHED"}`; metrics, such as `"val_accuracy>0.9"`. All must hold; by default, all runs.
            `"tracking.experiment=digits"` says where the runs are.
        last: takes only so many, the newest; by default, all.

    Raises:
        InputError: if there is no such store, experiment or run.
    """
    from mnist_exp.compare import past_runs

    with _one_at_a_time:
        return past_runs([text for given in which for text in to_overrides(given)], last)


def model(function: _Function) -> _Function:
    """Let `model=NAME code=FILE` choose this function of FILE.

    It gets the prepared images as a Keras tensor, (N, height, width, channels) or with `preprocessing=flatten` (N,
    pixels), and returns the input of the output layer, which has one softmax unit per class. Its other arguments are
    keys: `width: int = 16` is set by `model.width=8`.
    """
    FUNCTIONS["model"][function.__name__] = function
    return function


def dataset(function: _Function) -> _Function:
    """Let `dataset=NAME code=FILE` choose this function of FILE.

    It returns `(x_train, y_train), (x_test, y_test)` as NumPy arrays: images (N, height, width) or (N, height, width,
    channels) of whole numbers 0 to 255, and labels (N,), whole numbers or text. Its arguments are keys, beside
    `validation`, `limit` and `seed`.
    """
    FUNCTIONS["dataset"][function.__name__] = function
    return function


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    import numpy as np

    environment, of_python, of_numpy = dict(os.environ), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        # TensorFlow reads its number of threads once, and a run records it.
        for name in os.environ.keys() - environment.keys() - {"TF_NUM_INTRAOP_THREADS"}:
            del os.environ[name]
        os.environ.update(environment)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        gc.unfreeze()  # a sweep has frozen what it kept
