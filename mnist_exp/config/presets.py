"""What a preset, or a recorded configuration, may say: read as data, and checked.

It may come from a stranger, while Hydra calls what its own settings name, and resolvers read the environment. So it may
set only what is listed here, and Hydra gets its values, never the file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.keras_source import is_plain
from mnist_exp.config.overrides import leaves, refuse_passwords
from mnist_exp.errors import InputError, show

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a checkout beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

GROUPS = ("dataset", "preprocessing", "model", "optimizer", "training")
GLOBAL_GROUPS = ("experiment", "sweep")  # presets of several parts, with @package _global_
_KEYS = ("seed", "backend", "objective", "direction", "resume")
_TRACKING_KEYS = ("experiment", "run_name", "tags", "note", "keep")
_SWEEPER_KEYS = ("kind", "n_trials", "n_jobs", "initial_seeds", "max_jobs", "indifference", "n_best")
# The choices that a sweep preset may make.
_SWEEP_CHOICES = {
    "hydra/launcher": ("stacked",),
    "prune": ("median", "percentile", "patient", "threshold"),
}
NAME = re.compile(r"[\w-]+")
_MOST_LEVELS = 50
_MOST_VALUES = 5_000
_MOST_DIGITS = 300


@dataclass(frozen=True)
class Preset:
    """A choice that is not in conf/; `values` may have a list of `defaults`."""

    group: str
    name: str
    values: Mapping[str, Any]


def parse_preset(text: str, path: Path, group: str) -> Preset:
    """Return the preset that the text of a file is, checked.

    Raises:
        InputError: if it cannot be parsed, sets a key that it may not, or has the name of a choice in conf/.
    """
    if (CONF / group / path.name).exists():
        raise InputError(f"{path}: {group}={path.stem} is a choice of this project; give the preset another name")
    values = parse_values(text, str(path))
    own = {key: value for key, value in values.items() if key != "defaults"}
    if values:
        _check_package(text, path, group)
    _check_defaults(values.get("defaults", []), path, group)
    check_values(own if group in GLOBAL_GROUPS else {group: own}, str(path), group)
    return Preset(group, path.stem, values)


def parse_values(text: str, where: str) -> dict[str, Any]:
    """Return the map in a YAML text, with interpolations as text; messages begin with `where`.

    Raises:
        InputError: if it is no map of plain types, or breaks a rule of `_check_events`.
    """
    try:
        _check_events(text, where)
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except InputError:
        raise
    # ValueError: there is no such day.
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"{where}: cannot be read ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: must be a map of keys to values")
    return {str(key): value for key, value in values.items()}


def _check_events(text: str, where: str) -> None:
    """Check YAML before anything is made of it: no aliases, no tags, and a limit on levels, values and digits."""
    levels = values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        place = f"{where}: line {event.start_mark.line + 1 if event.start_mark else 1}"
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{place} uses a YAML alias (*name); write out what it stands for")
        if tag := getattr(event, "tag", None):
            shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
            raise InputError(f"{place} uses a YAML tag ({shown}); write a plain value")
        if levels > _MOST_LEVELS:
            raise InputError(f"{place} has more than {_MOST_LEVELS} levels")
        if values > _MOST_VALUES:
            raise InputError(f"{where}: has more than {_MOST_VALUES:,} values")
        # In any base; Python writes no number of more than some thousand digits.
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else ""
        if len(plain) > _MOST_DIGITS and re.fullmatch(r"[-+]?[0-9][\w:]*", plain):
            raise InputError(f"{place} has a number of more than {_MOST_DIGITS} digits; a text needs quotes")


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
        refuse_passwords([shown])
        if not is_plain(value) or "${" in repr((path, value)):
            raise InputError(f"{where}: {shown}: must be a plain value, without ${{...}}")
        if key in GROUPS and not isinstance(value, Mapping):
            raise InputError(f"{where}: {shown}: must be a map of keys to values")
        if not _may_be_set(path) and not (group == "sweep" and _is_of_sweeper(path, value)):
            raise InputError(
                f"{where}: {shown}: a preset or recorded run may not set this; if you trust it, type it on the command "
                "line"
            )


def _check_package(text: str, path: Path, group: str) -> None:
    """Check the header that places the values of a file in the configuration."""
    found = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    package = found.group(1) if found else None
    if group in GLOBAL_GROUPS and package != "_global_":
        raise InputError(f"{path}: the first line of a preset must be: # @package _global_")
    if group not in GLOBAL_GROUPS and package not in (None, group):
        raise InputError(f"{path}: must have no line # @package {package}; its keys are those of {group}")


def _check_defaults(defaults: Any, path: Path, group: str) -> None:
    """Check that a preset chooses only from groups of this project, or as conf/sweep/ does."""
    if not isinstance(defaults, list):
        raise InputError(f"{path}: defaults={show(defaults)}: must be a list")
    for entry in defaults:
        if isinstance(entry, str) and NAME.fullmatch(entry):  # _self_, or a preset of the same group
            continue
        [(key, choice)] = entry.items() if isinstance(entry, Mapping) and len(entry) == 1 else [("", None)]
        chosen = re.fullmatch(r"(override )?/?([a-z]+(?:/[a-z]+)*)(?:@_global_\.([a-z]+))?", str(key))
        override, chosen_group, package = chosen.groups() if chosen else (None, "", None)
        allowed = chosen_group in (*GROUPS, "experiment") and package in (None, chosen_group)
        allowed = allowed and (choice is None or (isinstance(choice, str) and NAME.fullmatch(choice) is not None))
        if allowed or (group == "sweep" and package is None and choice in _SWEEP_CHOICES.get(chosen_group, ())):
            if override:
                continue
            raise InputError(f"{path}: defaults: {show(entry)}: is chosen already; write override {key}: {choice}")
        raise InputError(
            f"{path}: defaults: {show(entry)}: a preset from elsewhere may not choose this; if you trust it, type it "
            "on the command line"
        )


def _may_be_set(path: Sequence[str]) -> bool:
    match path:
        case [part, *_] if part in GROUPS:
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
        case ["hydra", "sweeper", "from_sweep"]:  # only the user may name a sweep in the store
            return value is None
        case ["hydra", "sweeper", key]:
            return key in _SWEEPER_KEYS
        case ["hydra", "sweeper", "sampler", "TPESampler" | "RandomSampler", str(key)]:
            return re.fullmatch("[a-z][a-z_]*", key) is not None
        case ["prune", *_]:
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
    if key in (*GROUPS, "experiment"):  # Hydra 1.3 also takes paths for choices
        return re.fullmatch(r"[\w\s,()*-]+", values) is not None
    return re.fullmatch(r"[\w.]+", key) is not None and _may_be_set(key.split("."))
