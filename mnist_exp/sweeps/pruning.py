"""Stop jobs early, by Optuna's pruners, whose curves are worse than others'."""

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mnist_exp.config.schema import objective_direction
from mnist_exp.config.values import PruneSettings
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.record import failure_reason
from mnist_exp.tracking.sweep_record import SweepRecord

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_AFTER_AN_OUTAGE = 60.0

log = logging.getLogger(__name__)


class Pruning:
    """Compare the jobs training in this process with each other and with ended ones.

    A job that is stopped keeps its last value, or each epoch would halve the others.
    """

    def __init__(self, record: SweepRecord, experiments: Sequence[Experiment], ended: dict[str, list[float]]) -> None:
        """Compare by the objective, with the curves of ended jobs, by run, in `ended`.

        If an experiment resumes, the decisions before the interruption are made again.
        """
        from optuna.study import StudyDirection

        config = experiments[0].config
        assert config.prune is not None
        self._pruner = _pruner(config.prune)
        self._direction = StudyDirection[objective_direction(config).upper()]
        self._objective, self._epochs = config.objective, config.training.epochs
        self._record, self._ended = record, ended
        self._beside: dict[int, list[float]] = {}
        self._stopped: set[int] = set()
        rule = getattr(config.prune, "wrapped_pruner", config.prune)
        is_comparing = rule is not None and rule.kind != "threshold"
        self._next_look = 0.0 if is_comparing else math.inf
        self._folder = Folder(experiments[0].output)
        # Before a job that trains alone was interrupted, so many epochs were judged, and this one was its last.
        self._judged = self._pruned = 0
        if experiments[0].resumes:
            self._pruned = int(self._folder.read().fact("pruned") or 0)
            with suppress(InputError):  # damaged
                self._judged = len(self._folder.history().get(self._objective, ()))

    def find_unpromising(self, epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Return the places of the jobs to stop after an epoch, none after the last one.

        `epoch`, from 1, has ended with these `metrics`, by the place of each job that trained in it.
        """
        if not self._beside and epoch > 1:  # goes on after a checkpoint
            self._beside[0] = self._folder.history()[self._objective][: epoch - 1]
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
            study, was_judged = _Study(self._direction, others), epoch <= max(self._judged, self._pruned)
            if epoch == self._pruned if was_judged else self._pruner.prune(study, beside[place]):
                found.append(place)
        self._stopped.update(found)
        return found

    def _read_what_ended(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        try:
            for job in self._record.jobs():
                if job.is_whole and (key := f"{job.host} {job.output}") not in self._ended:
                    self._ended[key] = self._record.curve(job, self._objective)
        except Exception as error:  # training outlasts an outage of the store
            log.warning("curves of jobs that ended cannot be read: %s", failure_reason(error))
            self._next_look = time.monotonic() + _SECONDS_AFTER_AN_OUTAGE


@dataclass(frozen=True)
class _Study:
    """The part of a study that Optuna's pruners use.

    A real one would have to be filled again for each job.
    """

    direction: Any
    trials: Sequence[Any]

    def get_trials(self, deepcopy: bool, states: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002
        return self.trials


def _trial(curve: Sequence[float]) -> Any:
    """Return a curve as a trial, with steps from 0 and without NaN.

    Optuna refuses NaN.
    """
    from optuna.trial import TrialState, create_trial

    values = {step: value for step, value in enumerate(curve) if math.isfinite(value)}
    return create_trial(state=TrialState.RUNNING, intermediate_values=values)  # COMPLETE would need a value


def _pruner(settings: PruneSettings) -> Any:
    from optuna import pruners

    arguments = {name: value for name, value in vars(settings).items() if name != "kind"}
    if (wrapped := arguments.get("wrapped_pruner")) is not None:
        arguments["wrapped_pruner"] = _pruner(wrapped)
    with warnings.catch_warnings(action="ignore"):  # PatientPruner is experimental
        return getattr(pruners, f"{settings.kind.capitalize()}Pruner")(**arguments)
