"""What a tracker is, and the one of `tracking=none`, which has no store."""

from collections.abc import Iterator
from contextlib import contextmanager

from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.tracking.environment import run_record, sweep_record
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.job import Job
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
            parent = Parent(record.id, "", sweep.config.tracking, tuple(sweep.swept), sweep.folder, lock=record.lock)
            yield self.join_sweep(parent)

    def join_sweep(self, parent: Parent) -> SweepRecord:
        """Return the record of a sweep whose `parent` has the store's password; see the function `join_sweep`."""
        return SweepRecord(parent, {}, {}, None)

    def finished(self, signature: str) -> Job | None:  # noqa: ARG002
        """Return the newest finished run with this signature, if any."""
        return None

    def send_rest(self, folder: Folder) -> str:  # noqa: ARG002
        """Send what the store lacks of a run that has finished; return what is to be said of that, or ""."""
        return ""

    def why_not(self, experiment: Experiment, data: str) -> str:  # noqa: ARG002
        """Return why no earlier run counts as this experiment, whose data have a digest."""
        return ""
