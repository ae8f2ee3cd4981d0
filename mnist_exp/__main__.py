"""The command line: `python -m mnist_exp`, or `mnist_exp`."""

import atexit
import gc
import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout

from mnist_exp.commands import exit_on_errors
from mnist_exp.config.composition import ONLY_CONFIG_DIR, check_composed, compose_run, offer_user_choices
from mnist_exp.config.guesses import respell
from mnist_exp.config.hydra_api import answer, read_arguments, run_composed
from mnist_exp.config.hydra_compose import as_yaml, compose_values
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.parsing import parse
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Result
from mnist_exp.text import printable_lines, say
from mnist_exp.tracking.locks import make_folder


def main() -> None:
    """Run the command line, and exit as `ends.py` says."""
    # Keras and MLflow make a million objects that stay; to look for garbage among them takes two seconds of a run.
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    with exit_on_errors():
        _run_typed(sys.argv[1:])


def _run_typed(typed: Sequence[str]) -> None:
    """Run one experiment or a sweep, or let Hydra answer.

    Hydra answers `--help`, `--cfg`, `--info` and shell completion. All is checked before Hydra makes an output folder.
    """
    config_dir, rest = _without_config_dir(typed)
    arguments, unknown = read_arguments(rest)
    _check_flags(arguments, unknown, rest)
    overrides = arguments.overrides
    asks = arguments.help or arguments.hydra_help or arguments.shell_completion or arguments.cfg or arguments.info
    if arguments.multirun and not asks:
        _sweep(overrides, config_dir)
        return
    with offer_user_choices(config_dir, overrides) as code, as_input_errors(overrides):
        if asks and not arguments.cfg:
            _answer(arguments)
            return
        composed = compose_values(overrides)
        if arguments.cfg:
            print(printable_lines(as_yaml(composed, arguments)), end="")
            check_composed(composed, code)
        else:
            experiment = compose_run(composed, overrides, code)
            make_folder(experiment.output)
            run_composed(composed, lambda: _run(experiment))


def _unknown_flag(flag: str, typed: Sequence[str]) -> InputError:
    if not typed[0].startswith("-"):
        parse(typed[:1])  # `compare --last 3` has a mistake before the flag
    following = [] if "=" in flag else typed[typed.index(flag) + 1 :] if flag in typed else []
    how = "a value is set by KEY=VALUE, such as training.epochs=3; see --help"
    meant = respell(flag, following)
    return InputError(f"{flag}: no such flag; {f'did you mean {meant}?' if meant else how}")


def _check_flags(arguments: Namespace, unknown: Sequence[str], typed: Sequence[str]) -> None:
    if unknown:
        raise _unknown_flag(unknown[0], typed)
    if arguments.experimental_rerun is not None:
        raise InputError("--experimental-rerun: reads a pickle, which can run any code; type the overrides again")
    for flag in ("config_path", "config_name", "config_dir"):
        if getattr(arguments, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: {ONLY_CONFIG_DIR}")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        raise InputError("--resolve: shows a configuration without interpolations; type --cfg job --resolve")
    if arguments.package is not None and not (arguments.cfg and re.fullmatch(r"[\w.]+", arguments.package)):
        raise InputError(
            f"--package {arguments.package}: shows a part of a configuration; type --cfg job --package model"
        )
    if arguments.multirun and (arguments.cfg or arguments.info):
        raise InputError("--cfg and --info: show the configuration of one run; leave -m out")
    flags = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(arguments, flag)]
    if len(flags) > 1:
        raise InputError(f"--{flags[0]} and --{flags[1].replace('_', '-')}: are two commands; type one of them")
    if arguments.shell_completion:
        asked = " ".join(arguments.overrides)
        if not re.fullmatch("(install|uninstall|query)=(bash|zsh|fish)", asked):
            raise InputError(f"--shell-completion {asked}: type -sc install=bash, or zsh or fish instead of bash")
        if asked.startswith("query") and not os.environ.get("COMP_LINE", "").strip():
            raise InputError(f"-sc {asked}: is for the shell, which sets COMP_LINE; type -sc install=bash")


def _run(experiment: Experiment) -> None:
    from mnist_exp.resume import finish

    found = finish(experiment)
    if not isinstance(found, Result):
        tracking = experiment.config.tracking
        registers = " and registers it" if isinstance(tracking, MLflowTracking) and tracking.register else ""
        name = f"Run {found.run_id}" if found.run_id else f"The run in {found.output}"
        say(f"{name} has finished this before; resume=false runs it again{registers}")


def _sweep(overrides: Sequence[str], config_dir: str | None) -> None:
    from mnist_exp.sweeps.plan import run_sweep

    result = run_sweep(overrides, config_dir)
    if result.unfinished:
        raise SystemExit(
            f"{result.unfinished} of {result.jobs} jobs did not finish; the same command with resume=true retries them"
        )


def _without_config_dir(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split `--config-dir DIR` from the other arguments.

    Hydra would find settings in DIR that can run code.
    """
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            end = index + (1 if equals else 2)
            found = [value] if equals else arguments[index + 1 : end]
            if not found:
                raise InputError("--config-dir: needs a folder with presets; type --config-dir DIR")
            return found[0], [*arguments[:index], *arguments[end:]]
    return None, list(arguments)


def _answer(arguments: Namespace) -> None:
    """Print Hydra's answer once it is complete, without passwords."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            answer(arguments)
    finally:
        print(printable_lines(printed.getvalue()), end="")


if __name__ == "__main__":
    main()
