"""All that reaches beyond the public API of Hydra 1.3 and 1.4; what is no more in a newer version raises at import.

The launcher and the sweepers in `hydra_plugins/`, which Hydra imports from there, are built on Hydra's basic ones.

Hydra's `compose` leaves out what is Hydra's own in a configuration, such as the output folder, and knows no MULTIRUN.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mnist_exp.config.presets import CONF
from mnist_exp.version import __version__

# Hydra 1.3 warns where this is missing, 1.4 where it is given.
HYDRA_DEFAULTS = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}

if not hasattr(Hydra, "compose_config"):
    raise ImportError(f"Hydra {hydra.__version__} has no compose_config; mnist_exp was written against 1.3 and 1.4")


def read_arguments() -> tuple[Namespace, list[str]]:
    """Return what was typed as Hydra reads it, and what it does not know; `--version` prints ours and exits."""
    # With "resolve", our --version takes the place of Hydra's.
    parser = ArgumentParser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    parser.add_argument("--version", action="version", version=f"mnist_exp {__version__}")
    return parser.parse_known_args()


def compose_conf(overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """Return conf/ with overrides, and Hydra's own configuration under `hydra`; as MULTIRUN without what is swept."""
    with _hydra_of_conf() as loaded:
        return loaded.compose_config("config", list(overrides), mode, with_log_configuration=False)


def run_composed(composed: DictConfig, task: Callable[[], object]) -> None:
    """Call `task` as `@hydra.main` calls one for a run: in its output folder, between the user's `hydra.callbacks`.

    Hydra's own entry takes no composed configuration; it would compose the overrides twice more.

    Args:
        composed: as `compose_conf` returns it for a run.
        task: what runs; whatever it raises is raised here.
    """
    raised: list[Exception] = []

    def called(_: DictConfig) -> object:
        try:
            return task()
        except Exception as error:
            raised.append(error)
            raise  # so that callbacks see a job that failed

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


def parser_of_conf() -> OverridesParser:
    """Return a parser of overrides that knows the choices of conf/, for `glob(*)`."""
    with _hydra_of_conf() as loaded:
        return OverridesParser.create(config_loader=loaded.config_loader)


@contextmanager
def _hydra_of_conf() -> Iterator[Hydra]:
    with hydra_of_the_program_aside(), hydra.initialize_config_dir(str(CONF), **HYDRA_DEFAULTS):
        loaded = GlobalHydra.instance().hydra
        assert loaded is not None
        yield loaded


@contextmanager
def hydra_of_the_program_aside() -> Iterator[None]:
    """Let Hydra begin anew in the block, which a `@hydra.main` of the user's may have called."""
    of_the_program = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = of_the_program
