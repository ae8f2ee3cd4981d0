"""`tracking=none`: runs and sweeps are recorded in their folders, and nowhere else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking.environment import code_patch, run_record, sweep_record
from mnist_exp.tracking.job import Job
from mnist_exp.tracking.record import Parent, Run, SweepRecord, ended


class FolderTracker:
    """`tracking=none`."""

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        """Record a run in its folder alone."""
        record = run_record(experiment, together, None, {})
        with ended(Run(experiment, record, keeps_all=experiment.child is None)) as run:
            yield run

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        """Record a sweep in its folder alone."""
        parent = Parent("", sweep.config.tracking, tuple(sweep.swept), sweep.folder, Path.cwd(), os.getpid())
        opened = SweepRecord(parent, {})
        opened.folder.begin(sweep_record(sweep, signature, None, {}), sweep.config.code, code_patch())
        yield opened

    def join_sweep(self, parent: Parent) -> SweepRecord:
        """Return a sweep's record, from the process of one of its jobs."""
        return SweepRecord(parent, {})

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """Return None: there is no store to look in."""
        return None

    def is_store(self, path: Path) -> bool:  # noqa: ARG002
        """Return whether a database file is this tracker's."""
        return False
