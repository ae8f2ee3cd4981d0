"""A thread that mirrors folders into a store while they grow; nothing waits for it but the end of a command."""

import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import signals
from mnist_exp.config.redaction import printable, shown_address, without_secrets
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.ends import FINISHED, End
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder, from_here
from mnist_exp.tracking.mirror import Sent, mirror

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SECONDS_BETWEEN_PASSES = 2.0  # several short epochs at a time
_SHARE = 0.1  # of the time, which the thread takes from a training in this process
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds; after a failure, it doubles each time

log = logging.getLogger(__name__)


class Uploads:
    """Mirrors those of the `folders` that changed, until it is closed.

    `folders` is called again and again; `watch` after each pass without a failure, in this thread, too.
    """

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        settings: MLflowTracking,
        folders: Callable[[], Iterable[Folder]],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.reason = ""  # why the last pass failed, "" if it did not
        self._client, self.experiment_id = client, experiment_id
        self._settings, self._folders, self._watch = settings, folders, watch
        self._known: dict[Path, _Known] = {}
        self._failing: set[Path] = set()  # which are tried last
        self._steps = self._passes = 0  # folders that were sent; passes without a failure
        self._wake = threading.Condition()
        self._hurried = self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self, folder: Folder) -> str:
        """Send a folder in this thread, start the other, and return the id of the folder's run.

        Raises:
            InputError, MlflowException: if the store cannot be written.
        """
        self._send(folder)
        self.start()
        return self._known[folder.path].sent.run_id

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, seconds: float, at_most: float = math.inf) -> list[Folder]:
        """Wait until all has been sent, or so many seconds brought no progress; return the folders that are left.

        Ctrl-C ends the wait, as do `at_most` seconds.
        """
        with self._wake:
            wanted, self._hurried = self._passes + 2, True  # a pass may have begun before the last change
            self._wake.notify_all()
            steps, start = self._steps, time.monotonic()
            since = start
            try:
                while self._passes < wanted and self._thread.is_alive() and not signals.hurried():
                    if (now := time.monotonic()) - since > seconds or now - start > at_most:
                        break
                    self._wake.wait(0.2)
                    if self._steps > steps:
                        steps, since = self._steps, time.monotonic()
            except KeyboardInterrupt:
                signals.forget()
                log.info("interrupted while the store was waited for")
            self._hurried = False
            return [] if self._passes >= wanted else [one for one in self._folders() if self._has_changed(one)]

    def finish(self, end: End = FINISHED) -> str:
        """Wait for the store as an end does, end the thread, and return a line about what the store lacks, or ""."""
        left = self.wait(end.seconds) if self._thread.is_alive() else []
        self.close()
        if not left:
            return ""
        settings = self._settings
        place = f" tracking.uri={shown_address(settings.uri)}" if not store.is_default(settings.uri) else ""
        place += f" tracking.register={settings.register}" if settings.register is not None else ""
        name = shlex.quote(from_here(Path(os.path.commonpath([folder.path for folder in left]))))
        return (
            f"Not all of {name} has reached {shown_address(settings.uri)} ({self.reason or 'no answer'}); "
            f"python -m mnist_exp.sync {name}{place} sends the rest"
        )

    def registered(self, folder: Folder) -> str:
        """Return how a folder's model was registered, if it was to be."""
        known = self._known.get(folder.path)
        return known.sent.registered if known is not None else ""

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
                self._passes += not failed
                self._wake.notify_all()
                if failed:
                    longest = _FIRST_PAUSE if self._hurried else _LONGEST_PAUSE
                    self._wake.wait(min(_FIRST_PAUSE * 2 ** min(failures - 1, 5), longest))
                elif not (self._hurried or self._closed):
                    self._wake.wait(pause)

    def _pass(self) -> bool:
        """Send what has changed; return whether something failed. After two failures, the store is left alone."""
        failures: list[Exception] = []
        folders = {path: Folder(path) for path in self._known}  # also those that somebody has deleted
        try:
            folders |= {folder.path: folder for folder in self._folders()}
        except Exception as error:
            failures.append(error)
        for folder in sorted(folders.values(), key=lambda one: one.path in self._failing):
            if self._closed or len(failures) > 1:
                break
            try:
                if self._has_changed(folder):
                    self._send(folder)
                self._failing.discard(folder.path)
            except Exception as error:  # a store raises anything, and its mirror never ends a training
                failures.append(error)
                self._failing.add(folder.path)
        if not failures:
            try:
                self._watch()
            except Exception as error:
                failures.append(error)
        reason = printable(without_secrets(store.explained(failures[0])))[:300] if failures else ""
        if reason and reason != self.reason:
            log.info("the store did not take everything, which is tried again: %s", reason)
        self.reason = reason
        return bool(failures)

    def _send(self, folder: Folder) -> None:
        known, state = self._known.get(folder.path), _state(folder)
        if state is not None:
            before = None if known is None else known.sent
            sent = mirror(self._client, self.experiment_id, folder, before, register=self._settings.register)
            self._known[folder.path] = _Known(sent, state)
        elif known is not None:  # somebody deleted the folder
            if known.sent.status == "RUNNING":
                self._client.set_terminated(known.sent.run_id, "FAILED")
            del self._known[folder.path]
        with self._wake:
            self._steps += 1

    def _has_changed(self, folder: Folder) -> bool:
        known, state = self._known.get(folder.path), _state(folder)
        if known is None or state != known.state:
            return known is not None or state is not None
        return known.sent.status == "FINISHED" and folder.has_model()


@dataclass(frozen=True)
class _Known:
    """What was sent of a folder, and in which state it was then."""

    sent: Sent
    state: tuple[int, ...]


def _state(folder: Folder) -> tuple[int, ...] | None:
    """Return what changes whenever there is something to send; None for a folder that is gone."""
    try:
        record = (folder.path / "run.json").stat()
    except FileNotFoundError:
        return None
    metrics = folder.path / "metrics.jsonl"
    return record.st_ino, record.st_mtime_ns, metrics.stat().st_size if metrics.exists() else 0
