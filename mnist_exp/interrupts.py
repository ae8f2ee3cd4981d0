"""Turn Ctrl-C, SIGTERM and SIGHUP into exceptions, so that a run can still be recorded as KILLED.

An exception inside one of TensorFlow's destructors is lost or aborts the process, as in one of 25 interrupted runs. So
training defers the signal to the end of the batch.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_terminals: set[int] = set()
_received: int | None = None
_deferred = False


def install() -> None:
    """Make SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP SystemExit with 128 plus the signal's number.

    A process that `nohup` started still ignores SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGTERM, _HANGUP):
        if number is not None and (number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN):
            signal.signal(number, _handle)
    _terminals.update(filter(os.isatty, (1, 2)))


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal to `raise_if_received` or the end of the block; a second one raises at once."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    raise_if_received()


def raise_if_received() -> None:
    """Raise the exception of a signal that was received, if any."""
    if _received is not None:
        _raise(_received)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, number
    if number == _HANGUP:  # kernel and shell both send it, and the terminal is gone
        signal.signal(number, signal.SIG_IGN)
        for stream in _terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if not (_deferred and first):
        _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
