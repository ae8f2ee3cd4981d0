"""What is typed after `python -m mnist_exp`: one run, a sweep, or a question to Hydra. Imports nothing heavy."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.composition import (
    ONLY_CONFIG_DIR,
    Composed,
    compose_values,
    run_of,
    user_choices,
)
from mnist_exp.config.hydra_api import JobLoader, answer, launch_jobs, read_arguments, run_composed
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.race import FindBestRows
from mnist_exp.config.redaction import without_secrets
from mnist_exp.config.sweep import sweep_of
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep

RunJobs = Callable[[Sequence[Composed]], Sequence[object]]


@dataclass(frozen=True)
class Task:
    """What Hydra calls with each job of a sweep, and what the plugins in hydra_plugins/ take from it.

    A launcher may send it to other processes and machines.

    Attributes:
        run_jobs: called with one job or, by the stacked launcher, with all; returns their objectives, None for a job
            that failed.
        code: the user's own file, whose text goes along, since other processes may not find the file.
        race: for the sweeper of a race, which calls its `run`; None for other sweeps.
    """

    run_jobs: RunJobs
    code: CodeFile | None
    race: object

    def compose(self, composed: DictConfig) -> Composed:
        """Return a job that Hydra has composed, in the block in which Hydra runs it."""
        settings = HydraConfig.get()
        return Composed(composed, tuple(settings.overrides.task), Path(settings.runtime.output_dir), self.code)

    def __call__(self, composed: DictConfig) -> object:
        """Run a job; return its objective."""
        return self.run_jobs([self.compose(composed)])[0]


@dataclass(frozen=True)
class StartedSweep:
    """How Hydra runs the jobs of a sweep.

    Attributes:
        run_jobs: as `Task` has it.
        overrides: for Hydra, beside those that were typed.
        race: as `Task` has it.
    """

    run_jobs: RunJobs
    overrides: tuple[str, ...]
    race: object


StartSweep = Callable[[Sweep], AbstractContextManager[StartedSweep]]


def command_line(
    typed: Sequence[str],
    run: Callable[[Experiment], object],
    sweep: StartSweep,
    find_best_rows: FindBestRows,
) -> None:
    """Call `run` for one run, or `sweep` and what it starts for the jobs of several; or let Hydra answer a question.

    `--help`, `--cfg`, `--info` and shell completion are Hydra's; `--version` prints this project's. Presets of a folder
    and the configuration are checked before Hydra makes an output folder; of a sweep, each value that is swept.

    Args:
        typed: what follows `python -m mnist_exp`.
        run: gets the checked experiment.
        sweep: opens the checked sweep.
        find_best_rows: finds the rows of an earlier sweep, for a race between them.

    Raises:
        InputError: as `compose` does, or that `run` raises.
    """
    config_dir, rest = _without_config_dir(typed)
    arguments, unknown = read_arguments(rest)
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such flag; a value is set by KEY=VALUE, such as training.epochs=3; see --help"
        )
    if arguments.experimental_rerun is not None:
        raise InputError("--experimental-rerun: reads a pickle, which can run any code; type the overrides again")
    for flag in ("config_path", "config_name", "config_dir"):
        if getattr(arguments, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: {ONLY_CONFIG_DIR}")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        raise InputError("--resolve: shows a configuration without interpolations; type --cfg job --resolve")
    if arguments.multirun and (arguments.cfg or arguments.info):
        raise InputError("--cfg and --info: show the configuration of one run; leave -m out")
    overrides = arguments.overrides
    if arguments.help or arguments.hydra_help or arguments.shell_completion or arguments.cfg or arguments.info:
        with user_choices(config_dir, overrides), as_input_errors(overrides), _shown_without_secrets():
            answer(arguments)
    elif arguments.multirun:
        run_sweep(overrides, config_dir, sweep, find_best_rows)
    else:
        with user_choices(config_dir, overrides) as code, as_input_errors(overrides):
            composed = compose_values(overrides, RunMode.RUN)
            experiment = run_of(composed, overrides, code)
            run_composed(composed, lambda: run(experiment))


def run_sweep(
    overrides: Sequence[str], config_dir: str | Path | None, sweep: StartSweep, find_best_rows: FindBestRows
) -> None:
    """Run a sweep, as `python -m mnist_exp -m OVERRIDES --config-dir DIR` does.

    The arguments are those of `command_line`, and of `compose`.

    Raises:
        InputError: as `command_line` does.
    """
    with user_choices(config_dir, overrides) as code, as_input_errors(overrides):
        loader = JobLoader.of_conf()
        composed = compose_values(overrides, RunMode.MULTIRUN)
        with sweep(sweep_of(composed, overrides, code, find_best_rows, loader)) as started:
            task = Task(started.run_jobs, code, started.race)
            launch_jobs([*overrides, *started.overrides], loader, task)


def _without_config_dir(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return DIR of `--config-dir DIR`, which Hydra would search for settings that can run code, and all else."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            end = index + (1 if equals else 2)
            found = [value] if equals else arguments[index + 1 : end]
            if not found:
                raise InputError("--config-dir: needs a folder with presets; type --config-dir DIR")
            return found[0], [*arguments[:index], *arguments[end:]]
    return None, list(arguments)


@contextmanager
def _shown_without_secrets() -> Iterator[None]:
    """Print what Hydra prints once it is complete, such as the whole configuration, without passwords."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print(without_secrets(printed.getvalue()), end="")
