"""The command line: `python -m mnist_exp`, or `mnist_exp`. Imports nothing heavy."""

import atexit
import gc
import os
from contextlib import AbstractContextManager

from mnist_exp import interrupts
from mnist_exp.arguments import errors_told
from mnist_exp.composition import Composed, StartedSweep, Sweep, command_line
from mnist_exp.config import MLflowTracking
from mnist_exp.errors import printable


def main() -> None:
    """Run what was typed; exit with 1 and one message after bad input or a failed job, 130 after Ctrl-C, 143 after
    SIGTERM."""
    os.environ["PYTHONSAFEPATH"] = "1"  # so that launchers' processes import nothing from the current folder either
    # Keras and MLflow make a million objects that stay, and Python looks through all of them for garbage again and
    # again: a second of a run while they are imported, and one more at its end.
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    interrupts.install()
    with errors_told():
        command_line(_run, _sweep)


def _run(composed: Composed) -> None:
    experiment = composed.experiment()
    if experiment.config.resume:
        from mnist_exp.sweeps import find_finished

        if (run_id := find_finished(experiment)) is not None:
            tracking = experiment.config.tracking
            registers = " and registers it" if isinstance(tracking, MLflowTracking) and tracking.register else ""
            print(printable(f"Run {run_id} has finished this before; resume=false runs it again{registers}"))
            return
    from mnist_exp.runner import run_experiment  # brings TensorFlow, so only once the configuration is known to be good

    run_experiment(experiment)


def _sweep(sweep: Sweep) -> AbstractContextManager[StartedSweep]:
    from mnist_exp.sweeps import start

    return start(sweep)


if __name__ == "__main__":
    main()
