"""Mirror folders into a store in a thread, during a command or later.

Only a command's end waits for it.
"""

import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mnist_exp import signals
from mnist_exp.ends import FINISHED, End
from mnist_exp.errors import InputError
from mnist_exp.text import redact_uri, truncate
from mnist_exp.tracking.folder import Folder, Mirrored, relative_path
from mnist_exp.tracking.mirror import BusyError, mirror
from mnist_exp.tracking.store import Store, explain, is_default

_SECONDS_BETWEEN_PASSES = 2.0  # several short epochs at a time
_SHARE = 0.1  # share of the time, which training in this process loses
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds; after a failure, it doubles each time

log = logging.getLogger(__name__)


class Uploads:
    """Mirrors those of the `folders` that changed, until it is closed.

    `folders` is called again and again; `watch` after each pass without a failure, in this thread, too. A folder that
    the store can never take is tried once; `refused` says why, by its path.
    """

    def __init__(
        self, store: Store, folders: Callable[[], Iterable[Folder]], watch: Callable[[], None] = lambda: None
    ) -> None:
        self.store, self.reason = store, ""  # why the last pass failed, "" if it did not
        self.refused: dict[Path, str] = {}
        self._folders, self._watch = folders, watch
        self._sent: dict[Path, tuple[tuple[int, ...], Mirrored]] = {}  # each folder's state when it was sent
        self._failing: set[Path] = set()  # these are tried last
        self._steps = self._idle = 0  # folders sent; passes that had nothing to do
        self._wake = threading.Condition()
        self._hurried = self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self, folder: Folder) -> str:
        """Send a folder now, start the thread, and return the run's id in the store.

        Raises:
            InputError, MlflowException: if the store cannot be written.
        """
        self._send(folder)
        self.start()
        return self._sent[folder.path][1].run_id

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, seconds: float, at_most: float = math.inf) -> list[Folder]:
        """Wait until all is sent, or no progress was made for so many seconds.

        Return the folders that remain.
        Ctrl-C ends the wait, as do `at_most` seconds.
        """
        with self._wake:
            wanted, self._hurried = self._idle + 2, True  # a pass may have begun before the last change
            self._wake.notify_all()
            steps, start = self._steps, time.monotonic()
            since = start
            try:
                while self._idle < wanted and self._thread.is_alive() and not signals.is_interrupted_again():
                    if (now := time.monotonic()) - since > seconds or now - start > at_most:
                        break
                    self._wake.wait(0.2)
                    if self._steps > steps:
                        steps, since = self._steps, time.monotonic()
            except KeyboardInterrupt:
                signals.clear()
                log.info("interrupted while the store was waited for")
            finally:
                self._hurried = False
            return [] if self._idle >= wanted else self._due()

    def send_all(self, seconds: float) -> list[Folder]:
        """Send in this thread until all is sent, or nothing moved for `seconds`.

        Return the records that remain.
        """
        steps, since = 0, time.monotonic()
        while True:
            self._pass()
            if self._steps > steps:
                steps, since = self._steps, time.monotonic()
            left = self._due()
            if not left or time.monotonic() - since > seconds:
                return left
            time.sleep(_FIRST_PAUSE)

    def _due(self) -> list[Folder]:
        return [folder for folder in self._folders() if self._is_due(folder)]

    def finish(self, end: End = FINISHED) -> str:
        """Wait for the store, and end the thread.

        Return a line on the missing records, or "".
        """
        left = self.wait(end.seconds) if self._thread.is_alive() else []
        self.close()
        paths = [folder.path for folder in left] or list(self.refused)
        if not paths:
            return ""
        settings = self.store.settings
        address, name = redact_uri(settings.uri), shlex.quote(relative_path(Path(os.path.commonpath(paths))))
        if not left:
            return f"{name}: {address} does not take it ({self.refused[paths[0]]})"
        place = f" tracking.uri={address}" if not is_default(settings.uri) else ""
        place += f" tracking.register={settings.register}" if settings.register is not None else ""
        return (
            f"Not all of {name} has reached {address} ({self.reason or 'no answer'}); "
            f"python -m mnist_exp.sync {name}{place} sends the rest"
        )

    def report_registrations(self) -> list[str]:
        """Return a line on how each model that was to be registered was."""
        return [mirrored.registered for _, mirrored in list(self._sent.values()) if mirrored.registered]

    def close(self) -> None:
        """Ask the thread to end, without waiting for it."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def _work(self) -> None:
        failures = 0
        while not self._closed:
            began = time.monotonic()
            failed = self._pass()
            took = time.monotonic() - began
            failures = failures + 1 if failed else 0
            pause = min(max(took / _SHARE, _SECONDS_BETWEEN_PASSES), _LONGEST_PAUSE)
            with self._wake:
                self._wake.notify_all()
                if failed:
                    longest = _FIRST_PAUSE if self._hurried else _LONGEST_PAUSE
                    self._wake.wait(min(_FIRST_PAUSE * 2 ** min(failures - 1, 5), longest))
                elif not (self._hurried or self._closed):
                    self._wake.wait(pause)

    def _pass(self) -> bool:
        """Send changes, and return whether any failed.

        After two failures, do not try the store again.
        """
        failures, steps = list[Exception](), self._steps
        try:
            for folder in sorted(self._folders(), key=lambda folder: folder.path in self._failing):
                if self._closed or len(failures) > 1:
                    break
                self._try(folder, failures)
            if not failures:
                self._watch()
        except Exception as error:  # a damaged folder, or a store, which raises anything
            failures.append(error)
        reason = _shown(failures[0]) if failures else ""
        if reason and reason != self.reason:
            log.info("the store did not take everything, which is tried again: %s", reason)
        self.reason = reason
        self._idle += not failures and self._steps == steps
        return bool(failures)

    def _try(self, folder: Folder, failures: list[Exception]) -> None:
        """Send a folder that has changed, and add a failure that another try may change."""
        try:
            if self._is_due(folder):
                self._send(folder)
            self._failing.discard(folder.path)
        except BusyError:  # the other process sends it
            pass
        except Exception as error:  # a store raises anything, and its mirror never ends a training
            if _is_final(error):
                self._refuse(folder, error)
                return
            failures.append(error)
            self._failing.add(folder.path)

    def _send(self, folder: Folder) -> None:
        state = _state(folder)
        self._sent[folder.path] = state, mirror(folder, self.store)
        self.refused.pop(folder.path, None)
        with self._wake:
            self._steps += 1

    def _refuse(self, folder: Folder, error: Exception) -> None:
        """Leave a folder until it changes."""
        with suppress(OSError):  # somebody has deleted it
            self._sent[folder.path] = _state(folder), Mirrored()
            self.refused[folder.path] = _shown(error)
            log.info("%s: the store does not take it: %s", folder.path, self.refused[folder.path])

    def _is_due(self, folder: Folder) -> bool:
        """Return whether a folder has changed since it was sent."""
        with suppress(OSError):  # somebody has deleted it
            state = _state(folder)
            return folder.path not in self._sent or self._sent[folder.path][0] != state
        return False


def _is_final(error: Exception) -> bool:
    """Return whether no other try changes an error, such as that of a lone surrogate."""
    return isinstance(error, InputError) or isinstance(error.__cause__, UnicodeError | OverflowError)


def _shown(error: Exception) -> str:
    return truncate(explain(error), 300)


def _state(folder: Folder) -> tuple[int, ...]:
    """Return a value that changes whenever there is something to send."""
    record, metrics = (folder.path / "run.json").stat(), folder.path / "metrics.jsonl"
    return record.st_ino, record.st_mtime_ns, metrics.stat().st_size if metrics.exists() else 0
