"""The command line: `python -m mnist_exp`, or `mnist_exp`. Imports nothing heavy."""

import atexit
import gc
from contextlib import AbstractContextManager

from mnist_exp import interrupts
from mnist_exp.commands import exit_on_errors
from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.command_line import StartedSweep, command_line
from mnist_exp.config.schema import Config
from mnist_exp.errors import printable
from mnist_exp.experiment import BestRows, Experiment, Sweep, SweepResult


def main() -> None:
    """Run what was typed; exit with 1 and one message after bad input or a failed job, 130 after Ctrl-C, 143 after
    SIGTERM."""
    # Keras and MLflow make a million objects that stay, and Python looks through all of them for garbage again and
    # again: a second of a run while they are imported, and one more at its end.
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    interrupts.install()
    with exit_on_errors():
        command_line(_run, _sweep, _best_rows, _import)


def _run(experiment: Experiment) -> None:
    if experiment.config.resume:
        from mnist_exp.sweeps.jobs import find_finished
        from mnist_exp.tracking.tracker import stored

        if (job := find_finished(experiment.config)) is not None:
            registers = " and registers it" if stored(experiment.config.tracking).register else ""
            print(printable(f"Run {job.run_id} has finished this before; resume=false runs it again{registers}"))
            return
    from mnist_exp.runner import run_experiment  # brings TensorFlow, so only once the configuration is known to be good

    run_experiment(experiment)


def _sweep(sweep: Sweep) -> AbstractContextManager[StartedSweep]:
    from mnist_exp.sweeps.sweep import start

    return start(sweep, _exit_on_unfinished)


def _exit_on_unfinished(result: SweepResult) -> None:
    if result.unfinished:
        raise SystemExit(
            f"{result.unfinished} of {result.jobs} jobs did not finish; the same command with resume=true retries them"
        )


def _best_rows(config: Config, sweep: str, top: int) -> BestRows:
    from mnist_exp.sweeps.best_rows import best_rows

    return best_rows(config, sweep, top)


def _import(code: CodeFile, backend: str, in_sweep: bool) -> CodeFile:
    from mnist_exp.learning.engine import import_own

    return import_own(code, backend, in_sweep)


if __name__ == "__main__":
    main()
