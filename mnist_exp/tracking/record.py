"""Record a run in its folder, which a store mirrors."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from omegaconf import OmegaConf

from mnist_exp import signals
from mnist_exp.config.files import write_text
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.data.datasets import Data
from mnist_exp.ends import FAILED, FULL_DISK, as_folder_error, find_end, find_signal
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, experiment_key, experiment_signature
from mnist_exp.text import printable, say, traceback_text, truncate
from mnist_exp.tracking import index
from mnist_exp.tracking.environment import code_patch, describe_data, make_config, run_record
from mnist_exp.tracking.folder import Folder

log = logging.getLogger(__name__)


class Run:
    """The record of an experiment, in a folder whose lock is held.

    It is one of `together` experiments that train as one program. `id` is MLflow's, once the run is there too; `place`,
    `left_out` and `registered` are lines about it there. Unless `keeps_all`, the run is a sweep's job, whose figures
    and logged model are made only if it is the best.
    """

    id: str | None = None
    place: Sequence[str] = ()
    registered: Sequence[str] = ()
    left_out = ""

    def __init__(self, experiment: Experiment, together: int = 1) -> None:
        settings = experiment.config.tracking
        self.keeps_all = experiment.child is None or (isinstance(settings, MLflowTracking) and settings.keep == "all")
        self.folder = Folder(experiment.output)
        self.begun = False
        self._experiment, self._record = experiment, run_record(experiment, together)
        self._unwritten: list[tuple[int, Mapping[str, float]]] = []

    def begin(self) -> None:
        """Begin the folder, or go on in that of an interrupted run."""
        experiment, path = self._experiment, self.folder.path
        patch = code_patch() if experiment.child is None else ""  # a job's sweep has it
        tags = self._record.tags | (self._note(experiment.digest) if experiment.digest else {})
        record = replace(self._record, tags=tags)
        self.begun = True
        if experiment.resumes:
            self.folder.reopen(record)
        else:
            self.folder.begin(record, experiment.config.code, patch)
        if experiment.child is None:
            log.info("%s %s, in %s", record.name, "goes on" if experiment.resumes else "begins", path)
        write_text(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(make_config(experiment.config))))

    def log_data(self, data: Data) -> None:
        """Record the data, and the experiment's signature, which depends on it."""
        log.debug(
            "%s: %d training images, digest %s", data.name, len(data.x_train), data.digest,
            extra={"output": self.folder.path},
        )  # fmt: skip
        self.folder.change(data=describe_data(data), tags=self._note(data.digest))

    def _note(self, digest: str) -> dict[str, str]:
        """Index this experiment by the digest of its data, and return its tags."""
        key, signature = (of(self._experiment.config, digest) for of in (experiment_key, experiment_signature))
        index.add(key, self.folder.path)
        return {"mnist_exp.signature": signature, index.KEY: key}

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, counted from 1.

        Lines that cannot be written are tried again with the next epoch.
        """
        log.debug("epoch %d %s", epoch, dict(metrics), extra={"output": self.folder.path})
        self._unwritten.append((epoch, metrics))
        try:
            self._write_epochs()
        except OSError as error:  # such as a full disk, which is no reason to lose what has been learned
            log.warning("the metrics are kept back: %s", failure_reason(error), extra={"output": self.folder.path})

    def _write_epochs(self) -> None:
        while self._unwritten:
            self.folder.measure(*self._unwritten[0])
            del self._unwritten[0]

    def log_pruned(self, epoch: int) -> None:
        """Mark the run as stopped as hopeless after an epoch, counted from 1."""
        log.debug("pruned after epoch %d", epoch, extra={"output": self.folder.path})
        with suppress(OSError):  # a full disk is no reason to lose the others of a stack
            self.folder.change(tags={"mnist_exp.pruned": str(epoch)})

    def log_scores(self, scores: Mapping[str, float], kept_epoch: int) -> None:
        """Record the scores of the weights of `kept_epoch`, counted from 1, in the folder."""
        self._write_epochs()
        self.folder.measure(0, scores)
        self.folder.change(scores=dict(scores), kept_epoch=kept_epoch, stage="scored")

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED for a reason, or KILLED."""
        self.folder.end(status, tags={"mnist_exp.error": reason} if reason else {})
        if status != "FINISHED" and self.id is not None:
            log.info("Run %s is %s", self.id, status)
            if self._experiment.prints:
                # A progress bar may have left the cursor in the middle of a line.
                print(f"{os.linesep if sys.stdout.isatty() else ''}Run {self.id} is {status}", file=sys.stderr)

    def describe(self) -> str:
        """Return where to look at the run."""
        lines = [*self.registered, *self.place, self.left_out] if self.id else [f"Files in {self.folder.path}"]
        return "\n".join(map(printable, filter(None, lines)))


@contextmanager
def recording(run: Run) -> Iterator[Run]:
    """Begin a run, end it with the block, and write a traceback to `error.txt`.

    Raises:
        InputError: if its folder cannot be written, as on a full disk.
    """
    folder = run.folder
    try:
        run.begin()
        yield run
        run.end("FINISHED")
    except BaseException as error:
        if not run.begun:
            raise
        with signals.shield_end():
            failure = _end_early(run, error)
        if failure is not error:
            raise failure from None
        raise
    finally:  # also where a signal came before `shield_end`
        if run.begun:
            with signals.shield_end(), suppress(OSError, InputError):
                if folder.read().status == "RUNNING":
                    folder.end("KILLED")


def _end_early(run: Run, error: BaseException) -> BaseException:
    """End a run after an exception, and return the exception to raise.

    A signal takes precedence over an error that it caused.
    """
    path, error = run.folder.path, find_signal(error) or error
    failure = as_folder_error(error, path)
    end = find_end(failure)
    log.error("%s", end.status, exc_info=error, extra={"output": path})
    if end is FAILED:
        with suppress(OSError):
            write_text(path / "error.txt", traceback_text(error))
    try:
        run.end(end.status, failure_reason(failure) if isinstance(error, Exception) else "")
    except (OSError, InputError) as second:  # the first error is the one to show
        if end is not FULL_DISK:
            say(f"{end.status} could not be recorded: {as_folder_error(second, path)}", sys.stderr)
    return failure


def failure_reason(error: BaseException) -> str:
    """Return the first printable line of an error, at most 300 characters.

    Its class is named unless it is bad input.
    """
    line = (str(error).splitlines() or [""])[0]
    return truncate(line if isinstance(error, InputError) else f"{type(error).__name__}: {line}", 300)
