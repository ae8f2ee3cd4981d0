"""The log of this package: to the `run.log` of each experiment that runs, and nowhere else."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_exp.config.redaction import SecretsFilter


@contextmanager
def package_logs() -> Iterator[None]:
    """Let this package log from INFO on, to its own files alone."""
    package = logging.getLogger("mnist_exp")
    level, propagate = package.level, package.propagate
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.setLevel(level)
        package.propagate = propagate


@contextmanager
def log_file(output: Path) -> Iterator[None]:
    """Write the log of this package to `run.log` in the output folder."""
    output.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(output / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # A message about one of the jobs that train together has its output folder; any other is for all.
    handler.addFilter(lambda record: getattr(record, "output", output) == output)
    handler.addFilter(SecretsFilter())
    package = logging.getLogger("mnist_exp")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
