"""Presets from a folder of the user's: read as data, checked, and handed to Hydra as values.

A preset may come from a stranger, while Hydra calls what its own settings name, and resolvers read the environment. So
a preset may set only what is listed here, and Hydra never searches the folder.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.keras_source import is_plain
from mnist_exp.config.overrides import leaves
from mnist_exp.errors import InputError, show

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a checkout beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

_GROUPS = ("dataset", "preprocessing", "model", "optimizer", "training")
_GLOBAL_GROUPS = ("experiment", "sweep")  # presets of several parts, with @package _global_
_KEYS = ("seed", "backend", "objective", "direction", "resume")
_TRACKING_KEYS = ("experiment", "run_name", "tags", "note", "keep")
_SWEEPER_KEYS = ("n_trials", "n_jobs", "max_failure_rate", "storage", "seeds", "max_jobs", "indifference", "top")
# The choices that a sweep preset may make.
_SWEEP_CHOICES = {
    "hydra/sweeper": ("basic", "optuna", "race"),
    "hydra/sweeper/sampler": ("random", "tpe"),
    "hydra/launcher": ("stacked",),
    "prune": ("median", "percentile", "patient", "threshold"),
}
_NAME = re.compile(r"[\w-]+")
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Preset:
    """A choice that is not in conf/; `values` may have a list of `defaults`."""

    group: str
    name: str
    values: Mapping[str, Any]


def read_presets(folder: Path) -> list[Preset]:
    """Read and check the presets of a folder, `GROUP/NAME.yaml`.

    Raises:
        InputError: for one that cannot be read, sets a key that it may not, or has the name of a choice in conf/.
    """
    if not folder.is_dir():
        raise InputError(f"--config-dir {folder}: must be an existing folder with presets")
    for group in ("hydra", "tracking"):
        if (folder / group).exists():
            raise InputError(
                f"{folder / group}: a folder of presets may not have this; "
                f"it may have {', '.join((*_GROUPS, *_GLOBAL_GROUPS))}"
            )
    return [
        _read_preset(path, group)
        for group in (*_GROUPS, *_GLOBAL_GROUPS)
        for path in sorted((folder / group).glob("[!.]*.yaml"))
    ]


@contextmanager
def offered(presets: Sequence[Preset]) -> Iterator[None]:
    """Offer presets to Hydra in the block."""
    store = ConfigStore.instance()
    for preset in presets:
        package = "_global_" if preset.group in _GLOBAL_GROUPS else preset.group
        store.store(preset.name, dict(preset.values), preset.group, package, provider="a preset")
    try:
        yield
    finally:
        for preset in presets:
            del store.repo[preset.group][f"{preset.name}.yaml"]


def read_text(path: Path) -> str:
    """Read a file; raise InputError if it is none, or not in UTF-8."""
    if not path.is_file():  # reading a pipe would wait
        raise InputError(f"{path}: must be a file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def parse_values(text: str, where: str) -> dict[str, Any]:
    """Return the map in a YAML text, with interpolations as text; messages begin with `where`.

    Raises:
        InputError: if it is no map of plain types, has aliases, which can make it huge, or more than 50 levels, which
            can take YAML minutes.
    """
    try:
        levels = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{where}: uses a YAML alias (*name); write out what it stands for")
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > _MOST_LEVELS:
                raise InputError(f"{where}: has more than {_MOST_LEVELS} levels")
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except InputError:
        raise
    # ValueError: a number has more digits than Python reads.
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"{where}: cannot be read ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: must be a map of keys to values")
    return {str(key): value for key, value in values.items()}


def check_values(values: Mapping[str, Any], where: str, group: str = "experiment") -> None:
    """Check that a preset sets only keys that it may, to plain values.

    Args:
        values: the preset's, by full key, such as `model: {hidden: 16}`.
        where: begins messages.
        group: the preset's; one of `sweep` may also set its sweeper and the values that vary.

    Raises:
        InputError: if it does not.
    """
    for path, value in leaves(values):
        key = ".".join(path)
        shown = f"{key}={show(value)}"
        if not is_plain(value) or "${" in repr((path, value)):
            raise InputError(f"{where}: {shown}: must be a plain value, without ${{...}}")
        if not _may_be_set(path) and not (group == "sweep" and _is_of_sweeper(path, value)):
            raise InputError(
                f"{where}: {shown}: a preset or recorded run may not set this; if you trust it, type it on the command "
                "line"
            )


def _read_preset(path: Path, group: str) -> Preset:
    if not _NAME.fullmatch(path.stem):
        raise InputError(f"{path}: a preset's name has letters, digits, _ and - only")
    if (CONF / group / path.name).exists():
        raise InputError(f"{path}: {group}={path.stem} is a choice of this project; give the preset another name")
    text = read_text(path)
    values = parse_values(text, str(path))
    own = {key: value for key, value in values.items() if key != "defaults"}
    _check_package(text, path, group)
    _check_defaults(values.get("defaults", []), path, group)
    check_values(own if group in _GLOBAL_GROUPS else {group: own}, str(path), group)
    return Preset(group, path.stem, values)


def _check_package(text: str, path: Path, group: str) -> None:
    """Check the header that places the values of a file in the configuration."""
    found = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    package = found.group(1) if found else None
    if group in _GLOBAL_GROUPS and package != "_global_":
        raise InputError(f"{path}: the first line of a preset must be: # @package _global_")
    if group not in _GLOBAL_GROUPS and package not in (None, group):
        raise InputError(f"{path}: must have no line # @package {package}; its keys are those of {group}")


def _check_defaults(defaults: Any, path: Path, group: str) -> None:
    """Check that a preset chooses only from groups of this project, or as conf/sweep/ does."""
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if isinstance(entry, str) and _NAME.fullmatch(entry):  # _self_, or a preset of the same group
            continue
        [(key, choice)] = entry.items() if isinstance(entry, Mapping) and len(entry) == 1 else [("", None)]
        chosen = re.fullmatch(r"(?:override )?/?([a-z]+(?:/[a-z]+)*)(?:@_global_\.([a-z]+))?", str(key))
        chosen_group, package = chosen.groups() if chosen else ("", None)
        allowed = chosen_group in (*_GROUPS, "experiment") and package in (None, chosen_group)
        if allowed and (choice is None or (isinstance(choice, str) and _NAME.fullmatch(choice))):
            continue
        if group == "sweep" and package is None and choice in _SWEEP_CHOICES.get(chosen_group, ()):
            continue
        raise InputError(
            f"{path}: defaults: {show(entry)}: a preset from elsewhere may not choose this; if you trust it, type it "
            "on the command line"
        )


def _may_be_set(path: Sequence[str]) -> bool:
    match path:
        case [part, *_] if part in _GROUPS:
            return True
        case [key]:
            return key in _KEYS
        case ["tracking", "tags", *_]:
            return True
        case ["tracking", key]:
            return key in _TRACKING_KEYS
    return False


def _is_of_sweeper(path: Sequence[str], value: Any) -> bool:
    match path:
        case ["hydra", "sweeper", "storage"]:
            return value is None or re.fullmatch(r"sqlite:///[\w-]+\.db", str(value)) is not None
        case ["hydra", "sweeper", "of"]:  # only the user may name a sweep in the store
            return value is None
        case ["hydra", "sweeper", key]:
            return key in _SWEEPER_KEYS
        case ["hydra", "sweeper", "sampler", "seed"] | ["prune", *_]:
            return True
        case ["hydra", "sweeper", "params", key]:
            return may_vary(key, str(value))
    return False


def may_vary(key: str, values: str) -> bool:
    """Whether a preset's or a recorded sweep may vary `key` over `values`.

    Hydra parses the values, and a folder may be named after them, so escapes, interpolations and .. are refused.
    """
    if re.search(r"[$\\]|\.\.", values):
        return False
    if key in (*_GROUPS, "experiment"):  # Hydra 1.3 also takes paths for choices
        return re.fullmatch(r"[\w\s,()*-]+", values) is not None
    return re.fullmatch(r"[\w.]+", key) is not None and _may_be_set(key.split("."))
