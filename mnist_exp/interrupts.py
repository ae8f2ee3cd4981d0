"""Ctrl-C and SIGTERM end a run as an exception, so that it can still be recorded as KILLED.

An exception that a signal handler raises is lost where Python runs a destructor just then, and TensorFlow has many: in
1 of about 25 interrupted runs it trained on. So training also asks, after each batch, whether a signal came.
"""

import signal
from types import FrameType
from typing import NoReturn

_received: int | None = None


def install() -> None:
    """Handle SIGINT and SIGTERM for the rest of the process: as KeyboardInterrupt, and SystemExit with 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def raise_if_received() -> None:
    """Raise again what a signal raised, if one came since `install`."""
    if _received is not None:
        _raise(_received)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _received
    _received = number
    _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
