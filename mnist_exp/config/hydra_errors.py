"""Errors of Hydra in one line: that of a group's choice in our words, any other in Hydra's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from mnist_exp.config.guesses import find_choice, unknown
from mnist_exp.config.overrides import Override
from mnist_exp.errors import InputError

# The extra of this package that installs the plugin of a choice.
_EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
}


@contextmanager
def as_input_errors(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Raise errors of Hydra and OmegaConf as InputError; the block composes `overrides`."""
    try:
        yield
    except YAMLError as error:
        raise InputError(f"a preset cannot be read: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InputError("the lists and maps of an override or a preset have too many levels") from error
    except MissingConfigException as error:
        raise InputError(_explain_choice(error, overrides)) from error
    except (HydraException, OmegaConfBaseException, AssertionError, AttributeError) as error:
        # OmegaConf 2.3 asserts, or misses an attribute, for a map below a key that is null.
        is_bug = isinstance(error, AssertionError | AttributeError) and not isinstance(error, OmegaConfBaseException)
        params = next((text for text in overrides if Override.of(text).key.startswith("hydra.sweeper.params")), "")
        if params and (is_bug or params.lstrip("+") in str(error)):
            raise InputError(f"{params}: is for sweep=grid; values that vary are typed, -m KEY=VALUE,VALUE") from error
        if is_bug:
            raise
        raise InputError(_explain(error, overrides)) from error


def _explain_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    for override in map(Override.of, overrides):
        if f"{override.key}/{override.value}" == missing:  # a path for a choice
            group, choice = override.key, override.value
    if (extra := _EXTRAS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice}: is not installed; pip install -e '.[{extra}]' in the project's folder brings it"
    options = sorted(error.options or [])
    if not group or not options:
        return _explain(error, overrides)
    hint = find_choice(group, choice, options) or ";"
    has_code = any(override.key == "code" for override in map(Override.of, overrides))
    own = "; one of your own needs code=FILE.py" if group in {"model", "dataset"} and not has_code else ""
    return f"{group}={choice}: no such choice{hint} the choices are {', '.join(options)}{own}"


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return what is near a key of Hydra that is not there, else Hydra's first line, or OmegaConf's below it."""
    typed = next((text for text in overrides if text.lstrip("+") in str(error)), "")
    causes = [one for one in (error.__cause__, error.__context__) if isinstance(one, OmegaConfBaseException)]
    cause = causes[0] if causes else error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.full_key)
        value: Any = next((one.value for one in map(Override.of, overrides) if one.key == key), {})
        where = key.rpartition(".")[0] or "the configuration"
        return unknown(key, value, where, map(str, cause.parent_node))
    if causes and typed[:1] not in ("", "~") and not Override.of(typed).is_below("hydra"):
        is_list = Override.of(typed).value.startswith("[")
        wanted = "be a map of keys to values, {KEY: VALUE}" if is_list else "have lists and maps where conf/ has them"
        return f"{typed}: must {wanted}"
    lines = list(dict.fromkeys(str(one).strip().partition("\n")[0].rstrip(":") for one in (error, cause)))
    return f"{typed}: {lines[-1]}" if typed and causes else ": ".join(lines)
