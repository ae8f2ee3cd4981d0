"""Ctrl-C and SIGTERM raise an exception, so that a run can still be recorded as KILLED.

If a signal handler raises inside one of TensorFlow's destructors, the exception is lost or the process aborts: this
happened in one of about 25 interrupted runs. So training defers the signal to the end of the batch.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_received: int | None = None
_deferred = False


def install() -> None:
    """Raise KeyboardInterrupt on SIGINT and SystemExit(143) on SIGTERM, for the rest of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal to `raise_if_received` or the end of the block; raise a second one at once."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    raise_if_received()


def raise_if_received() -> None:
    """Raise the exception of a signal that was received since `install`, if there was one."""
    if _received is not None:
        _raise(_received)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, number
    if not (_deferred and first):
        _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
