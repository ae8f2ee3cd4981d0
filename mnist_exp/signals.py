"""Turn Ctrl-C, SIGTERM and SIGHUP into exceptions, so that a run can still be recorded as KILLED.

An exception inside one of TensorFlow's destructors is lost or aborts the process, as in one of 25 interrupted runs. So
training defers the signal to the end of the batch, or of several short ones. Whoever records how a run ended is not
interrupted at all. Where Python ignores exceptions (in finalizers and callbacks of weak references), the signal is
raised again afterwards.
"""

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

_SECONDS_OF_ONE = 1.0  # kernel, shell and scheduler send several signals for one reason
_SECONDS_UNTIL_AGAIN = 0.01

_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_NUMBERS = (signal.SIGINT, signal.SIGTERM, _HANGUP)
_terminals: set[int] = set()
_pipes: set[int] = set()  # of a process that has a terminal, which the programs that read them have too
_received: int | None = None
_when = 0.0  # by the monotonic clock
_deferred = False
_closing = 0  # blocks of `closing`, one in another
_left = False  # a signal that a block of `closing` has kept from being raised
_hurried = False
_ignored = False  # the exception of a signal was raised where Python ignores it
_report_ignored: Callable[["sys.UnraisableHookArgs"], object] | None = None


class _Interrupt(KeyboardInterrupt):
    """Once KeyboardInterrupt itself came through the exec of a string, `python -m` sends itself SIGINT at its end."""


class Terminated(SystemExit):
    """SIGTERM or SIGHUP; `code` is 128 plus the signal's number."""


def install() -> None:
    """Make SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP Terminated.

    What follows within a second is the same signal. A process that `nohup` started still ignores SIGHUP.
    """
    global _received, _hurried, _ignored, _report_ignored
    _received, _hurried, _ignored = None, False, False
    if _report_ignored is None:
        _report_ignored, sys.unraisablehook = sys.unraisablehook, _raise_again
        atexit.register(_ignore_signals)
    for number in _NUMBERS:
        if number is not None and (number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN):
            signal.signal(number, _handle)
    _terminals.update(filter(os.isatty, (1, 2)))
    _pipes.update({1, 2} - _terminals if _has_terminal() else ())


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal to `raise_if_received` or the end of the block; another one raises at once."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    raise_if_received()


@contextmanager
def closing() -> Iterator[None]:
    """Raise nothing in the block, which records how a run ended; what it waits for ends at once, as `hurried` says.

    The end of the block raises for the first signal that came in it, unless an exception ends it.
    """
    global _closing, _left
    _closing += 1
    try:
        yield
    finally:
        _closing -= 1
    if _left and not _closing:
        _left = False
        raise_if_received()


def raise_if_received() -> None:
    """Raise the exception of a signal that was received, if any, outside `closing`."""
    if _received is not None and not _closing:
        _raise(_received)


def forget() -> None:
    """Let a signal whose exception has done its work be as if it had not come."""
    global _received
    _received = None


def hurried() -> bool:
    """Return whether a signal came in a block of `closing`."""
    return _hurried


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _handle(number: int, _frame: FrameType | None) -> None:
    global _received, _when, _hurried, _left, _ignored
    if _ignored:
        _ignored, _left = False, _left or bool(_closing)
        if not _deferred:
            raise_if_received()
        return
    now = time.monotonic()
    first, same = _received is None, _received is not None and now - _when < _SECONDS_OF_ONE
    if number == _HANGUP:  # kernel and shell both send it, and the terminal is gone
        signal.signal(number, signal.SIG_IGN)
        for stream in _terminals if _has_terminal() else _terminals | _pipes:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if same:
        return
    _received, _when = number, now
    if _closing:
        _hurried, _left = True, _left or first
    elif not (_deferred and first):
        _raise(number)


def _ignore_signals() -> None:
    """Let the process end with the exit status that it has, which a signal would change after Python's handlers."""
    for number in _NUMBERS:
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt the main thread once more, shortly after this hook has returned, for a signal that was lost."""
    if "atexit" in (unraisable.err_msg or "") or not _comes_from_here(unraisable.exc_traceback):
        assert _report_ignored is not None
        _report_ignored(unraisable)
    else:
        _thread.start_new_thread(_interrupt_main_thread, ())  # a Thread would take locks, and may be what is finalized


def _interrupt_main_thread() -> None:
    global _ignored
    time.sleep(_SECONDS_UNTIL_AGAIN)
    if signal.getsignal(signal.SIGINT) is not _handle:
        return
    _ignored = True
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # which ends a wait for the system, too


def _comes_from_here(traceback: TracebackType | None) -> bool:
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code is _raise.__code__


def _raise(number: int) -> NoReturn:
    raise _Interrupt if number == signal.SIGINT else Terminated(128 + number)
