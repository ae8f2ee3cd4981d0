"""The best rows of a sweep that was run before, for a race between them."""

import os
import re
from pathlib import Path

from mnist_exp.config.presets import parse_values
from mnist_exp.config.schema import Config, objective_direction
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import BestRows
from mnist_exp.sweeps import ranking
from mnist_exp.tracking.reading import find_sweep
from mnist_exp.tracking.record import Parent
from mnist_exp.tracking.store import connect_existing
from mnist_exp.tracking.tracker import stored, tracker_of


def best_rows(config: Config, sweep: str, top: int) -> BestRows:
    """Read a sweep or search from the store; return its best rows, with the seeds that these have run.

    Args:
        config: where the store is, and what ranks.
        sweep: the id of the parent run, or a beginning of it that no other run has.
        top: how many rows.

    Raises:
        InputError: if there is no such sweep, nothing in it has finished, or it was ranked by another objective, or
            varied nothing but the seed.
    """
    said = f"hydra.sweeper.of={sweep}"
    tracking = stored(config.tracking)
    client = connect_existing(tracking.uri)
    try:
        run = find_sweep(client, tracking.uri, sweep)
    except InputError as error:
        raise InputError(f"hydra.sweeper.of={error}") from error
    experiment = str(client.get_experiment(run.info.experiment_id).name)
    if experiment != tracking.experiment:
        raise InputError(f"{said}: is in another experiment; type tracking.experiment={printable(experiment)}")
    record = tracker_of(tracking).join_sweep(Parent(run.info.run_id, tracking, (), Path(), Path.cwd(), os.getpid()))
    jobs = record.jobs()
    rows = ranking.rank(jobs, objective_direction(config))[:top]
    if not rows:
        raise InputError(f"{said}: has no finished job")
    configuration = parse_values(record.configuration(rows[0].jobs[0]), said)
    if (ranked_by := configuration.get("objective")) != config.objective:
        raise InputError(f"objective={config.objective}: {said} was ranked by {ranked_by}; type objective={ranked_by}")
    fixed = str(configuration.get("seed"))  # where it does not vary
    seeds = {job.values.get("seed", fixed) for job in jobs if job.status == "FINISHED"}
    values = [{key: value for key, value in row.values.items() if key != "seed"} for row in rows]
    if not values[0] or any(row.keys() != values[0].keys() for row in values):
        raise InputError(f"{said}: its jobs do not differ in the same keys")
    return BestRows(values, frozenset(int(seed) for seed in seeds if re.fullmatch("[0-9]{1,10}", seed)), configuration)
