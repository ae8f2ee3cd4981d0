"""The command line: `python -m mnist_exp`, or `mnist_exp`. Imports nothing heavy."""

import sys

from mnist_exp import interrupts
from mnist_exp.composition import Experiment, command_line
from mnist_exp.errors import InputError


def main() -> None:
    """Run what was typed; exit with 1 and one message after bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    interrupts.install()
    try:
        command_line(_run)
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(experiment: Experiment) -> None:
    from mnist_exp.runner import run_experiment  # brings TensorFlow, so only once the configuration is known to be good

    run_experiment(experiment)


if __name__ == "__main__":
    main()
