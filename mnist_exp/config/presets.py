"""Read chosen presets as data, and check them as recorded configurations.

They may come from a stranger, while Hydra calls functions that its settings name, and resolvers read the environment.
So a preset sets only the keys listed here, and Hydra gets its values, never the file.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import CONF, GLOBAL_GROUPS, GROUPS
from mnist_exp.config.files import read_text
from mnist_exp.config.keras_source import is_plain
from mnist_exp.config.overrides import Override, leaves, refuse_passwords
from mnist_exp.config.schema import keys
from mnist_exp.errors import InputError, format_value

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
_MOST_VALUES, _MOST_INCLUDED, _MOST_BYTES = 5_000, 100, 100_000

_Key = tuple[str, str]  # a group and a name


@dataclass(frozen=True)
class Preset:
    """A choice that is not in conf/, read from the file `path`.

    `values` may have a list of `defaults`.
    """

    group: str
    name: str
    values: Mapping[str, Any]
    path: Path | None = None

    @property
    def package(self) -> str:
        """Where Hydra puts the values."""
        return self.group if self.group in GROUPS else "_global_"

    @property
    def whole(self) -> dict[str, Any]:
        """The values from the top of the configuration down, without `defaults`."""
        own = {key: value for key, value in self.values.items() if key != "defaults"}
        return {self.group: own} if self.group in GROUPS else own

    @property
    def flat(self) -> dict[str, Any]:
        """The values by full key, those that a sweep varies under that key."""
        flat = {".".join(path): value for path, value in leaves(self.whole)}
        return flat | {key.removeprefix(_PARAMS): value for key, value in flat.items() if key.startswith(_PARAMS)}

    @property
    def choices(self) -> list[_Key]:
        """The groups and names in `defaults` or that vary, as `("model", "cnn,mlp")`."""
        pairs = [(key, text) for key, text in self.flat.items() if key in _ALL_GROUPS and isinstance(text, str)]
        for entry in self.values.get("defaults", []):
            pairs += entry.items() if isinstance(entry, Mapping) else [(self.group, entry)]
        return [(re.sub("^(override )?/?|@.*", "", key), name) for key, name in pairs if name not in (None, "_self_")]


def list_files(folder: Path) -> dict[_Key, Path]:
    """Return the files GROUP/NAME.yaml of a folder.

    Raise InputError for settings of Hydra's, or a choice of conf/.
    """
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
    """Read the chosen presets, and those that they include, in the order of groups.

    Raises:
        InputError: for one that cannot be used, or that is too large with the presets it includes.
    """
    found: dict[_Key, Preset] = {}
    typed = [
        (override.key.removeprefix(_PARAMS).strip(), override.value) for override in map(Override.parse, overrides)
    ]
    if any(key == "hydra.sweeper.from_sweep" for key, _ in typed):  # rows of a store may choose any
        typed = [(group, "*") for group in _ALL_GROUPS]
    for first in [key for group, text in typed for key in _split_choice(files, group.partition("@")[0], text)]:
        waiting, included, size = [first], 0, 0
        while waiting:
            key = waiting.pop()
            preset = found[key] = found.get(key) or _read(files[key], key[0])
            included += len(preset.choices)  # Hydra loads a preset as often as it is included
            size += len(str(preset.values))
            if included > _MOST_INCLUDED or size > _MOST_BYTES:
                raise InputError(
                    f"{files[first]}: includes itself, or is too large with what it includes; together at most "
                    f"{_MOST_INCLUDED} presets and {_MOST_BYTES // 1000} kB"
                )
            waiting += [choice for group, text in preset.choices for choice in _split_choice(files, group, text)]
    return sorted(found.values(), key=lambda preset: _ALL_GROUPS.index(preset.group))


def _split_choice(files: Mapping[_Key, Path], group: str, text: str) -> list[_Key]:
    """Return the files that a text such as `a`, `a,b` or `glob(*,exclude=a)` chooses."""
    chosen, but = (re.findall(r"[\w*?-]+", part) for part in text.partition("exclude=")[::2])
    names = [name for of_group, name in files if of_group == group]
    names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)]
    return [(group, name) for name in names if not any(fnmatchcase(name, pattern) for pattern in but)]


def _read(path: Path, group: str) -> Preset:
    folder = path.parents[1].resolve()  # what is typed may be a link
    text = read_text(folder / group / path.name, str(path), most=_MOST_BYTES, folder=folder)
    preset = Preset(group, path.stem, parse_values(text, str(path)), path)
    found = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    if preset.values and (found[1] if found else group) != preset.package:
        raise InputError(f"{path}: the first line of a preset must be: # @package {preset.package}")
    _check_defaults(preset)
    check_values(preset.whole, str(path), group)
    return preset


def parse_values(text: str, where: str) -> dict[str, Any]:
    """Return the map in a YAML text, with interpolations as text.

    Raise InputError, which begins with `where`.
    """
    if len(text) > _MOST_BYTES:
        raise InputError(f"{where}: must have at most {_MOST_BYTES} characters")
    try:
        _check_events(text, where)
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except InputError:
        raise
    # ValueError: there is no such day.
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"{where}: cannot be read ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(values, dict) or not all(is_plain(value) for _, value in leaves(values)):
        raise InputError(f"{where}: must be a map of keys to plain values, with numbers of at most 300 digits")
    return {str(key): value for key, value in values.items()}


def _check_events(text: str, where: str) -> None:
    """Raise InputError for YAML with an anchor, an alias, a tag or too many values."""
    values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        values += isinstance(event, yaml.NodeEvent)
        if values > _MOST_VALUES:
            reason = f"has more than {_MOST_VALUES:,} values"
        elif getattr(event, "anchor", None):
            reason = "uses a YAML alias (&name or *name); write out what it stands for"
        elif tag := getattr(event, "tag", None):
            reason = f"uses a YAML tag ({tag.replace('tag:yaml.org,2002:', '!!')[:60]}); write a plain value"
        else:
            continue
        raise InputError(f"{where}: line {event.start_mark.line + 1 if event.start_mark else 1} {reason}")


def _check_defaults(preset: Preset) -> None:
    """Check that a preset chooses only from this project's groups, or a sweep's."""
    defaults = preset.values.get("defaults", [])
    if not isinstance(defaults, list):
        raise InputError(f"{preset.path}: defaults={format_value(defaults)}: must be a list")
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
            raise InputError(f"{preset.path}: defaults: {format_value(entry)}: {reason}")


def check_values(values: Mapping[str, Any], where: str, group: str = "experiment") -> None:
    """Raise InputError unless a preset sets only keys that it may, to plain values.

    Args:
        values: by full key; in the group `sweep` also its sweeper and the values that vary.
        where: the file, which begins the message.
        group: of the preset.
    """
    for path, value in leaves(values):
        key = ".".join(path)
        shown = f"{key}={format_value(value)}"
        refuse_passwords([shown])
        if "${" in repr((path, value)):
            raise InputError(f"{where}: {shown}: must be a plain value, without ${{...}}")
        if key in GROUPS and not isinstance(value, Mapping):
            raise InputError(f"{where}: {shown}: must be a map of keys to values")
        if not _may_be_set(path) and not (group == "sweep" and _is_of_sweep(path, value)):
            raise InputError(
                f"{where}: {shown}: a preset or recorded run may not set this; if you trust it, type it on the command "
                "line"
            )


def _may_be_set(path: Sequence[str]) -> bool:
    """Return whether a preset may set a key."""
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
def list_presets(presets: Sequence[Preset], files: Iterable[_Key] = ()) -> Iterator[None]:
    """Offer presets to Hydra in the block, and list files that were not read."""
    unread = {"defaults": ["a file that is read only if it is typed"]}  # Hydra lists such a choice, and cannot load it
    both = [*(Preset(*key, unread) for key in files), *presets]
    repo = ConfigStore.instance().repo
    for override in both:
        node = ConfigNode(
            override.name, OmegaConf.create(dict(override.values)), override.group, override.package, "a preset"
        )
        repo.setdefault(override.group, {})[f"{override.name}.yaml"] = node
    try:
        yield
    finally:
        for override in both:
            repo[override.group].pop(f"{override.name}.yaml", None)


@contextmanager
def attribute_errors(presets: Sequence[Preset], overrides: Sequence[str]) -> Iterator[None]:
    """Name the preset's file in an InputError in the block, unless the key is typed."""
    try:
        yield
    except InputError as error:
        message = str(error)
        key = re.split(r"[=:\[]", message)[0]
        shown = re.sub(r"^In '?[\w/-]+'?: ", "", message)
        values = [
            override
            for override in map(Override.parse, overrides)
            if override.value[:1] == "{" or not (CONF / override.key).is_dir()
        ]
        if not any(f"{key}.".startswith(f"{override.key}.") for override in values):
            sources = [(_blame(preset, key, message), preset.path) for preset in reversed(presets)]
            blame, path = max(sources, key=itemgetter(0), default=(0, None))
            if blame and path is not None:
                error.args = InputError(f"{path}: {shown}").args
        raise


def _blame(preset: Preset, key: str, message: str) -> int:
    """Return 2 if a message has a preset's value, 1 if a part that it sets, else 0."""
    said = [f"{own}={format_value(value)}" for own, value in preset.flat.items() if own.startswith(key)]
    said += [f"{group}={name}:" for group, name in preset.choices]
    if message.startswith((*said, *(f"In {quote}{preset.group}/{preset.name}{quote}:" for quote in ("", "'")))):
        return 2
    part = key.split(".")[0]
    return int(key not in GROUPS and part in {own.split(".")[0] for own in preset.flat})
