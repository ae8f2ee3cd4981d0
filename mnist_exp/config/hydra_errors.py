"""Errors of Hydra in one line that names the key, its value and what would be right."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, ValidationError
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_exp.config.conversion import describe
from mnist_exp.config.hydra_settings import SETTINGS
from mnist_exp.config.overrides import Override, leaves
from mnist_exp.config.presets import CONF
from mnist_exp.errors import InputError, did_you_mean, show

# The extra of this package that installs the plugin of a choice.
_EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
}

# What to say of keys that Hydra keeps elsewhere, or that only some sweeps have.
_KEYS_OF_SWEEPS = {
    "launcher": "is written hydra/launcher={0}; it needs -m",
    "n_jobs": "is written hydra.launcher.n_jobs={0}; it needs -m and hydra/launcher=joblib",
    "n_trials": "is written hydra.sweeper.n_trials={0}; it needs -m and a search, sweep=random or sweep=optuna",
    "hydra.launcher.n_jobs": "needs -m and hydra/launcher=joblib",
    "sweeper": "is written hydra/sweeper={0}; it needs -m",
}
for _key in ("initial_seeds", "max_jobs", "indifference"):
    _KEYS_OF_SWEEPS[_key] = f"is written hydra.sweeper.{_key}={{0}}; it needs -m and sweep=race"


# Words of other programs, in lower case, for keys of ours.
_OTHER_WORDS = {
    **dict.fromkeys(("lr", "learningrate", "rate", "eta"), "learning_rate"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("batch", "bs", "batchsize", "batches"), "batch_size"),
    **dict.fromkeys(("units", "hidden_units", "hidden_size", "neurons"), "hidden"),
    **dict.fromkeys(("dropout_rate", "drop"), "dropout"),
    **dict.fromkeys(("act", "nonlinearity"), "activation"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
}


@contextmanager
def as_input_errors(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Raise errors of Hydra and OmegaConf as InputError; the block composes `overrides`."""
    try:
        yield
    except YAMLError as error:
        raise InputError(f"a preset cannot be read: {' '.join(str(error).split())}") from error
    except MissingConfigException as error:
        raise InputError(_explain_missing(error, overrides)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error, overrides)) from error
    except (AssertionError, AttributeError) as error:  # OmegaConf 2.3's, for a map below a key that is null
        if not (message := _refused_params(overrides)):
            raise
        raise InputError(message) from error


def _refused_params(overrides: Sequence[str]) -> str:
    """Return the message for `hydra.sweeper.params` in a sweep without them, or "" if they are not typed."""
    for text in overrides:
        if Override.of(text).key.startswith("hydra.sweeper.params"):
            return f"{text}: is for a sweep that has such values, sweep=grid; in others type them, -m KEY=VALUE,VALUE"
    return ""


def _explain_missing(error: MissingConfigException, overrides: Sequence[str]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    for override in map(Override.of, overrides):
        if f"{override.key}/{override.value}" == missing:  # a path for a choice
            group, choice = override.key, override.value
    if (extra := _EXTRAS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice}: is not installed; pip install -e '.[{extra}]' in the project's folder brings it"
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    hint = did_you_mean(choice, options) or ";"
    has_code = any(override.key == "code" for override in map(Override.of, overrides))
    own = "; one of your own needs code=FILE.py" if group in {"model", "dataset"} and not has_code else ""
    return f"{group}={choice}: no such choice{hint} the choices are {', '.join(options)}{own}"


def _explain_type(error: ValidationError, key: str, parent: DictConfig | ListConfig) -> str:
    """Return the message for a value that the type of a setting of Hydra's refuses."""
    node = parent._get_node(error.key) if error.key is not None else None
    wanted: Any = None
    if isinstance(node, Node):
        wanted = node._metadata.ref_type
        wanted = wanted | None if node._is_optional() else wanted
    wanted = SETTINGS.get(key.removeprefix("hydra."), wanted)
    return f"{key}={show(error.value)}: must be {describe(wanted)}"


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    causes = (error.__cause__, error.__context__)
    cause = next((one for one in causes if isinstance(one, OmegaConfBaseException)), error)
    parent = getattr(cause, "parent_node", None)
    key = getattr(cause, "full_key", None)
    message = str(error).rpartition(" composing config:\n")[2]
    quoted = message.split("'")[1] if message.count("'") > 1 else ""
    if isinstance(cause, ValidationError) and key and isinstance(parent, DictConfig | ListConfig):
        return _explain_type(cause, key, parent)
    if message.startswith("Error merging override"):
        typed = message.split(" ", 3)[3].splitlines()[0]
        if typed.startswith("~"):
            return f"{typed}: cannot be left out"
        if isinstance(parent, ListConfig):
            return f"{typed}: must be a list, such as '{Override.of(typed).key}=[VALUE, VALUE]'"
        return f"{typed}: must be a map of keys to values, such as '{Override.of(typed).key}={{KEY: VALUE}}'"
    if message.startswith("Cannot merge"):  # only OmegaConf's frames know the key
        frames = [frame for frame, _ in walk_tb((cause.__context__ or cause).__traceback__)]
        path = ".".join(str(frame.f_locals.get("key")) for frame in frames if frame.f_code.co_name == "_map_merge")
        return f"{path or message}: must be a list or a map, whichever it is in conf/"
    if message.startswith(("Could not append", "Multiple values for")):
        plus = [text for text in overrides if text.startswith("+")]
        return f"{' '.join(plus) or quoted}: is there already; type it without the plus"
    if message.startswith("Could not delete"):
        return f"~{quoted}: there is no such key to delete"
    if key and key.startswith("hydra.sweeper.params") and (refused := _refused_params(overrides)):
        return refused
    if not key or not isinstance(parent, DictConfig) or " not in " not in str(cause):
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]
    return _explain_unknown(key, parent, overrides)


def _explain_unknown(key: str, parent: DictConfig, overrides: Sequence[str]) -> str:
    """Return the message for a key that `parent` has not."""
    keys = {Override.of(text).key: text for text in overrides}
    typed = next((text for name, text in keys.items() if re.match(rf"{re.escape(key)}(?![\w-])", name)), key)
    if (instead := _KEYS_OF_SWEEPS.get(key)) is not None:
        return f"{typed}: {instead.format(Override.of(typed).value)}"
    word = re.split("[./]", key)[-1]
    last = _OTHER_WORDS.get(word.lower(), word)
    siblings = [str(name) for name in parent if name not in ("hydra", "kind")]
    if "." not in key:  # the root has these as files, and not as keys
        siblings += [name for name in ("experiment", "sweep") if name != word]
    paths = [path for path, _ in leaves(OmegaConf.to_container(parent._get_root())) if last in path[1:]]
    elsewhere = [".".join(path[: path.index(last, 1) + 1]) for path in paths if path[0] != "hydra"]
    value = f"={Override.of(typed).value}" if "=" in typed else ""
    above, below = key.removesuffix(word), Override.of(typed).key.removeprefix(key)  # "", .epochs of trainig.epochs=3
    elsewhere = [f"{above}{last}"] if last in siblings else elsewhere
    similar = did_you_mean(last, siblings, above, f"{below}{value}")
    near = f"; did you mean {elsewhere[0]}{value}?" if elsewhere else similar
    group = key.rpartition(".")[0]
    files = sorted((CONF / group).glob("*.yaml")) if group else []
    choices = [f"{group}={path.stem}" for path in files if last in list(OmegaConf.load(path))]
    if choices and last not in siblings:
        near = f"; it is a key of {', '.join(choices)}"
    where = group or "the configuration"
    if "kind" in parent:
        where += f" ({parent['kind']})"
    parts = group.split(".")
    if len(parts) > 2 and parts[0] != "hydra" and not near:  # an argument of a class, which may have more of them
        maps = [text for name, text in keys.items() if name in (key, group, ".".join(parts[:-1]))]
        near = f"; +{maps[-1]} adds it" if maps else ""
    if group and siblings and all(name[:1].isupper() for name in (word, *siblings)):  # Hydra merges maps
        near = f"; {group}=null '{group}={{{word}: {{...}}}}' puts it in the place of {', '.join(siblings)}"
    return f"{typed}: {where} has no such key" + (near or (f"; its keys are {', '.join(siblings)}" if siblings else ""))
