"""The best rows of an earlier sweep, for a race between them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mnist_exp.config.composition import check_composed
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.overrides import Override, flatten
from mnist_exp.config.parsing import parse
from mnist_exp.config.presets import may_vary, parse_values
from mnist_exp.config.schema import Config, keys, objective_direction, require_store
from mnist_exp.errors import InputError
from mnist_exp.experiment import result_settings
from mnist_exp.sweeps.kind import SweepOverrides
from mnist_exp.sweeps.ranking import rank
from mnist_exp.tracking.reading import find_sweep, read_config, read_jobs
from mnist_exp.tracking.records import latest_attempts
from mnist_exp.tracking.store import connect_existing

_MAX_NOTES = 10


def best_rows(
    typed: SweepOverrides, sweep: str, top: int
) -> tuple[list[dict[Override, str]], frozenset[int], list[str]]:
    """Return a sweep's best rows as checked overrides.

    Args:
        typed: the overrides of the command.
        sweep: an id as for `find_run`.
        top: the number of rows.

    Returns:
        The overrides of each row, the seeds of the sweep, and lines on what differs today.
    """
    rows, seeds, before = read_best_rows(_compose(typed, []), sweep, top)
    check_rows(rows, sweep, [Override.parse(text).key for text in typed.fixed])
    overrides = [{Override.parse(f"{key}={value}"): value for key, value in row.items()} for row in rows]
    varied = re.compile(rf"({'|'.join(map(re.escape, ['seed', *rows[0]]))})(\.|$)")
    config = _compose(typed, [override.text for override in overrides[0]])
    then, now = flatten(result_settings(before)), flatten(result_settings(asdict(config)))
    keys = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key) and not varied.match(key)]
    notes = [f"{key} is {now.get(key, 'not set')}; in {sweep} it was {then.get(key, 'not set')}" for key in keys]
    more = [f"and {len(keys) - _MAX_NOTES} keys more differ"] if len(keys) > _MAX_NOTES else []
    return overrides, seeds, notes[:_MAX_NOTES] + more


def read_best_rows(config: Config, sweep: str, top: int) -> tuple[list[dict[str, str]], frozenset[int], dict[str, Any]]:
    """Return a sweep's best rows, its seeds, and its best job's configuration.

    The rows have no `seed`.

    Args:
        config: names the store and the objective.
        sweep: the id of the parent run, or a beginning that no other run has.
        top: how many rows.

    Raises:
        InputError: if there is no such sweep, none of its jobs has finished, it was ranked by another objective, or its
            jobs differ in the seed alone, or in different keys.
    """
    name = f"hydra.sweeper.from_sweep={sweep}"
    tracking = require_store(config.tracking)
    client = connect_existing(tracking.uri)
    try:
        run = find_sweep(client, tracking.uri, sweep)
    except InputError as error:
        raise InputError(f"hydra.sweeper.from_sweep={error}") from error
    experiment = str(client.get_experiment(run.tracking["experiment_id"]).name)
    if experiment != tracking.experiment:
        raise InputError(f"{name}: is in another experiment; type tracking.experiment={experiment}")
    jobs = latest_attempts(read_jobs(client, run))
    rows = rank(jobs, objective_direction(config))[:top]
    if not rows:
        raise InputError(f"{name}: has no finished job")
    configuration = parse_values(read_config(client, rows[0].jobs[0].run_id), name)
    if (ranked_by := configuration.get("objective")) != config.objective:
        raise InputError(f"objective={config.objective}: {name} was ranked by {ranked_by}; type objective={ranked_by}")
    fixed = str(configuration.get("seed"))  # where it does not vary
    seeds = {job.values.get("seed", fixed) for job in jobs if job.status == "FINISHED"}
    values = [{key: value for key, value in row.values.items() if key != "seed"} for row in rows]
    if not values[0] or any(row.keys() != values[0].keys() for row in values):
        raise InputError(f"{name}: its jobs do not differ in the same keys")
    return values, frozenset(int(seed) for seed in seeds if re.fullmatch("[0-9]{1,10}", seed)), configuration


def check_rows(rows: Sequence[Mapping[str, str]], sweep: str, typed: Sequence[str]) -> None:
    """Raise InputError if a stored row sets a typed key, or one not for presets.

    Args:
        rows: values by full key, from a store.
        sweep: the id of their sweep, for messages.
        typed: the keys that the user set.
    """
    name = f"hydra.sweeper.from_sweep={sweep}"
    for key, value in (item for row in rows for item in row.items()):
        if key in typed:
            raise InputError(f"{key}: varies among the best rows of {name}; leave it out")
        own = Override.parse(f"{key}={value}")
        shared = own.is_below("hydra", "sweep", *keys("shared"))
        if not may_vary(key, value) or shared or parse([own.text])[0].is_sweep_override():
            raise InputError(f"{name}: {key}={value}: a sweep in a store may not set this; type the values yourself")


def _compose(typed: SweepOverrides, row: Sequence[str]) -> Config:
    return check_composed(compose_values([*typed.fixed, *row]), typed.code)
