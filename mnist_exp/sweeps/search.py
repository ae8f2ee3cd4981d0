"""Searches by Optuna: which study a sweep goes on with, and where it is kept."""

import logging
import sqlite3

from mnist_exp.config.overrides import quoted
from mnist_exp.config.schema import MLflowTracking, objective_direction
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.tracking.record import SweepRecord
from mnist_exp.tracking.store import sqlite_path, tables


def is_search(sweep: Sweep) -> bool:
    """Return whether Optuna decides which jobs a sweep has."""
    return "OptunaSweeper" in str(sweep.sweeper.get("_target_"))


def check_search_storage(sweep: Sweep) -> None:
    """Check that Optuna will make its tables in no database of something else.

    Raises:
        InputError: if the file for searches is that of the store, or holds other tables.
    """
    storage = str(sweep.sweeper.get("storage") or "")
    path = sqlite_path(storage)
    if path is None:
        return
    try:
        held = tables(path) if path.exists() else set()
    except sqlite3.Error as error:
        held = {str(error)}
    tracking = sweep.config.tracking
    is_store = isinstance(tracking, MLflowTracking) and path == sqlite_path(tracking.uri)
    if is_store or (held and "studies" not in held):
        raise InputError(
            f"hydra.sweeper.storage={storage}: holds something else than searches; must be a file of its own, such as "
            "sqlite:///optuna.db"
        )


def search_settings(sweep: Sweep, record: SweepRecord) -> list[str]:
    """Return for Hydra which study a search has, and how many trials are left of `n_trials`; nothing for other sweeps.

    The study has the name of the sweep's parent run, so that a sweep that goes on goes on with its study.
    """
    if not is_search(sweep):
        return []
    import optuna

    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)  # a failed job is shown by Progress
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = objective_direction(sweep.config)
    name = record.parent.run_id or sweep.folder.name
    settings = [f"hydra.sweeper.direction={direction}", f"hydra.sweeper.study_name={quoted(name)}"]
    storage = sweep.sweeper.get("storage")
    if storage is None or name not in optuna.get_all_study_names(storage):
        return settings
    study = optuna.load_study(study_name=name, storage=storage)
    objectives = {tuple(sorted(job.values.items())): job.objective for job in record.jobs()}
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        objective = objectives.get(tuple(sorted((key, str(value)) for key, value in trial.params.items())))
        state = optuna.trial.TrialState.FAIL if objective is None else optuna.trial.TrialState.COMPLETE
        study.tell(trial.number, objective, state=state)
    finished = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    settings.append(f"hydra.sweeper.n_trials={max(sweep.jobs - finished, 0)}")
    seed = (sweep.sweeper.get("sampler") or {}).get("seed")
    if seed is not None:  # the same seed would draw the same values again
        settings.append(f"hydra.sweeper.sampler.seed={seed + len(study.trials)}")
    return settings
