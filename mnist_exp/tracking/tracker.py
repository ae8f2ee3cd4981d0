"""What a tracker is, and the one of `tracking=none`, which has no store."""

from collections.abc import Iterator
from contextlib import contextmanager

from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking.environment import run_record, sweep_record
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.record import Run, ended
from mnist_exp.tracking.sweep_record import Parent, SweepRecord, begun_sweep


class Tracker:
    """Open records of runs and sweeps, and find finished runs. This one, of `tracking=none`, has no store."""

    def __init__(self) -> None:
        self.tracking: dict[str, str] = {}  # as in `Record`

    @contextmanager
    def open_run(self, experiment: Experiment, together: int) -> Iterator[Run]:
        """Record a run to its end, FINISHED, FAILED after an exception, or KILLED after a signal.

        This one and the others, `together` in number, train as one program.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        record = run_record(experiment, together, None, {})
        with ended(Run(experiment, record, keeps_all=experiment.child is None)) as run:
            yield run

    @contextmanager
    def open_sweep(self, sweep: Sweep, signature: str) -> Iterator[SweepRecord]:
        """Record a sweep, or with `resume` continue the last one with this signature.

        Raises:
            InputError: if the store cannot be reached or written.
        """
        with begun_sweep(sweep, sweep_record(sweep, signature, None, {})) as record:
            keys = tuple(sweep.swept)
            yield self.join_sweep(Parent(record.id, "", sweep.config.tracking, keys, sweep.folder, record.attempt))

    def join_sweep(self, parent: Parent) -> SweepRecord:
        """Return the record of a sweep, in the process of one of its jobs."""
        return SweepRecord(parent, {}, {})

    def send_rest(self, folder: Folder) -> str:  # noqa: ARG002
        """Send what the store lacks of a run that has finished; return what is to be said of that, or ""."""
        return ""
