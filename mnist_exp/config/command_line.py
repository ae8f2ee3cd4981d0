"""What is typed after `python -m mnist_exp`: one run, a sweep, or a question to Hydra. Imports nothing heavy."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_exp.config.code_file import CodeFile, ImportCode
from mnist_exp.config.composition import (
    ONLY_CONFIG_DIR,
    Composed,
    compose_values,
    run_of,
    user_choices,
)
from mnist_exp.config.hydra_api import HYDRA_DEFAULTS, hydra_of_the_program_aside, read_arguments, run_composed
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.presets import CONF
from mnist_exp.config.race import FindBestRows
from mnist_exp.config.redaction import without_secrets
from mnist_exp.config.sweep import sweep_of
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep

RunJobs = Callable[[Sequence[Composed]], Sequence[object]]


@dataclass(frozen=True)
class StartedSweep:
    """How Hydra runs the jobs of a sweep.

    `run_jobs`: called with each job, or with all that a launcher has, also in other processes and on other machines,
    so that it can be pickled; it returns the objectives, None for a job that failed. `overrides`: for Hydra, beside
    those that were typed. `race`: for the sweeper of a race, which calls its `run`; None for other sweeps.
    """

    run_jobs: RunJobs
    overrides: tuple[str, ...]
    race: object


StartSweep = Callable[[Sweep], AbstractContextManager[StartedSweep]]


def command_line(
    run: Callable[[Experiment], object],
    sweep: StartSweep,
    find_best_rows: FindBestRows,
    import_code: ImportCode,
) -> None:
    """Let Hydra read `sys.argv`, and call `run` for one run, or `sweep` and what it starts for the jobs of several.

    A race asks `find_best_rows` for those of an earlier sweep; `import_code` imports the file that `code=` names.

    `--help`, `--cfg`, `--info` and shell completion are Hydra's; `--version` prints this project's. Presets of a folder
    and the configuration are checked before Hydra makes an output folder; of a sweep, each value that is swept.

    Raises:
        InputError: as `compose` does, or that `run` raises.
    """
    # Hydra's parser takes flags only before overrides; people append -m to what they typed before.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in {"-m", "--multirun"})
    config_dir = _take_config_dir(sys.argv)
    arguments, unknown = read_arguments()
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
    shows = arguments.help or arguments.hydra_help or arguments.shell_completion or arguments.cfg or arguments.info
    with (
        user_choices(config_dir, arguments.overrides, import_code, in_sweep=arguments.multirun) as code,
        as_input_errors(arguments.overrides),
    ):
        if shows:
            with _shown_without_secrets():
                _hydra_main(lambda _: [None], code)
        elif arguments.multirun:
            _run_sweep(arguments.overrides, code, sweep, find_best_rows)
        else:
            composed = compose_values(arguments.overrides, RunMode.RUN)
            experiment = run_of(composed, arguments.overrides, code)
            run_composed(composed, lambda: run(experiment))


def run_sweep(
    overrides: Sequence[str],
    config_dir: str | Path | None,
    sweep: StartSweep,
    find_best_rows: FindBestRows,
    import_code: ImportCode,
) -> None:
    """Run a sweep, as `python -m mnist_exp -m OVERRIDES --config-dir DIR` does.

    The arguments are those of `command_line`, and of `compose`.

    Raises:
        InputError: as `command_line` does.
    """
    typed, sys.argv = sys.argv, ["mnist_exp", "-m", *overrides]
    try:
        with (
            hydra_of_the_program_aside(),
            user_choices(config_dir, overrides, import_code, in_sweep=True) as code,
            as_input_errors(overrides),
        ):
            _run_sweep(overrides, code, sweep, find_best_rows)
    finally:
        sys.argv = typed


def _run_sweep(
    overrides: Sequence[str], code: CodeFile | None, sweep: StartSweep, find_best_rows: FindBestRows
) -> None:
    """Run the sweep that `sys.argv` holds for Hydra."""
    composed = compose_values(overrides, RunMode.MULTIRUN)
    with sweep(sweep_of(composed, overrides, code, find_best_rows)) as started:
        sys.argv += started.overrides
        _hydra_main(started.run_jobs, code, started.race)


def _take_config_dir(arguments: list[str]) -> str | None:
    """Take `--config-dir DIR` out of the arguments, so that Hydra does not search that folder."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found = [value] if equals else arguments[index + 1 : index + 2]
            del arguments[index : index + (1 if equals else 2)]
            if not found:
                raise InputError("--config-dir: needs a folder with presets; type --config-dir DIR")
            return found[0]
    return None


def _hydra_main(run_jobs: RunJobs, code: CodeFile | None, race: object = None) -> None:
    """Let Hydra run what was typed, and call `run_jobs` with each job, or as the launcher does; in rounds of `race`.

    The text of the user's own code goes along with the jobs, to processes that may not find its file.
    """
    failures: list[InputError] = []

    def compose_job(composed: DictConfig) -> Composed:
        settings = HydraConfig.get()
        return Composed(composed, tuple(settings.overrides.task), Path(settings.runtime.output_dir), code)

    def task(composed: DictConfig) -> object:
        try:
            return run_jobs([compose_job(composed)])[0]
        except InputError as error:  # of which Hydra would show a traceback
            failures.append(error)
            return None

    # For the launcher that has all jobs at once, and the sweeper that has rounds of them, in hydra_plugins/.
    vars(task).update(compose=compose_job, run_jobs=run_jobs, race=race)
    # Hydra raises its errors, where it would print them and exit; the processes of launchers import nothing from the
    # current folder.
    os.environ |= {"HYDRA_FULL_ERROR": "1", "PYTHONSAFEPATH": "1"}
    hydra.main(config_path=str(CONF), config_name="config", **HYDRA_DEFAULTS)(task)()
    if failures:
        raise failures[0]


@contextmanager
def _shown_without_secrets() -> Iterator[None]:
    """Print what Hydra prints once it is complete, such as the whole configuration, without passwords."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print(without_secrets(printed.getvalue()), end="")
