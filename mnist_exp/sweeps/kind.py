"""Kinds of sweeps, such as a grid, a race or a search, propose its jobs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from mnist_exp.config.conversion import Rule
from mnist_exp.config.overrides import Override
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.schema import Config
from mnist_exp.config.values import Count, NotNegative, Text
from mnist_exp.errors import InputError
from mnist_exp.sweeps.formats import pluralize
from mnist_exp.sweeps.ranking import Row, compare_rows
from mnist_exp.sweeps.verdict import SINGLE, judge, word
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.records import Record

MAX_JOBS = 100_000  # in a sweep
_MAX_CHECKED_VALUES = 200  # a check takes 10 ms


def check_number(number: float, typed: Iterable[str]) -> None:
    """Raise InputError for more jobs, or values of a key, than a sweep may have."""
    if number > MAX_JOBS:
        raise InputError(f"{' '.join(typed)}: asks for {number:,.15g} jobs; a sweep may have {MAX_JOBS:,} at most")


_Jobs = Annotated[int, Rule(lambda n: 1 <= n <= MAX_JOBS, f"a whole number from 1 to {MAX_JOBS:,}")]
_AtLeast2 = Annotated[int, Rule(lambda n: 2 <= n < 2**31, "a whole number, at least 2")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of `hydra.sweeper`, which conf/sweep/ explains.

    Defaults are in `hydra_plugins/`.
    """

    kind: Literal["grid", "race", "search"]
    params: dict[str, Any] | None
    n_trials: _Jobs
    n_jobs: Count
    sampler: Any
    initial_seeds: _AtLeast2
    max_jobs: _Jobs | None
    indifference: NotNegative
    from_sweep: Text | float | None  # an id of digits is a number
    n_best: _AtLeast2


@dataclass(frozen=True)
class SweepOverrides:
    """The overrides of a sweep, its preset's included.

    Attributes:
        settings: of `hydra.sweeper`.
        varied: the values of each key that has several; of a range to draw from, its ends.
        fixed: the overrides with one value.
        code: the user's own file.
    """

    settings: Settings
    varied: Mapping[Override, Sequence[str]]
    fixed: Sequence[str]
    code: CodeFile | None

    def count(self, each: int = 1) -> int:
        """Return the number of jobs, with `each` for every combination.

        Raise InputError if a sweep may not have so many.
        """
        jobs = each * math.prod(map(len, self.varied.values()))
        check_number(jobs, [override.text for override in self.varied])
        return jobs

    def jobs(self, rows: Iterable[Mapping[Override, str]]) -> list[list[str]]:
        """Return the overrides of jobs with these values, without any for Hydra."""
        shared = [text for text in self.fixed if not Override.parse(text).is_below("hydra")]
        return [[*shared, *(override.set_to(value) for override, value in row.items())] for row in rows]


@dataclass
class Kind:
    """A kind of sweep, whose methods suit most kinds.

    Attributes:
        swept: the values of each key that varies, as recorded.
        jobs: their number, as far as it is known before the first has run.
        planned: how many seeds each combination is to run; 0 where that is open.
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
    def from_overrides(cls, typed: SweepOverrides) -> Self:
        """Return the sweep of these overrides.

        Raise InputError for any that this kind cannot use.
        """
        raise NotImplementedError

    def list_checks(self, typed: SweepOverrides) -> Sequence[Sequence[str]]:
        """Return the overrides of jobs to check: each value once, with others' first.

        Of more than 200 values, those are left out between every second, third or so on, and the last of their key.
        """
        first = {override: samples[0] for override, samples in typed.varied.items()}
        step = math.ceil(sum(map(len, typed.varied.values())) / _MAX_CHECKED_VALUES) or 1
        checked = {
            override: dict.fromkeys([*samples[step::step], samples[-1]]) for override, samples in typed.varied.items()
        }
        others = (
            first | {override: sample}
            for override, samples in checked.items()
            for sample in samples
            if sample != first[override]
        )
        return typed.jobs([first, *others])

    def propose(self, ended: Sequence[Record], direction: str) -> Sequence[Sequence[str]] | None:
        """Return the overrides of the next jobs, without `hydra`'s, or None at the end.

        Args:
            ended: the jobs that this command launched, in their order; for a kind that draws, after those that ended
                before, interrupted ones among them.
            direction: of the objective, `maximize` or `minimize`.
        """
        raise NotImplementedError

    def report(self, folder: Path) -> list[str]:
        """Write the sweep's progress into its folder, and return the new lines."""
        return []

    def check(self, configs: Sequence[Config]) -> None:
        """Raise InputError if the jobs' configurations, in order, do not fit this kind."""

    def opening(self) -> str:
        """Return the first lines of the sweep: the number of jobs and the varied keys."""
        varied = " ".join(f"{key}={values}" for key, values in self.swept.items())
        return f"{pluralize(self.jobs, 'job')}: {varied or 'no key has several values, such as seed=0,1'}"

    def signature(self) -> list[object]:
        """Return plain values that tell this sweep from others in which the same varies."""
        return []

    def arrange(self, rows: list[Row], direction: str) -> tuple[list[Row], list[str]]:
        """Return ranked rows in this kind's order, compared with the first, and notes."""
        return compare_rows(rows, direction), []

    def verdict(self, rows: Sequence[Row], images: str, run_id: str) -> str:
        """Return the sentence below a ranking.

        Args:
            rows: arranged and compared, best first.
            images: where the objective was measured, such as "these 10,000 images".
            run_id: of the sweep.
        """
        single = "one seed may be better or worse by chance" if self.planned > 1 else SINGLE
        of = self.jobs // self.planned if self.planned else len(rows)
        family = f"the {len(rows)} of {of} rows that have finished jobs" if len(rows) < of else ""
        return word(judge(rows), self.label, images=images, family=family, single=single)

    def label(self, values: Mapping[str, str]) -> str:
        """Return the name of a row with these values."""
        return job_name(values, self.swept)

    def count_unfinished(self, jobs: Sequence[Record], launched: int) -> int:
        """Return how many of the launched jobs did not finish."""
        return launched - sum(job.status == "FINISHED" for job in jobs)


@dataclass
class Grid(Kind):
    """Every combination of the listed values, as the overrides of its job."""

    combinations: Sequence[Sequence[str]]

    @classmethod
    def from_overrides(cls, typed: SweepOverrides) -> Self:
        number = typed.count()
        rows = typed.jobs(dict(zip(typed.varied, row, strict=True)) for row in product(*typed.varied.values()))
        grid = cls({override.key: override.value for override in typed.varied}, number, rows)
        grid.planned = next((len(samples) for override, samples in typed.varied.items() if override.key == "seed"), 1)
        return grid

    def list_checks(self, typed: SweepOverrides) -> Sequence[Sequence[str]]:
        """Return each value once, and each combination of groups, which may clash."""
        groups = {
            override: samples
            for override, samples in typed.varied.items()
            if "." not in override.key and override.key != "seed"
        }
        if len(groups) < 2:
            return super().list_checks(typed)
        first = {override: samples[0] for override, samples in typed.varied.items()}
        rows = (
            first | dict(zip(groups, row, strict=True))
            for row in islice(product(*groups.values()), _MAX_CHECKED_VALUES)
        )
        return [*super().list_checks(typed), *typed.jobs(rows)]

    def propose(self, ended: Sequence[Record], direction: str) -> Sequence[Sequence[str]] | None:
        return None if ended else self.combinations
