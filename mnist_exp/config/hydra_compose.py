"""Compose conf/ by Hydra's public functions."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from mnist_exp.config import CONF
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.parsing import parse, to_hydra
from mnist_exp.errors import InputError

# Hydra 1.3 warns where this is missing, 1.4 where it is given.
DEFAULTS = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def compose_values(overrides: Sequence[str]) -> DictConfig:
    """Compose conf/ with Hydra's own part, without the overrides with several values.

    Raises:
        InputError: for an override that Hydra cannot use.
    """
    parsed = parse(overrides)
    with as_input_errors(overrides), use_conf():
        given = to_hydra([override for override in parsed if not override.is_sweep_override()])
        composed = hydra.compose("config", given, return_hydra_config=True)
    record_typed(composed, parsed)
    return composed


def record_typed(composed: DictConfig, parsed: Sequence[Override]) -> None:
    """Put the typed overrides into Hydra's own record."""
    own, typed = composed.hydra, [override for override in parsed if not override.is_hydra_override()]
    own.overrides.task = [override.input_line for override in typed]
    if DEFAULTS:  # Hydra 1.4 has a resolver
        how = own.job.config.override_dirname
        lines = sorted(str(override.input_line) for override in typed if override.key_or_group not in how.exclude_keys)
        own.job.override_dirname = how.item_sep.join(lines).replace("=", how.kv_sep)


def as_yaml(composed: DictConfig, asked: Namespace) -> str:
    """Return the YAML for `--cfg`, `--package` and `--resolve`.

    Raises:
        InputError: if there is no such package, or an interpolation that cannot be resolved.
    """
    HydraConfig.instance().set_config(composed)
    keys = [str(key) for key in composed if asked.cfg == "all" or (key == "hydra") == (asked.cfg == "hydra")]
    shown = OmegaConf.masked_copy(composed, keys)
    if "hydra" in keys:
        OmegaConf.set_readonly(shown.hydra, None)
    if asked.cfg == "hydra":
        with open_dict(shown.hydra):
            del shown.hydra.help, shown.hydra.hydra_help
    with as_input_errors():
        part = shown if asked.package in (None, "_global_") else OmegaConf.select(shown, asked.package)
        if part is None:
            raise InputError(f"--package {asked.package}: the configuration has no such part")
        if not OmegaConf.is_config(part):
            return f"{part}\n"
        if asked.resolve:
            _resolve(part)
    header = "" if part is shown else f"# @package {asked.package}\n"
    return header + OmegaConf.to_yaml(part)


def _resolve(node: Any) -> None:
    """Resolve all interpolations but those of missing values, such as a job's number."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        with suppress(InterpolationToMissingValueError, MissingMandatoryValue):
            value = node[key]
            if OmegaConf.is_interpolation(node, key):
                node[key] = value
            if OmegaConf.is_config(value):
                _resolve(value)


@contextmanager
def use_conf() -> Iterator[None]:
    """Let Hydra compose conf/ in the block."""
    with fresh_hydra(), hydra.initialize_config_dir(str(CONF), **DEFAULTS):
        yield


@contextmanager
def fresh_hydra() -> Iterator[None]:
    """Give the block its own Hydra, since the caller may be in a `@hydra.main`."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer
