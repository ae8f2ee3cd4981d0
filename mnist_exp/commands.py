"""Parse arguments and handle errors of the commands beside `python -m mnist_exp`."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from mnist_exp import signals
from mnist_exp.config.files import MAX_TEXT_BYTES, NoFileError, open_file
from mnist_exp.config.overrides import check_brace_expansion, refuse_passwords
from mnist_exp.config.own_code import PACKAGE
from mnist_exp.ends import CTRL_C
from mnist_exp.errors import InputError
from mnist_exp.text import printable_lines, traceback_in, traceback_text

# The metadata that `figures.write` gives a .png, a .pdf and a .svg.
_DRAWN = re.compile(
    rb"\x89PNG.*tEXtCreator\0mnist_exp|%PDF.*/Creator \(mnist_exp\)|<\?xml.*<dc:creator>.{0,99}mnist_exp", re.DOTALL
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        try:
            refuse_passwords(sys.argv)
        except InputError as error:
            message = str(error)
        super().error(printable_lines(message))


def parser(module: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser for `python -m mnist_exp.MODULE`.

    Args:
        module: without the package, such as "compare".
        description: what the command does.
        examples: commands that end its --help.
    """
    return _Parser(
        prog=f"python -m mnist_exp.{module}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Exit as `ends.py` says: one message after bad input, a traceback after a bug.

    An error in the user's own code shows the traceback from there.
    """
    signals.install()
    try:
        refuse_passwords(sys.argv)
        check_brace_expansion(sys.argv[1:])
        yield
    except InputError as error:
        sys.exit(traceback_in(PACKAGE, error) + str(error))
    except KeyboardInterrupt:
        sys.exit(CTRL_C.exit_code)
    except BrokenPipeError:  # from | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python still flushes its output at exit
        sys.exit(141)
    except Exception as error:
        sys.exit((traceback_in(PACKAGE, error) or traceback_text(error)).rstrip())


def check_plot(path: Path) -> None:
    """Check that `path` can be written, and is new or a figure of this program."""
    can_be_written = os.access(path.absolute().parent, os.W_OK | os.X_OK)
    if path.suffix.lower() not in {".png", ".pdf", ".svg"} or not can_be_written:
        raise InputError(f"--plot {path}: must be a .png, .pdf or .svg file in a folder that can be written")
    check_drawn(path, f"--plot {path}")


def check_drawn(path: Path, where: str) -> None:
    """Raise InputError, led by `where`, for a file that this program did not draw."""
    with suppress(NoFileError), open_file(path, where, most=MAX_TEXT_BYTES) as file:
        if not _DRAWN.match(file.read()):
            raise InputError(f"{where}: was not drawn by this program; choose another name")
