"""Wrap the private parts of Hydra 1.3 and 1.4, except those in `hydra_plugins/`.

Importing fails if Hydra lacks them.
"""

import io
import os
import re
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Container, Sequence, Set
from contextlib import nullcontext, redirect_stdout
from copy import deepcopy
from typing import Any, NoReturn, Self

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config import CONF
from mnist_exp.config.hydra_compose import DEFAULTS, fresh_hydra, record_typed, use_conf
from mnist_exp.config.parsing import parse, to_hydra
from mnist_exp.errors import InputError
from mnist_exp.version import __version__

_MAX_KEPT_JOBS = 32  # they go to other processes and stay in memory


def read_arguments(typed: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Parse arguments as Hydra does, and return unknown ones, too.

    `--version` prints ours and exits.
    """
    # People append -m to an earlier line, but Hydra's parser takes flags only before overrides.
    typed = sorted(typed, key=lambda argument: argument not in {"-m", "--multirun"})
    # "resolve" lets our --version replace Hydra's.
    parser = _Parser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    parser.add_argument("--version", action="version", version=f"mnist_exp {__version__}")
    return parser.parse_known_args(typed)


class _Parser(ArgumentParser):
    """Raises the error that Python's parser prints before it exits."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.removeprefix('argument ')}; see --help")


def answer(arguments: Namespace) -> None:
    """Answer `--help`, `--info` or shell completion, as `@hydra.main` does."""
    _raise_errors()
    with fresh_hydra():
        if DEFAULTS:
            version.setbase(DEFAULTS["version_base"])
        help_text = io.StringIO()
        try:
            with redirect_stdout(help_text) if arguments.help else nullcontext():
                _run_hydra(arguments, get_args_parser(), lambda _: None, str(CONF), "config")
        finally:  # after help, Hydra exits
            for line in help_text.getvalue().splitlines():  # Hydra lists a group's choices in one line
                print(textwrap.fill(line, 80, subsequent_indent="  ", break_on_hyphens=False) if line else "")


class JobLoader(ConfigLoaderImpl):
    """Load jobs, those that differ only in plain values as copies of the first.

    A copy takes less than a tenth of the time. Launchers send the loader to their processes.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        # A job, and the keys of its plain values, by its other overrides.
        self._composed: dict[tuple[str, ...], tuple[Set[str], DictConfig]] = {}

    @classmethod
    def of_conf(cls) -> Self:
        """Return a loader of conf/."""
        with use_conf():
            return cls(GlobalHydra.instance().config_loader().get_search_path())

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of a job, with unresolved interpolations.

        Args:
            master_config: the sweep's, in MULTIRUN mode.
            sweep_overrides: the job's, but for those of `hydra`, which come from the sweep.
        """
        lines_of_hydra: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)  # unresolved
        parsed = parse([*lines_of_hydra, *sweep_overrides])
        choices = master_config.hydra.runtime.choices
        plain = _plain_values(parsed, choices)
        lines = [
            (override.key_or_group in choices, override.input_line or "")
            for override in parsed
            if override not in plain
        ]
        # The order of groups does not matter.
        others = (*sorted(line for group, line in lines if group), *(line for group, line in lines if not group))
        values = {override.key_or_group for override in plain}
        replaced, composed = self._composed.get(others, ({""}, None))
        if composed is None or not replaced <= values:
            composed = super().load_sweep_config(master_config, to_hydra(parsed[len(lines_of_hydra) :]))
            if len(self._composed) >= _MAX_KEPT_JOBS:
                self._composed.pop(next(iter(self._composed)))
            self._composed[others] = values, composed
        job = deepcopy(composed)
        self._apply_overrides_to_config(plain, job)
        record_typed(job, parsed)
        job.hydra.runtime.cwd = os.getcwd()  # noqa: PTH109, as Hydra does
        OmegaConf.copy_cache(from_config=master_config, to_config=job)
        return job


def _plain_values(overrides: Sequence[Override], choices: Container[str]) -> list[Override]:
    """Return the overrides of a number, text or list that no other one touches."""
    keys = [override.key_or_group for override in overrides]
    # Choices of groups come before all values.
    paths = [["/"] if key in choices else re.split(r"[.\[\]]+", key) for key in keys]
    return [
        override
        for override, path in zip(overrides, paths, strict=True)
        if path != ["/"]
        and override.type == OverrideType.CHANGE
        and override.package is None
        and re.fullmatch(r"[\w.]+", override.key_or_group)
        and isinstance(override.value(), str | int | float | list | None)
        and sum(other[: len(path)] == path[: len(other)] for other in paths) == 1
    ]


def launch_jobs(sweep: DictConfig, loader: JobLoader, task: TaskFunction) -> None:
    """Run `task` for each job of a composed sweep, as `@hydra.main` does with -m.

    Args:
        sweep: the composed sweep.
        loader: composes its jobs.
        task: called with the configuration of each job.
    """
    _raise_errors()
    settings = HydraConfig.instance()
    outer = settings.cfg
    with use_conf():
        sweep.hydra.mode = RunMode.MULTIRUN
        configure_log(sweep.hydra.hydra_logging, sweep.hydra.verbose)
        callbacks = Callbacks(sweep)
        try:
            settings.set_config(sweep)
            callbacks.on_multirun_start(config=sweep, config_name="config")
            plugins, context = Plugins.instance(), HydraContext(loader, callbacks)
            sweeper = plugins.instantiate_sweeper(config=sweep, hydra_context=context, task_function=task)
            arguments: Any = OmegaConf.to_container(sweep.hydra.overrides.task)
            sweeper.sweep(arguments=arguments)
            callbacks.on_multirun_end(config=sweep, config_name="config")
        finally:
            settings.cfg = outer


def _raise_errors() -> None:
    """Let Hydra raise instead of exiting, and no process import from its folder."""
    os.environ |= {"HYDRA_FULL_ERROR": "1", "PYTHONSAFEPATH": "1"}


def run_composed(composed: DictConfig, task: Callable[[], object]) -> None:
    """Call `task` as `@hydra.main` does: with output folder, log and callbacks.

    Hydra's own entry would compose the overrides twice more. Whatever `task` raises is raised.
    """
    raised: list[Exception] = []

    def called(_: DictConfig) -> object:
        try:
            return task()
        except Exception as error:
            raised.append(error)
            raise  # callbacks get a failed job

    with use_conf():
        composed.hydra.mode = RunMode.RUN
        configure_log(composed.hydra.hydra_logging, composed.hydra.verbose)
        callbacks = Callbacks(composed)
        callbacks.on_run_start(config=composed, config_name="config")
        context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
        returned = run_job(called, composed, "hydra.run.dir", None, context, configure_logging=True)
        callbacks.on_run_end(config=composed, config_name="config", job_return=returned)
    if raised:
        raise raised[0]
