"""What a sweep asks of its kind, such as a grid, a search or a race. Imports nothing heavy."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.hydra_settings import MOST_JOBS
from mnist_exp.config.overrides import Override
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.formats import counted
from mnist_exp.sweeps.ranking import SINGLE, Row, compared, verdict
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mnist_exp.sweeps.jobs import Launch, Stage
    from mnist_exp.tracking.sweep_record import SweepRecord


_MOST_CHECKED = 200  # values of a sweep, which take 10 ms each
MOST_LOOKED_UP = 200  # jobs of one that is resumed, which take 20 ms each


def check_number(number: float, typed: Iterable[str]) -> None:
    """Raise InputError if these overrides ask for more jobs, or values of a key, than a sweep may have."""
    if number > MOST_JOBS:
        raise InputError(f"{' '.join(typed)}: asks for {number:,.15g} jobs; a sweep may have {MOST_JOBS:,} at most")


@dataclass(frozen=True)
class Typed:
    """The overrides of a sweep, its preset's included.

    `sweeper`: Hydra's settings. `varied`: the values of each key that has several; the ends of a range to draw from.
    `fixed`: the overrides with one value. `code`: the user's own file.
    """

    sweeper: Mapping[str, Any]
    varied: Mapping[Override, Sequence[str]]
    fixed: Sequence[str]
    code: CodeFile | None

    def count(self, each: int = 1) -> int:
        """Return how many jobs run each combination so often; raise InputError if a sweep may not have so many."""
        jobs = each * math.prod(map(len, self.varied.values()))
        check_number(jobs, [one.text for one in self.varied])
        return jobs

    def jobs(self, rows: Iterable[Mapping[Override, str]]) -> list[list[str]]:
        """Return the overrides of jobs with these values, without any for Hydra."""
        shared = [text for text in self.fixed if not Override.of(text).is_below("hydra")]
        return [[*shared, *(one.set_to(value) for one, value in row.items())] for row in rows]


@dataclass
class Kind:
    """A kind of sweep; its methods do what suits most.

    `swept`: the values of each key that varies, as recorded. `jobs`: their number, as far as it is known before.
    `planned`: how many seeds each combination is to run; 0 where that is open.
    """

    swept: dict[str, str]
    jobs: int
    planned: int = field(default=0, init=False)
    draws: ClassVar[bool] = False  # whether a key may have a range to draw from
    goes_back: ClassVar[bool] = True  # whether `resume` repeats jobs that were killed or pruned
    is_open: ClassVar[bool] = False  # whether more jobs may follow, as the ones before decide

    @property
    def has_lists(self) -> bool:
        """Whether the values of each key were typed, one by one."""
        return not self.draws

    @classmethod
    def of(cls, typed: Typed) -> Self:
        """Return the sweep that was typed; raise InputError for what this kind cannot use."""
        return cls({one.key: one.value for one in typed.varied}, typed.count())

    def to_check(self, typed: Typed) -> Sequence[Sequence[str]]:
        """Return the overrides of the jobs to check: each value once, beside the first of all others.

        Of more than 200 values, those are left out between every second, third or so on, and the last of their key.
        """
        first = {override: samples[0] for override, samples in typed.varied.items()}
        step = math.ceil(sum(map(len, typed.varied.values())) / _MOST_CHECKED) or 1
        checked = {one: dict.fromkeys([*samples[step::step], samples[-1]]) for one, samples in typed.varied.items()}
        others = (
            first | {one: sample} for one, samples in checked.items() for sample in samples if sample != first[one]
        )
        return typed.jobs([first, *others])

    def first_jobs(self, typed: Typed) -> Sequence[Sequence[str]]:
        """Return the overrides of the jobs that surely run, without any for Hydra; 200 at most."""
        rows = product(*typed.varied.values())
        return typed.jobs(dict(zip(typed.varied, row, strict=True)) for row in islice(rows, MOST_LOOKED_UP))

    def check(self, configs: Sequence[Config]) -> None:
        """Raise InputError if the configurations that were checked, the first job's first, do not fit this kind."""

    def opening(self) -> str:
        """Return the first lines of the sweep: how many jobs, and what varies."""
        varied = " ".join(f"{key}={values}" for key, values in self.swept.items())
        return f"{counted(self.jobs, 'job')}: {varied or 'no key has several values, such as seed=0,1'}"

    def signature(self) -> list[object]:
        """Return plain values that tell this sweep from others in which the same varies."""
        return []

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:
        """Return overrides for Hydra beside those typed."""
        return []

    def driver(self, sweep: Sweep, stage: "Stage") -> "Callable[[Launch], None] | None":
        """Return a function that launches the jobs, if Hydra's sweeper leaves that to the kind."""
        return None

    def excuse(self, error: ValueError, record: "SweepRecord") -> None:
        """Raise an error of Hydra's sweeper, unless the ranking explains it."""
        raise error

    def arrange(self, rows: list[Row], direction: str) -> tuple[list[Row], list[str]]:
        """Return ranked rows in this kind's order, compared with the first, and notes."""
        return compared(rows, direction), []

    def verdict(self, rows: Sequence[Row], images: str, run_id: str) -> str:
        """Return the sentence below the ranking of arranged rows, measured on `images`; `run_id`: the sweep's."""
        single = "one seed may be better or worse by chance" if self.planned > 1 else SINGLE
        of = self.jobs // self.planned if self.planned else len(rows)
        family = f"the {len(rows)} of {of} rows that have finished jobs" if len(rows) < of else ""
        return verdict(rows, self.label, images=images, family=family, single=single)

    def label(self, values: Mapping[str, str]) -> str:
        """Return the name of a row with these values."""
        return job_name(values, self.swept)

    def unfinished(self, jobs: Sequence[Record], launched: int) -> int:
        """Return how many of the launched jobs did not finish."""
        return launched - sum(job.status == "FINISHED" for job in jobs)


class Grid(Kind):
    """Every combination of the listed values."""

    @classmethod
    def of(cls, typed: Typed) -> Self:
        grid = super().of(typed)
        grid.planned = next((len(samples) for one, samples in typed.varied.items() if one.key == "seed"), 1)
        return grid

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:
        """Return the sweeper that checks no job again, unless two groups vary, whose choices may not fit each other."""
        groups = [key for key in self.swept if "." not in key and key != "seed"]
        return ["hydra.sweeper._target_=hydra_plugins.mnist_exp_grid.GridSweeper"] if len(groups) < 2 else []
