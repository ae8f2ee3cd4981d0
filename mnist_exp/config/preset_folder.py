"""A folder of presets: Hydra is offered their names, and a file is read when Hydra loads it.

So one that is neither chosen nor included can be as wrong as it likes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from mnist_exp.config.files import read_text
from mnist_exp.config.presets import GLOBAL_GROUPS, GROUPS, NAME, Preset, parse_preset
from mnist_exp.errors import InputError

ALL_GROUPS = (*GROUPS, *GLOBAL_GROUPS)  # in the order in which Hydra composes them
_MOST_FILES = 100
_MOST_VALUES = 3_000
_MOST_KB = 100
_MOST_BYTES = 1_000_000  # a larger file is not read


@dataclass(frozen=True)
class PresetFolder:
    """The presets `GROUP/NAME.yaml` of a folder.

    `files`: all, by group and name. `read`: those that Hydra has loaded, what one includes before it.
    """

    files: Mapping[tuple[str, str], Path]
    read: dict[tuple[str, str], Preset] = field(default_factory=dict)
    _shares: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        """List a folder; raise InputError if there is none, or it has settings of Hydra's or a store's."""
        with suppress(RuntimeError):  # an unknown home
            path = path.expanduser()
        if not os.path.isdir(path):  # noqa: PTH112, Path.is_dir raises for a name that is too long
            raise InputError(f"--config-dir {path}: must be an existing folder with presets")
        for group in ("hydra", "tracking"):
            if (path / group).exists():
                raise InputError(
                    f"{path / group}: a folder of presets may not have this; it may have {', '.join(ALL_GROUPS)}"
                )
        files = [(group, file) for group in ALL_GROUPS for file in sorted((path / group).glob("*.yaml"))]
        return cls({(group, file.stem): file for group, file in files if NAME.fullmatch(file.stem)})

    def load(self, group: str, name: str) -> Preset:
        """Return a preset, read and checked together with all that it includes.

        Raises:
            InputError: for one that cannot be used, that includes itself, or that is too large with what it includes.
        """
        self._weigh(group, name, ())
        return self.read[group, name]

    def load_typed(self, parsed: Sequence[Override]) -> None:
        """Read the presets that overrides name; raise InputError for one that cannot be used."""
        for one in parsed:
            chosen, _, _ = str(one.input_line).partition("=")[2].partition("exclude=")
            for name in NAME.findall(chosen):
                if (one.key_or_group, name) in self.files:
                    self.load(one.key_or_group, name)

    def _weigh(self, group: str, name: str, above: tuple[str, ...]) -> float:
        """Return the share that a preset and what it includes has of the most that Hydra is given at once."""
        path = self.files[group, name]
        if name in above:
            circle = " includes ".join([*above[above.index(name) :], name])
            raise InputError(f"{path}: includes itself: {shorten(circle, 200)}")
        if (group, name) in self._shares:
            return self._shares[group, name]
        text = read_text(path, most=_MOST_BYTES)
        preset = parse_preset(text, path, group)
        share = max(1 / _MOST_FILES, _count(preset.values) / _MOST_VALUES, len(text) / (1000 * _MOST_KB))
        for entry in preset.values.get("defaults", []):
            # A group is chosen once, however often it is overridden, so only names of its own group add up.
            included = isinstance(entry, str) and (group, entry) in self.files
            share += self._weigh(group, entry, (*above, name)) if included else 1 / _MOST_FILES
            if share > 1:
                raise InputError(
                    f"{path}: is too large with what it includes; together at most {_MOST_FILES} presets, "
                    f"{_MOST_VALUES:,} values and {_MOST_KB} kB"
                )
        self._shares[group, name] = share
        self.read[group, name] = preset
        return share


def _count(values: Any) -> int:
    inner = values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ()
    return 1 + sum(map(_count, inner))


@dataclass
class _Unread(ConfigNode):
    """A preset in Hydra's store that is read when Hydra loads it."""

    load: Callable[[], Preset]

    def __copy__(self) -> ConfigNode:
        """Return what Hydra loads, which it copies from its store."""
        return _node(self.load())

    def __deepcopy__(self, memo: object) -> Self:
        return self  # Hydra copies all of its store at times


def _node(preset: Preset) -> ConfigNode:
    package = "_global_" if preset.group in GLOBAL_GROUPS else preset.group
    return ConfigNode(f"{preset.name}.yaml", OmegaConf.create(dict(preset.values)), preset.group, package, "a preset")


@contextmanager
def offered(presets: Sequence[Preset], folder: PresetFolder | None = None) -> Iterator[None]:
    """Offer presets to Hydra in the block, and those of a folder."""
    nodes = {(one.group, one.name): _node(one) for one in presets}
    if folder is not None:
        for file in folder.files:
            nodes[file] = _Unread(**vars(_node(Preset(*file, {}))), load=partial(folder.load, *file))
    repo = ConfigStore.instance().repo
    for (group, name), node in nodes.items():
        repo.setdefault(group, {})[f"{name}.yaml"] = node
    try:
        yield
    finally:
        for group, name in nodes:
            del repo[group][f"{name}.yaml"]


def refuse_hidden(choices: Mapping[str, Any]) -> None:
    """Raise InputError if a choice that Hydra took from conf/ is the name of an offered file, too."""
    for group, chosen in choices.items():
        offers = ConfigStore.instance().repo.get(group, {})
        for name in chosen if isinstance(chosen, list) else [chosen]:
            if isinstance(node := offers.get(f"{name}.yaml"), _Unread):
                node.load()
