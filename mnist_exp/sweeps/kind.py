"""What a sweep asks of its kind, such as a grid, a search or a race. Imports nothing heavy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.overrides import Override
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.formats import counted
from mnist_exp.tracking.job import Job

if TYPE_CHECKING:
    from mnist_exp.sweeps.jobs import Stage
    from mnist_exp.sweeps.ranking import Rounds, Row
    from mnist_exp.tracking.record import SweepRecord

# Runs jobs, each given by its overrides; returns their objectives, None for a job that failed.
Launch = Callable[[Sequence[Sequence[str]]], Sequence[float | None]]


@dataclass(frozen=True)
class Typed:
    """The overrides of a sweep, those of its preset included.

    `sweeper`: Hydra's settings of the sweeper. `varied`: the values of each key that has several; the ends of a range
    to draw from. `ranges`: these keys. `fixed`: the overrides with one value. `code`: the user's own file.
    """

    sweeper: Mapping[str, Any]
    varied: Mapping[Override, Sequence[str]]
    ranges: Sequence[Override]
    fixed: Sequence[str]
    code: CodeFile | None

    def refuse_ranges(self) -> None:
        """Raise InputError if there is a range to draw from."""
        for one in self.ranges:
            raise InputError(
                f"{one.text}: is a range to draw from, for sweep=random or sweep=optuna; here, list values: "
                f"{one.key}=A,B"
            )


@dataclass
class Kind:
    """A kind of sweep. What is defined here holds where all jobs are known before the first one runs.

    `swept`: the values of each key that varies, as they are recorded. `jobs`: their number, as far as it is known at
    the start. `goes_back`: whether `resume` runs jobs again that were pruned or killed. `is_open`: whether more jobs
    may follow.
    """

    swept: dict[str, str]
    jobs: int
    goes_back: ClassVar[bool] = True
    is_open: ClassVar[bool] = False

    @classmethod
    def of(cls, typed: Typed) -> Self:
        """Return the sweep that was typed.

        Raises:
            InputError: for what this kind cannot use.
        """
        return cls({one.key: one.value for one in typed.varied}, math.prod(map(len, typed.varied.values())))

    def to_check(self, typed: Typed) -> Sequence[Sequence[str]]:
        """Return the overrides of the jobs to check: each value once, beside the first of all others."""
        first = {override: samples[0] for override, samples in typed.varied.items()}
        others = [first | {one: sample} for one, samples in typed.varied.items() for sample in samples[1:]]
        return [[*typed.fixed, *(one.set_to(value) for one, value in job.items())] for job in [first, *others]]

    def check(self, config: Config) -> None:
        """Raise InputError if the first job's configuration does not fit this kind."""

    def opening(self) -> str:
        """Return the first lines of the sweep: how many jobs, and what varies."""
        varied = " ".join(f"{key}={values}" for key, values in self.swept.items())
        return f"{counted(self.jobs, 'job')}: {varied or 'no key has several values, such as seed=0,1'}"

    def signature(self) -> list[object]:
        """Return what makes two sweeps different that vary the same keys."""
        return []

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:  # noqa: ARG002
        """Return the overrides for Hydra that nobody typed."""
        return []

    def run(self, sweep: Sweep, stage: "Stage", launch: Launch) -> None:
        """Decide which jobs run, and launch them; for sweepers that leave this to the kind."""
        raise NotImplementedError

    def excuse(self, error: ValueError, record: "SweepRecord") -> None:  # noqa: ARG002
        """Raise an error of Hydra's sweeper, unless the ranking explains it."""
        raise error

    def stand(self, rows: "list[Row]") -> "tuple[list[Row], Rounds | None, list[str]]":
        """Return ranked rows in the order of this kind, what their intervals are corrected for, and notes on them."""
        return rows, None, []

    def verdict(self, run_id: str) -> str:  # noqa: ARG002
        """Return the sentence below the ranking of a sweep, given its id; empty where the rows themselves decide."""
        return ""

    def unfinished(self, jobs: Sequence[Job], launched: int) -> int:
        """Return how many jobs did not finish, of those that were launched."""
        return launched - sum(job.status == "FINISHED" for job in jobs)
