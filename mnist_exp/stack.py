"""Several experiments as one program: load, prepare, train, record."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mnist_exp.config import own_code
from mnist_exp.config.backend import choose_backend
from mnist_exp.experiment import Experiment, Result
from mnist_exp.logs import log_file, package_logs
from mnist_exp.runner import OpenRun, log_epochs, record
from mnist_exp.tracking.locks import working
from mnist_exp.training.engine import choose_engine
from mnist_exp.training.split import load_data

if TYPE_CHECKING:
    from mnist_exp.training.training import OnEpoch

log = logging.getLogger(__name__)


def run_stack(experiments: Sequence[Experiment], open_run: OpenRun, on_epoch: "OnEpoch") -> list[Result | Exception]:
    """Run the jobs that `engine.group_stackable` finds alike, as one program.

    Args:
        experiments: to run, from their first epoch on.
        open_run: opens the record of each, with their number.
        on_epoch: called after each epoch; returns the places of those to stop, as pruned.

    Returns:
        For each its result, or its error where the others may go on.

    Raises:
        InputError: as `run_experiment` does, for all of them.
    """
    config = experiments[0].config
    choose_backend(config.backend)
    own_code.use(config.code)
    with package_logs(), ExitStack() as opened:
        ends = [opened.enter_context(ExitStack()) for _ in experiments]
        runs = []
        for experiment, end in zip(experiments, ends, strict=True):
            end.enter_context(working(experiment.output))
            end.enter_context(log_file(experiment.output))
            runs.append(end.enter_context(open_run(experiment, len(experiments))))
        data = load_data(config.dataset)
        for run in runs:
            run.log_data(data)
        log.debug("trained as one program with %d others", len(runs) - 1)
        trained = choose_engine(config.backend).train(experiments, data, log_epochs(runs, on_epoch))
        outcomes: list[Result | Exception] = []
        for experiment, run, end, result in zip(experiments, runs, ends, trained, strict=True):
            try:
                with end:
                    outcomes.append(record(experiment, run, data, result))
            except Exception as error:
                outcomes.append(error)
    return outcomes
