"""Presets, as data: those of a folder that are chosen are read once and checked, as a recorded configuration is.

They may come from a stranger, while Hydra calls what its own settings name, and resolvers read the environment. So a
preset sets only what is listed here, and Hydra gets its values, never the file.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.files import read_text
from mnist_exp.config.keras_source import is_plain
from mnist_exp.config.overrides import Override, leaves, refuse_passwords
from mnist_exp.config.schema import keys
from mnist_exp.errors import InputError, show

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a checkout beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

GROUPS = ("dataset", "preprocessing", "model", "optimizer", "training")
GLOBAL_GROUPS = ("experiment", "sweep")  # presets of several parts, with @package _global_
_ALL_GROUPS = (*GROUPS, *GLOBAL_GROUPS)
_NAME = re.compile(r"[\w-]+")

_PARAMS = "hydra.sweeper.params."
_GROUP = "|".join(GROUPS)
_SWEEPER_KEYS = re.compile(
    "kind|n_trials|n_jobs|initial_seeds|max_jobs|indifference|n_best|sampler[.](TPESampler|RandomSampler)[.][a-z][a-z_]*"
)
_CHOICES = re.compile(rf"(override )?/?({_GROUP}|experiment)(?:@_global_[.]\2)?: [\w-]+")
_CHOICES_OF_SWEEPS = re.compile(
    "(override )?/?(?:hydra/launcher: stacked|prune: (?:median|percentile|patient|threshold))"
)
_MOST_LEVELS, _MOST_VALUES, _MOST_DIGITS = 50, 5_000, 300
_MOST_INCLUDED, _MOST_BYTES = 100, 100_000

_Key = tuple[str, str]  # a group and a name


@dataclass(frozen=True)
class Preset:
    """A choice that is not in conf/; `values` may have a list of `defaults`, and `path` is the file with them."""

    group: str
    name: str
    values: Mapping[str, Any]
    path: Path | None = None

    @property
    def whole(self) -> dict[str, Any]:
        """The values from the top of the configuration down, without `defaults`."""
        own = {key: value for key, value in self.values.items() if key != "defaults"}
        return {self.group: own} if self.group in GROUPS else own

    @property
    def flat(self) -> dict[str, Any]:
        """The values by full key; what a sweep varies is under the key that varies, too."""
        flat = {".".join(path): value for path, value in leaves(self.whole)}
        return flat | {key.removeprefix(_PARAMS): value for key, value in flat.items() if key.startswith(_PARAMS)}

    @property
    def choices(self) -> list[_Key]:
        """The groups and names that `defaults` have, or that a sweep varies, such as `("model", "cnn,mlp")`."""
        pairs = [(key, text) for key, text in self.flat.items() if key in _ALL_GROUPS and isinstance(text, str)]
        for entry in self.values.get("defaults", []):
            pairs += entry.items() if isinstance(entry, Mapping) else [(self.group, entry)]
        return [(re.sub("^(override )?/?|@.*", "", key), name) for key, name in pairs if name not in (None, "_self_")]


def list_files(folder: Path) -> dict[_Key, Path]:
    """Return the files GROUP/NAME.yaml of a folder; raise InputError for settings of Hydra's, or a choice of conf/."""
    folder = Path(os.path.expanduser(folder))  # noqa: PTH111, Path.expanduser raises for an unknown home
    if not os.path.isdir(folder):  # noqa: PTH112, and Path.is_dir for a name that is too long
        raise InputError(f"--config-dir {folder}: must be an existing folder with presets")
    if refused := [folder / group for group in ("hydra", "tracking") if (folder / group).exists()]:
        raise InputError(f"{refused[0]}: a folder of presets may not have this; it may have {', '.join(_ALL_GROUPS)}")
    paths = [path for group in _ALL_GROUPS for path in sorted((folder / group).glob("*.yaml"))]
    files = {(path.parent.name, path.stem): path for path in paths if _NAME.fullmatch(path.stem)}
    for (group, name), path in files.items():
        if (CONF / group / path.name).exists():
            raise InputError(f"{path}: {group}={name} is a choice of this project; give the preset another name")
    return files


def read_chosen(files: Mapping[_Key, Path], overrides: Sequence[str]) -> list[Preset]:
    """Read the presets that overrides choose, and those that these choose or include, in the order of groups.

    Raises:
        InputError: for one that cannot be used, that includes itself, or that is too large with what it includes.
    """
    found: dict[_Key, Preset] = {}
    typed = [(one.key.removeprefix(_PARAMS).strip(), one.value) for one in map(Override.of, overrides)]
    if any(key == "hydra.sweeper.from_sweep" for key, _ in typed):  # rows of a store may choose any
        typed = [(group, "*") for group in _ALL_GROUPS]
    for first in [key for group, text in typed for key in _named(files, group.partition("@")[0], text)]:
        included = size = 0
        waiting = [[first]]
        while waiting:
            chain = waiting.pop()
            key = chain[-1]
            path = files[key]
            if key in chain[:-1]:
                circle = " includes ".join(name for _, name in chain[chain.index(key) :])
                raise InputError(f"{path}: includes itself: {circle[:200]}")
            preset = found[key] = found.get(key) or _read(path, key[0])
            included += len(preset.choices)  # Hydra loads a preset as often as it is included
            size += len(str(preset.values))
            if included > _MOST_INCLUDED or size > _MOST_BYTES:
                raise InputError(
                    f"{files[first]}: is too large with what it includes; together at most {_MOST_INCLUDED} presets "
                    f"and {_MOST_BYTES // 1000} kB"
                )
            waiting += [[*chain, one] for group, text in preset.choices for one in _named(files, group, text)]
    return sorted(found.values(), key=lambda preset: _ALL_GROUPS.index(preset.group))


def _named(files: Mapping[_Key, Path], group: str, text: str) -> list[_Key]:
    """Return the files that a text such as `a`, `a,b` or `glob(*,exclude=a)` chooses."""
    chosen, but = (re.findall(r"[\w*?-]+", part) for part in text.partition("exclude=")[::2])
    names = [name for of_group, name in files if of_group == group]
    names = [name for name in names if any(fnmatchcase(name, one) for one in chosen)]
    return [(group, name) for name in names if not any(fnmatchcase(name, one) for one in but)]


def _read(path: Path, group: str) -> Preset:
    folder = path.parents[1].resolve()  # what is typed may be a link
    text = read_text(folder / group / path.name, str(path), most=_MOST_BYTES, folder=folder)
    preset = Preset(group, path.stem, parse_values(text, str(path)), path)
    found = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    package = found[1] if found else group
    if group in GROUPS and package != group:
        raise InputError(f"{path}: must have no line # @package {package}; its keys are those of {group}")
    if group not in GROUPS and preset.values and package != "_global_":
        raise InputError(f"{path}: the first line of a preset must be: # @package _global_")
    _check_defaults(preset)
    check_values(preset.whole, str(path), group)
    return preset


def parse_values(text: str, where: str) -> dict[str, Any]:
    """Return the map in a YAML text, with interpolations as text; raise InputError, which begins with `where`."""
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
    """Check YAML before anything is made of it: no anchors, no aliases, no tags, few levels, values and digits."""
    levels = values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else ""
        reason = ""
        if getattr(event, "anchor", None):
            reason = "uses a YAML alias (&name or *name); write out what it stands for"
        elif tag := getattr(event, "tag", None):
            reason = f"uses a YAML tag ({tag.replace('tag:yaml.org,2002:', '!!')[:60]}); write a plain value"
        elif levels > _MOST_LEVELS:
            reason = f"has more than {_MOST_LEVELS} levels"
        elif values > _MOST_VALUES:
            reason = f"has more than {_MOST_VALUES:,} values"
        # In any base; Python writes no number of more than some thousand digits.
        elif len(plain) > _MOST_DIGITS and re.fullmatch(r"[-+]?[0-9][\w:]*", plain):
            reason = f"has a number of more than {_MOST_DIGITS} digits; a text needs quotes"
        if reason:
            raise InputError(f"{where}: line {event.start_mark.line + 1 if event.start_mark else 1} {reason}")


def _check_defaults(preset: Preset) -> None:
    """Check that a preset chooses only from groups of this project, or as conf/sweep/ does."""
    defaults = preset.values.get("defaults", [])
    if not isinstance(defaults, list):
        raise InputError(f"{preset.path}: defaults={show(defaults)}: must be a list")
    for entry in defaults:
        if isinstance(entry, str) and _NAME.fullmatch(entry):  # _self_, or a preset of the same group
            continue
        [(key, name)] = entry.items() if isinstance(entry, Mapping) and len(entry) == 1 else [("", 0)]
        text = f"{key}: {name}" if isinstance(name, str | None) else ""
        found = _CHOICES.fullmatch(text) or (preset.group == "sweep" and _CHOICES_OF_SWEEPS.fullmatch(text))
        reason = "a preset from elsewhere may not choose this; if you trust it, type it on the command line"
        if found:
            reason = f"is chosen already; write override {text}"
        if not (found and found[1]):
            raise InputError(f"{preset.path}: defaults: {show(entry)}: {reason}")


def check_values(values: Mapping[str, Any], where: str, group: str = "experiment") -> None:
    """Raise InputError, which begins with `where`, unless a preset sets only keys that it may, to plain values.

    One of the group `sweep` may also set its sweeper and the values that vary.
    """
    for path, value in leaves(values):
        key = ".".join(path)
        shown = f"{key}={show(value)}"
        refuse_passwords([shown])
        if not is_plain(value) or "${" in repr((path, value)):
            raise InputError(f"{where}: {shown}: must be a plain value, without ${{...}}")
        if key in GROUPS and not isinstance(value, Mapping):
            raise InputError(f"{where}: {shown}: must be a map of keys to values")
        if not _may_be_set(path) and not (group == "sweep" and _is_of_sweep(path, value)):
            raise InputError(
                f"{where}: {shown}: a preset or recorded run may not set this; if you trust it, type it on the command "
                "line"
            )


def _may_be_set(path: Sequence[str]) -> bool:
    """Return whether a key is in a part of an experiment, or is declared without the mark `typed`."""
    key = "tracking.tags" if path[:2] == ("tracking", "tags") else ".".join(path)
    return path[0] in GROUPS or key in keys() - keys("typed")


def _is_of_sweep(path: Sequence[str], value: Any) -> bool:
    match path:
        case ["prune", *_]:
            return True
        case ["hydra", "sweeper", "params", key]:
            return may_vary(key, str(value))
        case ["hydra", "sweeper", "from_sweep"]:  # only the user may name a sweep in the store
            return value is None
        case ["hydra", "sweeper", *rest]:  # Hydra calls what a map names, in a list, too
            is_known = _SWEEPER_KEYS.fullmatch(".".join(rest)) is not None
            return is_known and not isinstance(value, list | Mapping)
    return False


def may_vary(key: str, values: str) -> bool:
    """Whether a preset's or a recorded sweep may vary `key` over `values`.

    Hydra parses the values, and a folder may be named after them, so escapes, interpolations and .. are refused.
    """
    if re.search(r"[$\\]|\.\.", values):
        return False
    if key in (*GROUPS, "experiment"):  # Hydra 1.3 also takes paths for choices
        return re.fullmatch(r"[\w\s,()*-]+", values) is not None
    return re.fullmatch(r"[\w.]+", key) is not None and _may_be_set(tuple(key.split(".")))


@contextmanager
def offered(presets: Sequence[Preset], files: Iterable[_Key] = ()) -> Iterator[None]:
    """Offer presets to Hydra in the block, and list the names of files that were not read."""
    unread = {"defaults": ["a file that is read only if it is typed"]}  # Hydra lists such a choice, and cannot load it
    both = [*(Preset(*key, unread) for key in files), *presets]
    repo = ConfigStore.instance().repo
    for one in both:
        package = one.group if one.group in GROUPS else "_global_"
        node = ConfigNode(one.name, OmegaConf.create(dict(one.values)), one.group, package, "a preset")
        repo.setdefault(one.group, {})[f"{one.name}.yaml"] = node
    try:
        yield
    finally:
        for one in both:
            repo[one.group].pop(f"{one.name}.yaml", None)


@contextmanager
def naming_presets(presets: Sequence[Preset], overrides: Sequence[str]) -> Iterator[None]:
    """Let an InputError in the block begin with the file of the preset that sets the key, unless it is typed."""
    try:
        yield
    except InputError as error:
        if path := _source(str(error), presets, overrides):
            shown = re.sub(r"^In '?[\w/-]+'?: ", "", str(error))
            error.args = InputError(f"{path}: {shown}").args
        raise


def _source(message: str, presets: Sequence[Preset], overrides: Sequence[str]) -> Path | None:
    key, name = re.split(r"[=:\[]", message)[0], re.findall(r"[\w-]+|$", message.partition("=")[2])[0]
    typed = [one for one in map(Override.of, overrides) if one.value[:1] == "{" or not (CONF / one.key).is_dir()]
    if any(f"{key}.".startswith(f"{one.key}.") for one in typed):
        return None
    place = re.match(r"(?:In '?)?([\w-]+)/([\w-]+)", message)  # Hydra names a preset so
    missing = re.match(r"(\w+)\.\w+(?:: is missing|=null)", message)
    above = f"{missing[1] if missing else key}."

    def is_source(one: Preset) -> bool:
        keys = [f"{own}." for own in one.flat]
        sets = any(f"{key}.".startswith(own) or (own.startswith(above) and "." in key) for own in keys)
        return sets or (key, name) in one.choices or bool(place and place.groups() == (one.group, one.name))

    # The last one that sets a key wins; only a choice can miss one.
    sources = filter(is_source, presets if missing else reversed(presets))
    found = max(sources, key=lambda one: message.startswith(f"{key}={show(one.flat.get(key))}"), default=None)
    return found.path if found else None
