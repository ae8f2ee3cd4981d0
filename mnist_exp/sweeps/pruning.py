"""Which jobs of a sweep are stopped early: Optuna's pruners compare their curves with those of other jobs."""

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mnist_exp.config import pruning
from mnist_exp.config.schema import Config, objective_direction
from mnist_exp.tracking.record import SweepRecord, failure_reason

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_AFTER_AN_OUTAGE = 60.0

log = logging.getLogger(__name__)


class Pruning:
    """Compares jobs that train in this process with those of the sweep that ended, and with each other.

    Jobs that train as one program do not end before each other, so those beside a job count as if they had; one that
    was stopped keeps its last value, or the others would be halved in each epoch.
    """

    def __init__(self, record: SweepRecord, config: Config, ended: dict[str, list[float]]) -> None:
        """Compare by the objective of `config`; `ended` has the curves of jobs that ended, as far as they were read."""
        from optuna.study import StudyDirection

        assert config.prune is not None
        self._pruner = _pruner(config.prune)
        self._direction = StudyDirection[objective_direction(config).upper()]
        self._objective, self._epochs = config.objective, config.training.epochs
        self._record, self._ended = record, ended
        self._beside: dict[int, list[float]] = {}
        self._stopped: set[int] = set()
        self._next_look = 0.0 if _compares(config.prune) else math.inf

    def hopeless(self, epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Return the places of the jobs that are to stop after an epoch, counted from 1; after the last one, none.

        Args:
            epoch: the one that has ended.
            metrics: its metrics, by the place of each job that trained in it.
        """
        for place, measured in metrics.items():
            self._beside.setdefault(place, []).append(measured[self._objective])
        for place in self._stopped:
            self._beside[place].append(self._beside[place][-1])
        if epoch >= self._epochs:
            return []
        self._read_what_ended()
        ended = [_trial(curve) for curve in self._ended.values()]
        beside = {place: _trial(curve) for place, curve in self._beside.items()}
        found = []
        for place in [place for place in metrics if math.isfinite(self._beside[place][-1])]:
            others = [*ended, *(trial for other, trial in beside.items() if other != place)]
            if self._pruner.prune(_Study(self._direction, others), beside[place]):
                found.append(place)
        self._stopped.update(found)
        return found

    def _read_what_ended(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        try:
            for job in self._record.recent():
                if job.is_whole and (key := job.run_id or job.output) not in self._ended:
                    self._ended[key] = self._record.curve(job, self._objective)
        except Exception as error:  # an outage of the store does not end the training
            log.warning("curves of jobs that ended cannot be read: %s", failure_reason(error))
            self._next_look = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE


@dataclass(frozen=True)
class _Study:
    """What Optuna's pruners ask of a study: which way is better, and the trials that are complete.

    A study of Optuna's own would have to be filled anew for each job of a program, as the others differ.
    """

    direction: Any
    trials: Sequence[Any]

    def get_trials(self, deepcopy: bool, states: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002
        return self.trials


def _trial(curve: Sequence[float]) -> Any:
    """Return a curve as Optuna has it, whose steps count from 0, without what is no number."""
    from optuna.trial import TrialState, create_trial

    values = {step: value for step, value in enumerate(curve) if math.isfinite(value)}
    return create_trial(state=TrialState.RUNNING, intermediate_values=values)  # a state that needs no value at the end


def _compares(settings: pruning.Pruning) -> bool:
    """Return whether a job is compared with others, not with itself or with a number."""
    own = settings.wrapped_pruner if isinstance(settings, pruning.PatientPruning) else settings
    return own is not None and not isinstance(own, pruning.ThresholdPruning)


def _pruner(settings: pruning.Pruning) -> Any:
    from optuna import pruners

    if isinstance(settings, pruning.PatientPruning):
        wrapped = _pruner(settings.wrapped_pruner) if settings.wrapped_pruner is not None else None
        with warnings.catch_warnings(action="ignore"):  # that it is experimental
            return pruners.PatientPruner(wrapped, settings.patience, settings.min_delta)
    arguments = asdict(settings)
    return getattr(pruners, f"{arguments.pop('kind').capitalize()}Pruner")(**arguments)  # such as MedianPruner
