"""All that needs private parts of Hydra 1.3 and 1.4, but for `hydra_plugins/`; importing fails where they are gone.

Hydra's public `compose` leaves out `hydra`, with the output folder, and has no MULTIRUN mode.
"""

import io
import os
import re
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Container, Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext, redirect_stdout
from copy import deepcopy
from typing import Any, NoReturn, Self

import hydra
from hydra import version
from hydra._internal import config_loader_impl
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.parsing import parse
from mnist_exp.config.presets import CONF
from mnist_exp.errors import InputError
from mnist_exp.version import __version__

# Hydra 1.3 warns where this is missing, 1.4 where it is given.
_DEFAULTS = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}

_MOST_KEPT = 32  # composed jobs, which go to other processes and stay in memory

if not hasattr(Hydra, "compose_config"):
    raise ImportError(f"Hydra {hydra.__version__} has no compose_config; mnist_exp was written against 1.3 and 1.4")


def read_arguments(typed: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Parse arguments as Hydra does, and return unknown ones, too; `--version` prints ours and exits."""
    # People append -m to an earlier line, but Hydra's parser takes flags only before overrides.
    typed = sorted(typed, key=lambda argument: argument not in {"-m", "--multirun"})
    # "resolve" lets our --version replace Hydra's.
    parser = _Parser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    parser.add_argument("--version", action="version", version=f"mnist_exp {__version__}")
    return parser.parse_known_args(typed)


class _Parser(ArgumentParser):
    """Raises what Python's prints before it exits."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.removeprefix('argument ')}; see --help")


def answer(arguments: Namespace) -> None:
    """Answer `--help`, `--cfg`, `--info` or shell completion, as `@hydra.main` does."""
    _raise_errors()
    with _fresh_hydra():
        if _DEFAULTS:
            version.setbase(_DEFAULTS["version_base"])
        help_text = io.StringIO()
        try:
            with redirect_stdout(help_text) if arguments.help else nullcontext():
                _run_hydra(arguments, get_args_parser(), lambda _: None, str(CONF), "config")
        finally:  # after help, Hydra exits
            for line in help_text.getvalue().splitlines():  # of which Hydra lists a group's choices in one
                print(textwrap.fill(line, 80, subsequent_indent="  ", break_on_hyphens=False) if line else "")


def compose_conf(overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """Compose conf/, with Hydra's own configuration under `hydra`; in MULTIRUN mode without what is swept."""
    with _hydra_of_conf() as loaded:
        return loaded.compose_config("config", list(overrides), mode, with_log_configuration=False)


class JobLoader(ConfigLoaderImpl):
    """Hydra's loader, but jobs that differ only in numbers, texts and lists are copies of the first of them.

    A copy takes less than a tenth of the time. Launchers send the loader to their processes.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        # A job, and the keys of its plain values, by its other overrides.
        self._composed: dict[tuple[str, ...], tuple[Set[str], DictConfig]] = {}

    @classmethod
    def of_conf(cls) -> Self:
        """Return a loader of conf/."""
        with _hydra_of_conf() as loaded:
            return cls(loaded.config_loader.get_search_path())

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of a job, with unresolved interpolations.

        Args:
            master_config: the sweep's, in MULTIRUN mode.
            sweep_overrides: the job's, but for those of `hydra`, which come from the sweep.
        """
        hydra_lines: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        parsed = parse([*hydra_lines, *sweep_overrides])
        choices = master_config.hydra.runtime.choices
        plain = _plain_values(parsed, choices)
        lines = [(one.key_or_group in choices, one.input_line or "") for one in parsed if one not in plain]
        # The order of groups does not matter.
        others = (*sorted(line for group, line in lines if group), *(line for group, line in lines if not group))
        values = {one.key_or_group for one in plain}
        replaced, composed = self._composed.get(others, ({""}, None))
        if composed is None or not replaced <= values:
            composed = super().load_sweep_config(master_config, sweep_overrides)
            if len(self._composed) >= _MOST_KEPT:
                self._composed.pop(next(iter(self._composed)))
            self._composed[others] = values, composed
        job = deepcopy(composed)
        self._apply_overrides_to_config(plain, job)
        job.hydra.overrides.hydra, job.hydra.overrides.task = hydra_lines, list(sweep_overrides)
        job.hydra.runtime.cwd = os.getcwd()  # noqa: PTH109, as Hydra does
        if (dirname := getattr(config_loader_impl, "get_overrides_dirname", None)) is not None:  # 1.4 has a resolver
            job.hydra.job.override_dirname = dirname(
                parsed[len(hydra_lines) :], **job.hydra.job.config.override_dirname
            )
        OmegaConf.copy_cache(from_config=master_config, to_config=job)
        return job


def _plain_values(overrides: Sequence[Override], choices: Container[str]) -> list[Override]:
    """Return the overrides that set a number, a text or a list, and that no other one touches."""
    keys = [one.key_or_group for one in overrides]
    # Choices of groups come before all values.
    paths = [["/"] if key in choices else re.split(r"[.\[\]]+", key) for key in keys]
    return [
        one
        for one, path in zip(overrides, paths, strict=True)
        if path != ["/"]
        and one.type == OverrideType.CHANGE
        and one.package is None
        and re.fullmatch(r"[\w.]+", one.key_or_group)
        and isinstance(one.value(), str | int | float | list | None)
        and sum(other[: len(path)] == path[: len(other)] for other in paths) == 1
    ]


def launch_jobs(overrides: Sequence[str], loader: JobLoader, task: TaskFunction) -> None:
    """Run `task` for each job of a sweep through Hydra's sweeper and launcher, as `@hydra.main` does with -m.

    `loader` makes the configurations of the jobs.
    """
    _raise_errors()
    with _hydra_of_conf() as loaded:
        loaded.config_loader = loader
        loaded.multirun("config", task, [*overrides, "hydra.mode=MULTIRUN"])


def _raise_errors() -> None:
    """Let Hydra raise errors instead of exiting, and no process import from its current folder."""
    os.environ |= {"HYDRA_FULL_ERROR": "1", "PYTHONSAFEPATH": "1"}


def run_composed(composed: DictConfig, task: Callable[[], object]) -> None:
    """Call `task` as `@hydra.main` does for a run: with its output folder, log and `hydra.callbacks`.

    Hydra's own entry would compose the overrides twice more. Whatever `task` raises is raised.
    """
    raised: list[Exception] = []

    def called(_: DictConfig) -> object:
        try:
            return task()
        except Exception as error:
            raised.append(error)
            raise  # callbacks get a failed job

    with _hydra_of_conf() as loaded:
        composed.hydra.mode = RunMode.RUN
        configure_log(composed.hydra.hydra_logging, composed.hydra.verbose)
        callbacks = Callbacks(composed)
        callbacks.on_run_start(config=composed, config_name="config")
        context = HydraContext(loaded.config_loader, callbacks)
        returned = run_job(called, composed, "hydra.run.dir", None, context, configure_logging=True)
        callbacks.on_run_end(config=composed, config_name="config", job_return=returned)
    if raised:
        raise raised[0]


@contextmanager
def _hydra_of_conf() -> Iterator[Hydra]:
    with _fresh_hydra(), hydra.initialize_config_dir(str(CONF), **_DEFAULTS):
        loaded = GlobalHydra.instance().hydra
        assert loaded is not None
        yield loaded


@contextmanager
def _fresh_hydra() -> Iterator[None]:
    """Give the block a Hydra of its own, since the user's program may be in a `@hydra.main`."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer
