"""mnist_exp: experiments on images, configured with Hydra, trained with Keras, recorded in MLflow.

`from mnist_exp import run` trains from a notebook or a program what `python -m mnist_exp` trains from a shell.
"""

import os
import re
import sys

# `python -m` puts the current folder first, where a stranger's numpy.py or hydra_plugins/ could lie. Nothing is
# imported from there. While Python locates our module, sys.argv[0] is "-m".
_module = re.sub("^-[A-Za-z]*?m", "", sys.orig_argv[-len(sys.argv)]) if sys.argv[:1] == ["-m"] else ""
if _module.partition(".")[0] == "mnist_exp" and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

import gc
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["run"]

if TYPE_CHECKING:
    from mnist_exp.experiment import Result


def run(*overrides: str, config_dir: str | Path | None = None) -> "Result":
    """Run one experiment, as `python -m mnist_exp OVERRIDES` does.

    Args:
        overrides: such as `"model.hidden=64"` or `"experiment=convnet"`.
        config_dir: a folder with presets of one's own, as with `--config-dir`.

    Raises:
        InputError: a ValueError that names the key, its value, and what would be right.
    """
    from mnist_exp.config.composition import compose
    from mnist_exp.errors import InputError
    from mnist_exp.runner import run_experiment

    experiment = compose(overrides, config_dir)
    if experiment.config.resume:
        raise InputError("resume=true: is for the command line; run() always runs, to return what it trained")
    gc.collect()  # of an earlier run: a Keras model is a web of cycles that holds the data
    return run_experiment(experiment)
