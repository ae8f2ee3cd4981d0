"""What a program that calls `run` or `sweep` sees in its log. Imports nothing heavy."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mnist_exp.text import make_printable
from mnist_exp.tracking.folder import package_logs

_SILENT = logging.CRITICAL + 1


@contextmanager
def logs_to_program() -> Iterator[None]:
    """Give the logger `mnist_exp`'s records to the program's handlers, from the program's level on, without passwords.

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
    """Hands records to a logger as it was before `package_logs`; a traceback is in `error.txt`, its error is raised."""

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
