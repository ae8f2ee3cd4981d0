"""From what is typed after -m to a checked `Sweep`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from hydra.core.override_parser.types import Override as ParsedOverride
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.composition import check_job, check_output
from mnist_exp.config.hydra_api import JobLoader, parser_of_conf
from mnist_exp.config.overrides import SHARED_BY_JOBS, Override, of_the_experiment
from mnist_exp.config.race import FindBestRows, plan_race
from mnist_exp.config.redaction import shown_address
from mnist_exp.config.schema import objective_direction
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep


def sweep_of(
    composed: DictConfig,
    overrides: Sequence[str],
    code: CodeFile | None,
    find_best_rows: FindBestRows,
    loader: JobLoader,
) -> Sweep:
    """Return what a sweep consists of, each of its values checked once, with the first of all others.

    Args:
        composed: in Hydra's MULTIRUN mode.
        overrides: as typed.
        code: the file of the user's own that they name.
        find_best_rows: reads the store, for a race between the best rows of an earlier sweep.
        loader: makes the configurations of the jobs.

    Raises:
        InputError: for a value that cannot be used or is listed twice, jobs that cannot be ranked together, or a
            password in what Hydra writes to multirun.yaml.
    """
    check_output(composed, "hydra.sweep.dir")
    _refuse_passwords(composed)
    sweeper: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    parser = parser_of_conf()
    preset = parser.parse_overrides([f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()])
    parsed = {one.get_key_element(): one for one in [*preset, *parser.parse_overrides(list(overrides))]}
    kind = composed.hydra.runtime.choices.get("hydra/sweeper")
    for one in parsed.values():
        if kind in ("basic", "grid", "race") and one.is_sweep_override() and not one.is_discrete_sweep():
            raise InputError(
                f"{one.input_line}: is a range to draw from, for sweep=random or sweep=optuna; here, list values: "
                f"{one.get_key_element()}=A,B"
            )
    varied = {Override.of(one.input_line or ""): _samples(one) for one in parsed.values() if one.is_sweep_override()}
    fixed = [one.input_line or "" for one in parsed.values() if not one.is_sweep_override()]
    for override, samples in varied.items():
        if override.is_below(*SHARED_BY_JOBS):
            raise InputError(f"{override.key}: must have one value, which all jobs of a sweep share")
        if not samples:
            raise InputError(f"{override.text}: has no value; type at least one, such as {override.key}=0,1")
        if len(set(samples)) < len(samples):
            raise InputError(f"{override.key}={','.join(samples)}: must list each value only once")
    race = plan_race(sweeper, varied, fixed, code, find_best_rows) if kind == "race" else None
    first = {override: samples[0] for override, samples in varied.items()}
    jobs = [first, *(first | {override: sample} for override, samples in varied.items() for sample in samples[1:])]
    shared = [text for text in fixed if not Override.of(text).is_below("hydra")]
    each_value_once = [[*shared, *(one.set_to(value) for one, value in job.items())] for job in jobs]
    checked = race.overrides if race is not None and not varied else each_value_once
    configs = [check_job(loader, composed, job, code) for job in checked]
    if composed.hydra.runtime.choices.get("hydra/launcher") == "stacked":
        if any(config.backend != "jax" for config in configs):
            raise InputError("hydra/launcher=stacked: trains jobs as one program, which needs backend=jax")
        if composed.hydra.job.env_set or composed.hydra.job.chdir:
            raise InputError(
                "hydra.job: with hydra/launcher=stacked, all jobs run in one process; leave out env_set and chdir"
            )
    if len({(config.objective, objective_direction(config)) for config in configs}) > 1:
        raise InputError(f"objective={configs[0].objective}: must be the same for all jobs, or they cannot be ranked")
    if race is not None and (pruning := configs[0].prune) is not None:
        raise InputError(
            f"prune={pruning.kind}: leave it out of a race, which itself drops what is beaten, and compares whole runs"
        )
    launcher: Any = OmegaConf.to_container(composed.hydra.launcher)
    swept = {override.key: override.value for override in varied}
    jobs_in_all = sweeper.get("n_trials") or math.prod(map(len, varied.values()))
    if race is not None:
        swept = {key: ",".join(dict.fromkeys(row[key] for row in race.values)) for key in race.values[0]}
        swept, jobs_in_all = swept | {"seed": "as the race goes"}, race.seeds * len(race.values)
    return Sweep(
        overrides=of_the_experiment(overrides),
        swept=swept,
        jobs=jobs_in_all,
        configs=configs,
        folder=Path(str(composed.hydra.sweep.dir)).absolute(),
        sweeper=sweeper,
        launcher=launcher,
        race=race,
    )


def _refuse_passwords(composed: DictConfig) -> None:
    written: Any = OmegaConf.to_container(composed, resolve=False)  # with interpolations as they were typed
    for key, address, instead in (
        ("tracking.uri", written["tracking"].get("uri"), "MLFLOW_TRACKING_URI"),
        ("hydra.sweeper.storage", written["hydra"]["sweeper"].get("storage"), "an option file"),
    ):
        if shown_address(str(address)) != str(address):
            raise InputError(
                f"{key}: a sweep writes what you type into a file; put an address with a password or parameters "
                f"into {instead}"
            )


def _samples(override: ParsedOverride) -> list[str]:
    """Return all values of a list or range, as one would type them; the ends of an interval."""
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    return [str(interval.start), str(interval.end)]
