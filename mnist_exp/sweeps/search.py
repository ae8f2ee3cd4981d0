"""A search: a sweeper of Hydra's, such as Optuna's, chooses the jobs. Imports nothing heavy."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mnist_exp.config.hydra_settings import MOST_JOBS
from mnist_exp.config.overrides import quoted
from mnist_exp.config.schema import Config, MLflowTracking, objective_direction
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Kind, Typed
from mnist_exp.sweeps.ranking import Row, verdict
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mnist_exp.tracking.sweep_record import SweepRecord


@dataclass
class Search(Kind):
    """Jobs that a sweeper draws; `sweeper`: its settings."""

    sweeper: Mapping[str, Any]
    draws: ClassVar[bool] = True
    goes_back: ClassVar[bool] = False

    @classmethod
    def of(cls, typed: Typed) -> Self:
        sampler = str((typed.sweeper.get("sampler") or {}).get("_target_"))
        trials: int | None = typed.sweeper.get("n_trials")
        if trials is None or sampler.endswith(".GridSampler"):  # which lists all combinations
            trials = min(typed.count(), trials or MOST_JOBS)
        return cls({one.key: one.value for one in typed.varied}, trials, typed.sweeper)

    def check(self, configs: Sequence[Config]) -> None:
        """Raise InputError if Optuna would write into the store, or into a database of another program."""
        from mnist_exp.tracking.store import sqlite_path, tables

        storage = str(self.sweeper.get("storage") or "")
        if (path := sqlite_path(storage)) is None:
            return
        try:
            held = tables(path) if path.exists() else set()
        except sqlite3.Error as error:
            held = {str(error)}
        tracking = configs[0].tracking
        is_store = isinstance(tracking, MLflowTracking) and path == sqlite_path(tracking.uri)
        if is_store or (held and "studies" not in held):
            raise InputError(
                f"hydra.sweeper.storage={storage}: holds something else than searches; must be a file of its own, such "
                "as sqlite:///optuna.db"
            )

    def first_jobs(self, typed: Typed) -> Sequence[Sequence[str]]:
        """Return none, since the sweeper draws them."""
        return []

    def signature(self) -> list[object]:
        return [self.sweeper["_target_"], (self.sweeper.get("sampler") or {}).get("_target_")]

    def settings(self, sweep: Sweep, record: "SweepRecord") -> list[str]:
        """Return Optuna's study, named after the run so that `resume` finds it, and how many trials are left.

        Of these, the study gives those first whose jobs were interrupted.
        """
        if "study_name" not in self.sweeper:
            return []
        import optuna

        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)  # `Progress` shows failed jobs
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name, storage = record.parent.run_id or sweep.folder.name, self.sweeper.get("storage")
        direction = objective_direction(sweep.config)
        settings = [f"hydra.sweeper.direction={direction}", f"hydra.sweeper.study_name={quoted(name)}"]
        if storage is None or name not in optuna.get_all_study_names(storage):
            return settings
        study, states = optuna.load_study(study_name=name, storage=storage), optuna.trial.TrialState
        jobs = {tuple(sorted(job.values.items())): job for job in record.jobs()}
        for trial in study.get_trials(states=[states.RUNNING]):
            job = jobs.get(tuple(sorted((key, str(value)) for key, value in trial.params.items())))
            if job is None or job.status in {"RUNNING", "KILLED"}:
                study.enqueue_trial(trial.params)
            objective = None if job is None else job.objective
            study.tell(trial.number, objective, state=states.FAIL if objective is None else states.COMPLETE)
        finished = len(study.get_trials(states=[states.COMPLETE]))
        settings.append(f"hydra.sweeper.n_trials={max(self.jobs - finished, 0)}")
        seed = (self.sweeper.get("sampler") or {}).get("seed")
        if seed is not None:  # which would draw the same values again
            settings.append(f"hydra.sweeper.sampler.seed={seed + len(study.trials)}")
        return settings

    def excuse(self, error: ValueError, record: "SweepRecord") -> None:
        """Raise the error, unless all jobs failed and Optuna misses a best trial; the ranking says why."""
        statuses = {job.status for job in record.jobs()}
        if isinstance(error, InputError) or "FINISHED" in statuses:
            raise error
        if not statuses:
            raise InputError(f"the search cannot start: {error}") from error

    def verdict(self, rows: Sequence[Row], images: str, run_id: str) -> str:
        single = (
            "each row of a search is a single run, and the best of many is lucky too; with other seeds: "
            f"-m sweep=race hydra.sweeper.of={run_id or 'SWEEP_ID'}"
        )
        return verdict(rows, self.label, images=images, single=single)

    def unfinished(self, jobs: Sequence[Record], launched: int) -> int:
        """Return how many jobs did not end; the number launched says little, since a point may be drawn twice."""
        return sum(job.status in {"FAILED", "RUNNING"} for job in jobs)
