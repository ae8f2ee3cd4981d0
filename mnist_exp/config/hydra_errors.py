"""Word Hydra's errors in one line: a wrong choice in our words, others in its own."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from mnist_exp.config.guesses import explain_unknown_key, find_choice
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
    """Raise errors of Hydra and OmegaConf in composing `overrides` as InputError."""
    try:
        yield
    except RecursionError as error:
        raise InputError("the lists and maps of an override or a preset have too many levels") from error
    except MissingConfigException as error:
        raise InputError(_explain_choice(error, overrides)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_first_line(error, overrides)) from error


def _explain_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    for override in map(Override.parse, overrides):
        if f"{override.key}/{override.value}" == missing:  # a path for a choice
            group, choice = override.key, override.value
    if (extra := _EXTRAS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice}: is not installed; pip install -e '.[{extra}]' in the project's folder brings it"
    options = sorted(error.options or [])
    if not group or not options:
        return _first_line(error, overrides)
    hint = find_choice(group, choice, options) or ";"
    has_code = any(override.key == "code" for override in map(Override.parse, overrides))
    own = "; one of your own needs code=FILE.py" if group in {"model", "dataset"} and not has_code else ""
    return f"{group}={choice}: no such choice{hint} the choices are {', '.join(options)}{own}"


def _first_line(error: Exception, overrides: Sequence[str]) -> str:
    """Return a hint at a near key of Hydra, or the first line of an error."""
    typed = next((text for text in overrides if text.lstrip("+") in str(error)), "")
    causes = [cause for cause in (error.__cause__, error.__context__) if isinstance(cause, OmegaConfBaseException)]
    override = Override.parse(typed)
    cause = causes[0] if causes else None
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return explain_unknown_key(
            override.key, override.value, override.key.rpartition(".")[0], map(str, cause.parent_node)
        )
    if causes and typed[:1] not in ("", "~") and not override.is_below("hydra"):
        if "/" in override.key:
            return explain_unknown_key(override.key, override.value, "the configuration", ())
        if override.key == "training.callbacks" and re.fullmatch(r"\[[\w, ]+\]", override.value):
            named = ",".join(f"{name}:{{}}" for name in re.findall(r"\w+", override.value))
            return f"{typed}: must be a map; did you mean '{override.key}={{{named}}}'?"
        is_list = override.value.startswith("[")
        wanted = "be a map of keys to values, {KEY: VALUE}" if is_list else "have lists and maps where conf/ has them"
        return f"{typed}: must {wanted}"
    lines = [str(raised).strip().partition("\n")[0].rstrip(":") for raised in (error, *causes[:1])]
    return f"{typed}: {lines[-1]}" if typed and causes else ": ".join(dict.fromkeys(lines))
