"""Log this package to `run.log` in a folder, and to a program that calls `run`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mnist_exp.config import files
from mnist_exp.errors import InputError
from mnist_exp.text import make_printable

_SILENT = logging.CRITICAL + 1


@contextmanager
def package_logs() -> Iterator[None]:
    """Let this package log from DEBUG on, to its own handlers alone."""
    package = logging.getLogger("mnist_exp")
    level, propagate = package.level, package.propagate
    package.setLevel(logging.DEBUG)
    package.propagate = False
    try:
        yield
    finally:
        package.setLevel(level)
        package.propagate = propagate


@contextmanager
def log_file(output: Path) -> Iterator[None]:
    """Write this package's log to `run.log` in the output folder, unless it is empty."""
    try:
        handler = _LogFile(output / "run.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{output / 'run.log'}: cannot be written ({error.strerror})") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # A message about one of the jobs that train together names its output folder; any other is for all.
    handler.addFilter(lambda record: getattr(record, "output", output) == output)
    handler.addFilter(make_printable)
    package = logging.getLogger("mnist_exp")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        with suppress(OSError):
            handler.close()
            if not (written := output / "run.log").stat().st_size:  # a run that its store refuses logs nothing
                written.unlink()


class _LogFile(logging.FileHandler):
    """A log file that follows no link, and stops silently when the disk is full."""

    def _open(self) -> IO[str]:  # type: ignore[override]
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=files.no_link)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing."""


@contextmanager
def forward_logs() -> Iterator[None]:
    """Forward this package's records to the program's handlers, from its level on.

    None of Hydra's loggers says anything meanwhile. A program without handlers gets nothing, not even warnings, which
    Python would print.
    """
    package, known = logging.getLogger("mnist_exp"), logging.root.manager.loggerDict
    names = {"hydra", "hydra_plugins", *(name for name in known if name.startswith("hydra"))}
    hydra = [logging.getLogger(name) for name in names]
    levels, handlers = [logger.level for logger in hydra], list(package.handlers)
    package.handlers[:] = [_ToProgram(package)]
    try:
        for logger in hydra:
            logger.setLevel(_SILENT)
        with package_logs():
            yield
    finally:
        package.handlers[:] = handlers
        for logger, level in zip(hydra, levels, strict=True):
            logger.setLevel(level)


class _ToProgram(logging.Handler):
    """Hand records to a logger as it was before `package_logs`.

    Tracebacks are left out, since `error.txt` has them.
    """

    def __init__(self, package: logging.Logger) -> None:
        super().__init__()
        self.addFilter(make_printable)
        self._before = logging.Logger(package.name, package.level)
        self._before.handlers, self._before.parent = list(package.handlers), package.parent
        self._before.propagate = package.propagate

    def emit(self, record: logging.LogRecord) -> None:
        wanted = record.levelno >= self._before.getEffectiveLevel() and self._before.hasHandlers()
        if wanted and not record.exc_info:
            self._before.handle(record)
