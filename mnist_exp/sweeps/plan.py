"""Make a checked sweep and its kind from overrides, and run it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.composition import check_job, offer_user_choices
from mnist_exp.config.conversion import convert
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.hydra_settings import check_launcher, check_output, check_subfolders
from mnist_exp.config.overrides import Override, select_experiment
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.parsing import count, parse
from mnist_exp.config.schema import keys, objective_direction
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep, SweepResult
from mnist_exp.sweeps.kind import Grid, Kind, Settings, SweepOverrides, check_number
from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.search import Search

_KINDS: dict[str, type[Kind]] = {"grid": Grid, "race": Race, "search": Search}
_PRESETS = {"race": "race", "search": "random or sweep=optuna"}
_USERS = {  # the kind that a setting is for
    **dict.fromkeys(("n_trials", "n_jobs", "sampler"), "search"),
    **dict.fromkeys(("initial_seeds", "max_jobs", "indifference", "from_sweep", "n_best"), "race"),
}


def run_sweep(overrides: Sequence[str], config_dir: str | Path | None = None, *, verbose: bool = True) -> SweepResult:
    """Run and rank a sweep's jobs, as `-m OVERRIDES --config-dir DIR` does.

    Args:
        overrides: as after -m.
        config_dir: a folder of presets.
        verbose: whether to print as a command does.

    Raises:
        InputError: for bad overrides or presets, or a store that cannot be written.
    """
    with offer_user_choices(config_dir, overrides, in_sweep=True) as code, as_input_errors(overrides):
        loader = JobLoader.of_conf()
        sweep, kind = plan(compose_values(overrides), overrides, code, loader)
        from mnist_exp.sweeps.sweep import run_planned  # only now, since it imports NumPy

        return run_planned(replace(sweep, verbose=verbose), kind, overrides, loader)


def plan(
    composed: DictConfig, overrides: Sequence[str], code: CodeFile | None, loader: JobLoader
) -> tuple[Sweep, Kind]:
    """Return the sweep, each of its values checked, and its kind.

    Args:
        composed: the sweep, without the values that vary.
        overrides: as typed.
        code: the file that they name.
        loader: composes its jobs.

    Raises:
        InputError: for a value that cannot be used or is listed twice, or jobs that cannot be ranked together.
    """
    check_output(composed, "hydra.sweep.dir")
    check_launcher(composed)
    settings = _settings(composed)
    chosen = _KINDS[settings.kind]
    typed = _merge_overrides(settings, overrides, code, loader, draws=chosen.draws)
    check_subfolders(composed, [override.key for override in typed.varied], draws=chosen.draws)
    kind = chosen.from_overrides(typed)
    configs = [check_job(loader, composed, job, code) for job in kind.list_checks(typed)]
    if composed.hydra.runtime.choices.get("hydra/launcher") == "stacked":
        if any(config.backend != "jax" for config in configs):
            raise InputError("hydra/launcher=stacked: trains jobs as one program, which needs backend=jax")
        if composed.hydra.job.env_set or composed.hydra.job.chdir:
            raise InputError(
                "hydra.job: with hydra/launcher=stacked, all jobs run in one process; leave out env_set and chdir"
            )
    if len({(config.objective, objective_direction(config)) for config in configs}) > 1:
        raise InputError(f"objective={configs[0].objective}: must be the same for all jobs, or they cannot be ranked")
    kind.check(configs)
    launcher: Any = OmegaConf.to_container(composed.hydra.launcher)
    folder = Path(str(composed.hydra.sweep.dir)).absolute()
    return Sweep(select_experiment(overrides), kind.swept, configs, folder, launcher), kind


def _settings(composed: DictConfig) -> Settings:
    """Return the settings of `hydra.sweeper`.

    Raise InputError for one that cannot be used.
    """
    values: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    own = {key: value for key, value in values.items() if key not in ("_target_", "_recursive_")}
    settings: Settings = convert(Settings, own, "hydra.sweeper")
    typed: Any = OmegaConf.to_container(composed.hydra.overrides.hydra)
    for override in map(Override.parse, typed):
        key = override.key.removeprefix("hydra.sweeper.").partition(".")[0]
        if override.key.startswith("hydra.sweeper.") and (users := _USERS.get(key, settings.kind)) != settings.kind:
            raise InputError(
                f"{override.text}: is a setting of a {users}; add sweep={_PRESETS[users]}, or leave it out"
            )
    return settings


def _merge_overrides(
    settings: Settings, overrides: Sequence[str], code: CodeFile | None, loader: JobLoader, *, draws: bool
) -> SweepOverrides:
    """Return the last override of each key, a preset's first.

    `draws` allows ranges.
    """
    preset = parse([f"{key}={value}" for key, value in (settings.params or {}).items()], loader)
    parsed = {override.get_key_element(): override for override in [*preset, *parse(overrides, loader)]}
    varied: dict[Override, Sequence[str]] = {}
    for given in parsed.values():
        if not given.is_sweep_override():
            continue
        override = Override.parse(given.input_line or "")
        if given.is_discrete_sweep():
            check_number(number := count(given), [override.text])
            samples = list(islice(given.sweep_string_iterator(), int(number) + 1))
        elif draws and isinstance(ends := given.value(), IntervalSweep):
            samples = _ends(override, ends)
        else:
            raise InputError(
                f"{override.text}: is a range to draw from, for sweep=random or sweep=optuna; here, list values: "
                f"{override.key}=A,B"
            )
        varied[override] = samples
        if override.is_below("hydra", "sweep", *keys("shared")):
            raise InputError(f"{override.key}: must have one value, which all jobs of a sweep share")
        if not samples:
            raise InputError(f"{override.text}: has no value; type at least one, such as {override.key}=0,1")
        if len(set(samples)) < len(samples):
            raise InputError(f"{override.key}={','.join(samples)}: must list each value only once")
    fixed = [override.input_line or "" for override in parsed.values() if not override.is_sweep_override()]
    return SweepOverrides(settings, varied, fixed, code)


def _ends(override: Override, values: IntervalSweep) -> list[str]:
    least = 0 if "log" in values.tags else -math.inf
    if not least < (values.start or 0) <= (values.end or 0) < math.inf:
        above = " above 0" if "log" in values.tags else ""
        raise InputError(f"{override.text}: must be interval(FROM, TO), finite numbers{above} with FROM at most TO")
    return [str(values.start), str(values.end)]
