"""A search: Optuna draws the jobs, given the records of those that ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from hydra.core.override_parser.types import IntervalSweep

from mnist_exp.config.keras_names import parse_spec
from mnist_exp.config.overrides import Override
from mnist_exp.config.parsing import parse
from mnist_exp.errors import InputError, format_value
from mnist_exp.sweeps.kind import Kind, SweepOverrides
from mnist_exp.sweeps.ranking import Row
from mnist_exp.sweeps.verdict import judge, word
from mnist_exp.tracking.records import Record

_SAMPLERS = ("TPESampler", "RandomSampler")


@dataclass
class Search(Kind):
    """Jobs that a sampler of Optuna's draws.

    Attributes:
        shared: the overrides of every job.
        space: Optuna's distribution of each key that varies; of a range, it draws places in its list.
        listed: the values of each key that has a range, by full key.
        sampler: the name of Optuna's class, and its arguments.
        at_once: the jobs of a proposal.
    """

    shared: Sequence[str]
    space: Mapping[Override, Any]
    listed: Mapping[str, Sequence[str]]
    sampler: tuple[str, Mapping[str, Any]]
    at_once: int
    draws: ClassVar[bool] = True
    goes_back: ClassVar[bool] = False

    @classmethod
    def from_overrides(cls, typed: SweepOverrides) -> Self:
        """Return the search that was typed.

        Raises:
            InputError: if Optuna is not installed, or does not take the sampler's arguments.
        """
        try:
            from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
        except ImportError:
            raise InputError(
                "sweep: a search needs Optuna; pip install -e '.[optuna]' in the project's folder brings it"
            ) from None
        settings, space, listed = typed.settings, dict[Override, Any](), dict[str, Sequence[str]]()
        for override, samples in typed.varied.items():
            [parsed] = parse([override.text])
            if isinstance(ends := parsed.value(), IntervalSweep) and ends.start is not None and ends.end is not None:
                is_log = "log" in ends.tags
                if isinstance(ends.start, int) and isinstance(ends.end, int):
                    space[override] = IntDistribution(ends.start, ends.end, log=is_log)
                else:
                    space[override] = FloatDistribution(ends.start, ends.end, log=is_log)
            elif parsed.is_range_sweep():
                space[override], listed[override.key] = IntDistribution(0, len(samples) - 1), samples
            else:
                space[override] = CategoricalDistribution(samples)
        [shared] = typed.jobs([{}])
        sampler = _sampler(settings.sampler)
        search = cls(
            {override.key: override.value for override in typed.varied},
            settings.n_trials, shared, space, listed, sampler, settings.n_jobs,
        )  # fmt: skip
        search._study([], "maximize")  # raises now what it would raise later
        return search

    def propose(self, ended: Sequence[Record], direction: str) -> Sequence[Sequence[str]] | None:
        """Return interrupted jobs, or Optuna's next ones, or None after `n_trials`.

        Its study is made in memory, and is seeded by the sampler's seed and the number of trials.
        """
        trials = [job for job in ended if job.status != "KILLED"]
        number = min(self.at_once, self.jobs - len(trials))
        if number < 1:
            return None
        tried = [job.values for job in trials]
        values = [job.values for job in ended if job.status == "KILLED" and job.values not in tried][:number]
        if not values:
            study = self._study(trials, direction)
            drawn = [study.ask(self._distributions).params for _ in range(number)]
            values = [{key: self._text(key, value) for key, value in row.items()} for row in drawn]
        return [[*self.shared, *(override.set_to(row[override.key]) for override in self.space)] for row in values]

    def _study(self, trials: Sequence[Record], direction: str) -> Any:
        """Return a study of the jobs that ended.

        A pruned job tells its last epoch, and the value there.
        """
        import numpy
        import optuna
        from optuna.study import StudyDirection
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name, arguments = self.sampler
        if isinstance(seed := arguments.get("seed"), int):
            [drawn] = numpy.random.SeedSequence((seed, len(trials))).generate_state(1)
            arguments = {**arguments, "seed": int(drawn)}
        try:
            sampler = getattr(optuna.samplers, name)(**arguments)
            study = optuna.create_study(direction=StudyDirection[direction.upper()], sampler=sampler)
        except (TypeError, ValueError) as error:
            raise InputError(f"hydra.sweeper.sampler.{name}={format_value(dict(arguments))}: {error}") from error
        for job in trials:
            state, last = TrialState.FAIL if job.objective is None else TrialState.COMPLETE, {}
            if job.objective is not None and job.pruned is not None:
                state, last = TrialState.PRUNED, {job.pruned: job.objective}
            value = job.objective if state == TrialState.COMPLETE else None
            space = self._distributions
            params = {key: self._value(key, job.values[key]) for key in space}
            study.add_trial(
                create_trial(state=state, value=value, params=params, distributions=space, intermediate_values=last)
            )
        return study

    @property
    def _distributions(self) -> dict[str, Any]:
        return {override.key: distribution for override, distribution in self.space.items()}

    def _text(self, key: str, value: Any) -> str:
        return self.listed[key][value] if key in self.listed else str(value)

    def _value(self, key: str, text: str) -> Any:
        if key in self.listed:
            return self.listed[key].index(text)
        kind = type(self._distributions[key]).__name__
        return {"IntDistribution": int, "FloatDistribution": float}.get(kind, str)(text)

    def signature(self) -> list[object]:
        return ["search", self.sampler[0]]

    def verdict(self, rows: Sequence[Row], images: str, run_id: str) -> str:
        single = (
            "each row of a search is a single run, and the best of many is lucky too; for other seeds, type "
            f"-m sweep=race hydra.sweeper.from_sweep={run_id or 'SWEEP_ID'} and the search's other overrides"
        )
        return word(judge(rows), self.label, images=images, single=single)

    def count_unfinished(self, jobs: Sequence[Record], launched: int) -> int:
        """Return how many jobs did not end.

        A point may be drawn twice, so launched jobs do not tell.
        """
        return sum(job.status in {"FAILED", "RUNNING"} for job in jobs)


def _sampler(spec: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the arguments of a sampler, `Name` or `{Name: arguments}`."""
    key = "hydra.sweeper.sampler"
    if isinstance(spec, Mapping) and len(spec) > 1:  # Hydra merges a typed map with that of a preset
        raise InputError(f"{key}={format_value(spec)}: must be one sampler; choose sweep=random, or sweep=optuna")
    name, arguments = parse_spec(spec or "TPESampler", key)
    if name not in _SAMPLERS:
        raise InputError(
            f"{key}={format_value(spec)}: must be {' or '.join(_SAMPLERS)}, such as {{TPESampler: {{seed: 0}}}}"
        )
    return name, arguments
