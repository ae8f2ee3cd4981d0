"""Turn Ctrl-C, SIGTERM and SIGHUP into exceptions, which end runs as KILLED.

An exception in one of TensorFlow's destructors is lost or aborts the process, so a signal is deferred to the end of a
batch or a file. Nothing interrupts the code that records how a run ended.
"""

import _thread
import atexit
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mnist_exp.ends import CTRL_C, HANGUP, TERMINATION, End, Interrupted, Terminated

_SECONDS_OF_ONE = 1.0  # kernel, shell and scheduler send several signals for one reason
_HANGUP = getattr(signal, "SIGHUP", 0)  # Windows has none
_ENDS: dict[int, End] = {signal.SIGINT: CTRL_C, signal.SIGTERM: TERMINATION, _HANGUP: HANGUP}


class _State:
    received = 0  # the last signal
    came_at = 0.0  # seconds by the monotonic clock
    is_deferred = is_hurried = False
    closing = 0  # blocks, one in another


def install() -> None:
    """Make SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP Terminated.

    Signals within a second count as one. A process that `nohup` started still ignores SIGHUP.
    """
    clear()
    _State.is_hurried = False
    for number in filter(None, _ENDS):
        if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)
        if sys.unraisablehook is not _send_again:  # a late signal would change the exit code
            atexit.register(signal.signal, number, signal.SIG_IGN)
    sys.unraisablehook = _send_again


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer a signal to `raise_if_received` or the end of the block.

    A second signal raises at once.
    """
    _State.is_deferred = True
    try:
        yield
    finally:
        _State.is_deferred = False
    raise_if_received()


@contextmanager
def shield_end() -> Iterator[None]:
    """Raise nothing in the block, which records how a run ended.

    The end of the block raises for the first signal that came in it.
    """
    before = _State.received
    _State.closing += 1
    try:
        yield
    finally:
        _State.closing -= 1
    if not before:
        raise_if_received()


def raise_if_received() -> None:
    """Raise the exception of a signal that was received, if any, outside `shield_end`."""
    if _State.received and not _State.closing:
        end = _ENDS[_State.received]
        raise end.exception(end.exit_code)


def clear() -> None:
    """Forget a signal whose exception has done its work."""
    _State.received = 0


def is_interrupted_again() -> bool:
    """Return whether a signal came in `shield_end`, whose waits then end."""
    return _State.is_hurried


def _has_terminal() -> bool:
    with suppress(OSError), open("/dev/tty"):
        return True
    return False


_had_terminal = _has_terminal()


def _handle(number: int, _frame: FrameType | None) -> None:
    first, now = not _State.received, time.monotonic()
    if number == _HANGUP:
        is_gone = _had_terminal and not _has_terminal()  # the output's reader has gone, too
        for stream in (1, 2):
            if is_gone or os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if first or now - _State.came_at >= _SECONDS_OF_ONE:
        _State.received, _State.came_at = number, now
        _State.is_hurried |= _State.closing > 0
        if not (_State.is_deferred and first):
            raise_if_received()


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose exception Python ignored, as in a finalizer."""
    if isinstance(unraisable.exc_value, Interrupted | Terminated):
        _thread.start_new_thread(_send, (_State.received,))  # a Thread takes locks, and may be what is finalized
        clear()
    else:
        sys.__unraisablehook__(unraisable)


def _send(number: int) -> None:
    time.sleep(0.01)  # the hook returns first
    os.kill(os.getpid(), number)
