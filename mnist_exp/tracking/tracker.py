"""Open the record of a run or a sweep, and its mirror if a store is configured."""

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from mnist_exp.config.schema import MLflowTracking, NoTracking
from mnist_exp.ends import find_end
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking import store
from mnist_exp.tracking.environment import sweep_record
from mnist_exp.tracking.folder import Folder, relative_path
from mnist_exp.tracking.reading import close_in_store
from mnist_exp.tracking.record import Run, recording
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import Parent, SweepRecord, begin_sweep
from mnist_exp.tracking.uploads import Uploads
from mnist_exp.tracking.views import show_all, show_sweep

_SECONDS_OF_A_SHORT_JOB = 10.0


@contextmanager
def open_run(experiment: Experiment, together: int) -> Iterator[Run]:
    """Record a run to its end: FINISHED, FAILED, or KILLED after a signal.

    This one and the others, `together` in number, train as one program.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    run, settings = Run(experiment, together), experiment.config.tracking
    if isinstance(settings, NoTracking):
        with recording(run):
            yield run
        return
    reached, abandoned = _reach(settings)
    uploads = Uploads(reached, lambda: [run.folder, *abandoned], cache(partial(show_all, reached)))
    try:
        with recording(run):
            with store.store_errors(settings.uri):
                run.id = uploads.begin(run.folder)
            text = f"Run {run.id} in experiment {settings.experiment}, files in {relative_path(run.folder.path)}"
            page = f"#/experiments/{reached.experiment_id}/runs/{run.id}/model-metrics?workflowType=machine_learning"
            run.place = store.add_link(text, settings, page)
            yield run
    finally:
        error = sys.exc_info()[1]
        run.left_out = uploads.finish(find_end(error))
        run.registered = uploads.report_registrations()
        if error is not None and run.left_out and experiment.prints:
            print(run.left_out, file=sys.stderr)


@contextmanager
def open_sweep(sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
    """Record a sweep, or with `resume` continue the last one with this signature.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    settings = sweep.config.tracking
    reached = None if isinstance(settings, NoTracking) else _reach(settings)
    with begin_sweep(sweep, sweep_record(sweep, signature)) as record:
        known = settings if isinstance(settings, NoTracking) else replace(settings, uri=record.tracking["uri"])
        opened = SweepRecord(Parent(record.id, "", known, tuple(sweep.swept), sweep.folder, record.attempt))
        if reached is None or isinstance(settings, NoTracking):
            yield opened
            return
        to, abandoned = reached
        opened.uploads = Uploads(to, partial(_folders, opened, abandoned), partial(_look, opened, to))
        try:
            with store.store_errors(settings.uri):
                opened.parent = replace(opened.parent, run_id=opened.uploads.begin(opened.folder))
            yield opened
        finally:
            opened.uploads.close()


def join_sweep(parent: Parent) -> SweepRecord:
    """Return a sweep's record in the process of one of its jobs.

    Raises:
        InputError: if this process does not see the sweep's folder.
    """
    with suppress(InputError):
        if Folder(parent.folder).read().id == parent.id:
            return SweepRecord(parent)
    raise InputError(
        f"hydra.sweep.dir={parent.folder}: {socket.gethostname()} does not see this sweep's folder; jobs on several "
        "machines need a folder on a disk that all of them share"
    )


def send_rest(settings: MLflowTracking | NoTracking, folder: Folder) -> str:
    """Send the rest of a finished run to the store, and return a line on it, or ""."""
    if isinstance(settings, NoTracking):
        return ""
    with store.store_errors(settings.uri):
        uploads = Uploads(store.connect(settings), lambda: [folder])
    uploads.start()
    left_out = uploads.finish()
    return "; ".join(filter(None, [*uploads.report_registrations(), left_out]))


def _reach(settings: MLflowTracking) -> tuple[store.Store, list[Folder]]:
    """Return the store, and the folders of the runs in it that lost their process."""
    with store.store_errors(settings.uri):
        reached = store.connect(settings)
        return reached, close_in_store(reached)


def _folders(sweep: SweepRecord, abandoned: Sequence[Folder]) -> list[Folder]:
    """Return the folders to mirror for a sweep, new jobs once they last or end."""
    short = {Path(job.output) for job in sweep.tries() if job.status == "RUNNING" and _has_just_begun(job)}
    jobs = [Folder(path.parent) for path in sorted(sweep.folder.path.glob("*/run.json")) if path.parent not in short]
    reused = [Folder(Path(job.output)) for job in sweep.reused() if Folder(Path(job.output)).is_there()]
    return [sweep.folder, *jobs, *abandoned, *reused]


def _look(sweep: SweepRecord, to: store.Store) -> None:
    """Write the saved view of a sweep once a job is in the store."""
    if sweep.has_view is None and any(job.run_id for job in sweep.tries()):
        sweep.has_view = show_sweep(to, sweep.folder, sweep.folder.read(), sweep.parent.run_id)


def _has_just_begun(job: Record) -> bool:
    """Return whether a job began less than ten seconds ago.

    One that ends sooner is sent once.
    """
    with suppress(OSError):
        return 0 <= time.time() - Path(job.output, "run.json").stat().st_mtime < _SECONDS_OF_A_SHORT_JOB
    return False
