"""Hydra's complaints in this project's words: one line that names the key, its value and what would be right."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_exp.config.conversion import REPLACED_KEYS
from mnist_exp.config.overrides import Override
from mnist_exp.errors import InputError, did_you_mean

# The choices that plugins of Hydra bring, and which of this package's extras installs the plugin.
_EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/sweeper=optuna": "optuna",
    "hydra/sweeper/sampler=random": "optuna",
    "hydra/sweeper/sampler=tpe": "optuna",
}


@contextmanager
def as_input_errors(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Raise what Hydra and OmegaConf raise in the block as InputError; `overrides`: those that are composed in it."""
    try:
        yield
    except OverrideParseException as error:
        raise InputError(
            f"{error.override}: cannot be read; write KEY=VALUE, such as model.hidden=64 or 'model.hidden=[128,64]'"
        ) from error
    except YAMLError as error:
        raise InputError(f"a preset cannot be read: {' '.join(str(error).split())}") from error
    except MissingConfigException as error:
        raise InputError(_explain_missing(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error, overrides)) from error


def _explain_missing(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if (extra := _EXTRAS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice}: is not installed; pip install 'mnist_exp[{extra}]' brings it"
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    hint = did_you_mean(choice, options) or ";"
    return f"{group}={choice}: no such choice{hint} the choices are {', '.join(options)}"


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return a line that names the key and its value; where there is no such key, the nearest that there is."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    parent = getattr(cause, "parent_node", None)
    key = getattr(cause, "full_key", None)
    if str(error).startswith("Ambiguous value"):
        return f"{str(error).split(chr(39))[1]}: several values are a sweep, for which add -m; a list is written [1,2]"
    if str(error).startswith("Error merging override"):
        return f"{str(error).split(' ', 3)[3].splitlines()[0]}: must be a map of keys to values, {{KEY: VALUE}}"
    if not key or not isinstance(parent, DictConfig) or "not in struct" not in str(cause):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]
    typed = next((text for text in overrides if Override.of(text).key.startswith(key)), key)
    if key in REPLACED_KEYS:
        return f"{typed}: {REPLACED_KEYS[key]}"
    last = key.rpartition(".")[2]
    siblings = [str(name) for name in parent if name not in ("hydra", "kind")]
    elsewhere = [name for name in _leaves(parent._get_root()) if name.endswith(f".{last}")]
    near = f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(last, siblings)
    where = key.rpartition(".")[0] or "the configuration"
    if "kind" in parent:
        where += f" ({parent['kind']})"
    return f"{typed}: {where} has no such key" + (near or f"; its keys are {', '.join(siblings)}")


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for name in node:
        if name == "hydra":
            continue
        yield f"{prefix}{name}"
        if isinstance(child := node._get_node(name), DictConfig) and not (
            child._is_none() or child._is_interpolation()
        ):
            yield from _leaves(child, f"{prefix}{name}.")
