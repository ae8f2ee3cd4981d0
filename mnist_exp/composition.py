"""Hydra's one door: overrides in, a checked `Config` out, and Hydra's complaints in this project's words.

Imports nothing heavy.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_exp.config import Config, check, objective_direction
from mnist_exp.errors import InputError, did_you_mean
from mnist_exp.experiment import Experiment
from mnist_exp.presets import CONF, Preset, check_values, offered, read_presets
from mnist_exp.redaction import without_secrets

# Hydra 1.3 warns where this is missing, 1.4 where it is given.
_HYDRA_DEFAULTS = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}

# Lets a callback be added on the command line without a plus, also to those of a preset. A config that belongs to no
# group is in no list of choices.
ConfigStore.instance().store(name="open_map", node={"training": {"callbacks": DictConfig({}, flags={"struct": False})}})


# The choices that plugins of Hydra bring, and which of this package's extras installs the plugin.
_EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/sweeper=optuna": "optuna",
    "hydra/sweeper/sampler=random": "optuna",
    "hydra/sweeper/sampler=tpe": "optuna",
}


@dataclass(frozen=True)
class Composed:
    """What Hydra composed for one run or job, before it is checked. `overrides`: all of its own, none for Hydra."""

    values: DictConfig
    overrides: tuple[str, ...]
    output: Path

    def experiment(self) -> Experiment:
        """The checked experiment.

        Raises:
            InputError: if a value cannot be used.
        """
        return Experiment(_checked(self.values), _typed(self.overrides), self.output)


@dataclass(frozen=True)
class Sweep:
    """Several jobs, as typed and as a preset has it.

    `overrides`: typed, `tracking` and `hydra` aside. `swept`: what was typed for each key that varies. `jobs`: their
    number. `config`: the first job's. `watches_test_set`: whether any job does. `folder`: for the sweep's own files,
    the jobs' folders in it. `sweeper`, `launcher`: Hydra's settings of them.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    jobs: int
    config: Config
    watches_test_set: bool
    folder: Path
    sweeper: dict[str, Any]
    launcher: dict[str, Any]


@dataclass(frozen=True)
class StartedSweep:
    """`run_jobs`: called with each job, also in other processes and on other machines, so it can be pickled, or with
    all that a launcher has; returns the objectives, None for a job that failed. `overrides`: for Hydra, beside those
    that were typed."""

    run_jobs: Callable[[Sequence[Composed]], Sequence[float | None]]
    overrides: tuple[str, ...]


def compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> Experiment:
    """Compose conf/ with `overrides`, as the command line does for one run.

    Args:
        overrides: what one types after `python -m mnist_exp`.
        config_dir: a folder with presets of one's own, as with `--config-dir`.

    Raises:
        InputError: if an override does not parse, names nothing that exists, or has a value that cannot be used, or a
            preset in `config_dir` sets what it may not.
    """
    _refuse_search_path(overrides)
    with _presets_of(config_dir):
        return _compose_run(overrides)


def recompose(recorded: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """Compose a recorded configuration, as config.yaml holds it, with `overrides` on top of it.

    It may come from others, so it is checked like a preset from elsewhere before Hydra gets it; where it was recorded
    (`tracking`) is left out.

    Args:
        recorded: the configuration.
        overrides: as for a run; of a group that is chosen anew, such as `model=cnn`, nothing recorded remains.

    Raises:
        InputError: if either has a value that cannot be used.
    """
    _refuse_search_path(overrides)
    own = {key: value for key, value in recorded.items() if key not in ("tracking", "resume")}
    check_values(own, "a recorded configuration")
    check({**own, "tracking": {"kind": "none"}, "resume": False})
    if any(override.startswith(("experiment=", "sweep=")) for override in overrides):
        raise InputError("experiment: is what was recorded; change single values or groups, such as model=cnn")
    chosen = {override.partition("=")[0] for override in overrides}
    own = {key: value for key, value in own.items() if not (isinstance(value, Mapping) and key in chosen)}
    choices = [
        {f"override /{group}": _choice(group, own[group]["kind"])}
        for group in ("dataset", "model", "preprocessing", "optimizer")
        if group in own
    ]
    with offered([Preset("experiment", "recorded", {"defaults": choices, **own})]):
        return _compose_run(["experiment=recorded", *overrides])


def _choice(group: str, kind: str) -> str:
    """The file in conf/ of a kind: its name is the kind itself, but for an optimizer, whose kind is Keras's name."""
    return next(
        path.stem for path in (CONF / group).glob("*.yaml") if OmegaConf.select(OmegaConf.load(path), "kind") == kind
    )


def command_line(
    run: Callable[[Composed], object], sweep: Callable[[Sweep], AbstractContextManager[StartedSweep]]
) -> None:
    """Let Hydra read `sys.argv`, and call `run` for one run, or `sweep` and what it starts for the jobs of several.

    `--help`, `--cfg`, `--info` and shell completion are Hydra's. Presets of a folder and the configuration are checked
    before Hydra makes an output folder; of a sweep, each value that is swept.

    Raises:
        InputError: as `compose` does, or that `run` raises.
    """
    # Hydra's parser takes flags only before overrides; people append -m to what they typed before.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in {"-m", "--multirun"})
    config_dir = _take_config_dir(sys.argv)
    arguments, unknown = get_args_parser().parse_known_args()
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such flag; a value is set by KEY=VALUE, such as training.epochs=3; see --help"
        )
    if arguments.experimental_rerun is not None:
        raise InputError("--experimental-rerun: reads a pickle, which can run any code; type the overrides again")
    for flag in ("config_path", "config_name", "config_dir"):
        if getattr(arguments, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: {_ONLY_CONFIG_DIR}")

    def run_one(jobs: Sequence[Composed]) -> Sequence[object]:
        return [run(job) for job in jobs]

    shows = arguments.help or arguments.hydra_help or arguments.shell_completion or arguments.cfg or arguments.info
    with _presets_of(config_dir), _complaints_in_our_words(arguments.overrides), _errors_raised():
        _refuse_search_path(arguments.overrides)
        if shows:
            _hydra_main(run_one)
        elif arguments.multirun:
            composed = _composed(arguments.overrides, RunMode.MULTIRUN)
            with sweep(_sweep(composed, arguments.overrides)) as started:
                sys.argv += started.overrides
                _hydra_main(started.run_jobs)
        else:
            _compose_run(arguments.overrides)
            _hydra_main(run_one)


_ONLY_CONFIG_DIR = (
    "would let Hydra read settings that can run code; presets of your own are read, as values, from --config-dir DIR"
)


def _take_config_dir(arguments: list[str]) -> str | None:
    """Take `--config-dir DIR` out of the arguments, so that Hydra does not search that folder."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found = [value] if equals else arguments[index + 1 : index + 2]
            del arguments[index : index + (1 if equals else 2)]
            if not found:
                raise InputError("--config-dir: needs a folder with presets; --config-dir DIR")
            return found[0]
    return None


def _presets_of(config_dir: str | Path | None) -> AbstractContextManager[None]:
    return offered(read_presets(Path(config_dir).expanduser()) if config_dir is not None else [])


def _refuse_search_path(overrides: Sequence[str]) -> None:
    with _complaints_in_our_words():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if re.split(r"[./\[\]]+", override.key_or_group)[:2] == ["hydra", "searchpath"]:
            raise InputError(f"hydra.searchpath: {_ONLY_CONFIG_DIR}")


def _compose_run(overrides: Sequence[str]) -> Experiment:
    composed = _composed(overrides, RunMode.RUN)
    if (chosen := composed.hydra.runtime.choices.get("sweep")) is not None:
        raise InputError(f"sweep={chosen}: several runs, for which type python -m mnist_exp -m sweep={chosen}")
    return Experiment(_checked(composed), _typed(overrides), Path(str(composed.hydra.run.dir)).resolve())


def _hydra_main(run_jobs: Callable[[Sequence[Composed]], Sequence[object]]) -> None:
    """Compose what was typed, as a run or as the jobs of a sweep, and call `run_jobs` with each, or as the launcher
    does."""
    failures: list[InputError] = []

    def compose_job(composed: DictConfig) -> Composed:
        settings = HydraConfig.get()
        return Composed(composed, tuple(settings.overrides.task), Path(settings.runtime.output_dir))

    def task(composed: DictConfig) -> object:
        try:
            return run_jobs([compose_job(composed)])[0]
        except InputError as error:  # of which Hydra would show a traceback
            failures.append(error)
            return None

    # For the launcher that has all jobs at once, in hydra_plugins/.
    vars(task).update(compose=compose_job, run_jobs=run_jobs)
    hydra.main(config_path=str(CONF), config_name="config", **_HYDRA_DEFAULTS)(task)()
    if failures:
        raise failures[0]


def _sweep(composed: DictConfig, overrides: Sequence[str]) -> Sweep:
    """What a sweep consists of, each of its values checked once, with the first of all others.

    Raises:
        InputError: for a value that cannot be used or is listed twice, jobs that cannot be ranked together, or a
            password in what Hydra writes to multirun.yaml.
    """
    written: Any = OmegaConf.to_container(composed, resolve=False)  # with interpolations as they were typed
    for key, address, instead in (
        ("tracking.uri", written["tracking"].get("uri"), "MLFLOW_TRACKING_URI"),
        ("hydra.sweeper.storage", written["hydra"]["sweeper"].get("storage"), "an option file"),
    ):
        if without_secrets(str(address)) != str(address):
            raise InputError(
                f"{key}: a sweep writes down what was typed; put an address with a password or parameters into "
                f"{instead}"
            )
    sweeper: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    launcher: Any = OmegaConf.to_container(composed.hydra.launcher)
    with hydra.initialize_config_dir(str(CONF), **_HYDRA_DEFAULTS):
        loaded = GlobalHydra.instance().hydra
        assert loaded is not None
        parser = OverridesParser.create(config_loader=loaded.config_loader)  # which knows the choices for glob(*)
    preset = parser.parse_overrides([f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()])
    parsed = {o.get_key_element(): o for o in [*preset, *parser.parse_overrides(list(overrides))]}
    swept = {key: _samples(o) for key, o in parsed.items() if o.is_sweep_override()}
    for key, samples in swept.items():
        if re.match(r"[+~]*(tracking|hydra|objective|direction|resume|backend)\b", key):
            raise InputError(f"{key}: is the same for all jobs of a sweep, so it has one value")
        if len(set(samples)) < len(samples):
            raise InputError(f"{key}={','.join(samples)}: each value may be listed once")
    fixed = [o.input_line or "" for o in parsed.values() if not o.is_sweep_override()]
    first = {key: samples[0] for key, samples in swept.items()}
    jobs = [first, *(first | {key: sample} for key, samples in swept.items() for sample in samples[1:])]
    configs = [
        _checked(_composed([*fixed, *(f"{key}={value}" for key, value in job.items())], RunMode.RUN)) for job in jobs
    ]
    if composed.hydra.runtime.choices.get("hydra/launcher") == "stacked":
        for config in configs:
            if config.training.engine != "compiled":
                raise InputError(
                    "hydra/launcher=stacked: trains jobs as one program, for which add backend=jax "
                    "training.engine=compiled"
                )
        if composed.hydra.job.env_set or composed.hydra.job.chdir:
            raise InputError(
                "hydra.job: with hydra/launcher=stacked, jobs run together, so none has its own env_set or chdir"
            )
    if len({(config.objective, objective_direction(config)) for config in configs}) > 1:
        raise InputError(f"objective={configs[0].objective}: not that of all jobs, which cannot be ranked then")
    return Sweep(
        overrides=_typed(overrides),
        swept={key.lstrip("+~"): (parsed[key].input_line or "").partition("=")[2] for key in swept},
        jobs=sweeper.get("n_trials") or math.prod(map(len, swept.values())),
        config=configs[0],
        watches_test_set=any(config.dataset.validation == "test" for config in configs),
        folder=Path(str(composed.hydra.sweep.dir)).absolute(),
        sweeper=sweeper,
        launcher=launcher,
    )


def _samples(override: Override) -> list[str]:
    """All values of a list or range, as one would type them; the ends of an interval."""
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    return [str(interval.start), str(interval.end)]


def _composed(overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """The configuration with Hydra's own under `hydra`; in MULTIRUN mode without what is swept."""
    with _complaints_in_our_words(overrides), hydra.initialize_config_dir(str(CONF), **_HYDRA_DEFAULTS):
        loaded = GlobalHydra.instance().hydra
        assert loaded is not None
        try:
            return loaded.compose_config("config", list(overrides), mode, with_log_configuration=False)
        except ValueError as error:  # a group that is given no name of a choice, such as model=5
            raise InputError(f"{' '.join(overrides)}: cannot be composed; {str(error).splitlines()[0]}") from error


def _checked(composed: DictConfig) -> Config:
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    with _complaints_in_our_words():
        values = OmegaConf.to_container(own, resolve=True)
    assert isinstance(values, dict)
    return check({str(key): value for key, value in values.items()})


def _typed(overrides: Sequence[str]) -> tuple[str, ...]:
    """What describes the experiment itself. An address in `tracking` may hold a password, which no run records."""
    return tuple(o for o in overrides if not o.lstrip("+~").startswith(("tracking", "hydra")))


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """Make Hydra raise its errors; by itself it prints them and exits. A user who set the variable keeps it."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


@contextlib.contextmanager
def _complaints_in_our_words(overrides: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except OverrideParseException as error:
        raise InputError(
            f"{error.override}: cannot be read; write KEY=VALUE, such as model.hidden=64 or 'model.hidden=[128,64]'"
        ) from error
    except YAMLError as error:
        raise InputError(f"a preset cannot be read: {' '.join(str(error).split())}") from error
    except MissingConfigException as error:
        raise InputError(_explain_missing(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error, overrides)) from error


def _explain_missing(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if (extra := _EXTRAS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice}: is not installed; pip install 'mnist_exp[{extra}]' brings it"
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    hint = did_you_mean(choice, options) or ";"
    return f"{group}={choice}: no such choice{hint} the choices are {', '.join(options)}"


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line that names the key and its value; where there is no such key, the nearest that there is."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    parent = getattr(cause, "parent_node", None)
    key = getattr(cause, "full_key", None)
    if str(error).startswith("Ambiguous value"):
        return f"{str(error).split(chr(39))[1]}: several values are a sweep, for which add -m; a list is written [1,2]"
    if str(error).startswith("Error merging override"):
        return f"{str(error).split(' ', 3)[3].splitlines()[0]}: must be a map of keys to values, {{KEY: VALUE}}"
    if not key or not isinstance(parent, DictConfig) or "not in struct" not in str(cause):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]
    typed = next((o for o in overrides if o.lstrip("+~").startswith(key)), key)
    last = key.rpartition(".")[2]
    siblings = [str(name) for name in parent if name not in ("hydra", "kind")]
    elsewhere = [name for name in _leaves(parent._get_root()) if name.endswith(f".{last}")]
    near = f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(last, siblings)
    where = key.rpartition(".")[0] or "the configuration"
    if "kind" in parent:
        where += f" ({parent['kind']})"
    return f"{typed}: {where} has no such key" + (near or f"; its keys are {', '.join(siblings)}")


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for name in node:
        if name == "hydra":
            continue
        yield f"{prefix}{name}"
        if isinstance(child := node._get_node(name), DictConfig) and not (
            child._is_none() or child._is_interpolation()
        ):
            yield from _leaves(child, f"{prefix}{name}.")
