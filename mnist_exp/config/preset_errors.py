"""Which preset a message is about."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mnist_exp.config.overrides import Override, leaves
from mnist_exp.config.preset_folder import ALL_GROUPS, PresetFolder
from mnist_exp.config.presets import CONF, GLOBAL_GROUPS, Preset
from mnist_exp.errors import InputError, show


@contextmanager
def naming_presets(folder: PresetFolder, overrides: Sequence[str]) -> Iterator[None]:
    """Let an InputError in the block begin with the file of `folder` that is to blame, unless `overrides` are."""
    try:
        yield
    except InputError as error:
        message = str(error)
        if path := _source(message, folder, overrides):
            shown = re.sub(r"^In '?[\w/-]+'?: ", "", message)
            error.args = InputError(f"{path}: {shown}").args
        raise


def _source(message: str, folder: PresetFolder, overrides: Sequence[str]) -> Path | None:
    """Return the preset that set the key at the beginning of a message, or made the choice."""
    for one in map(Override.of, overrides):
        is_choice = (CONF / one.key).is_dir() and not one.value.startswith("{")
        if _begins(message, one.key) and not is_choice:
            return None
    found = [
        (*match, ALL_GROUPS.index(preset.group), place, folder.files[preset.group, preset.name])
        for place, preset in enumerate(folder.read.values())
        for match in _matches(preset, message)
    ]
    return max(found)[-1] if found else None


def _matches(preset: Preset, message: str) -> Iterator[tuple[int, bool]]:
    """Yield how much of the beginning of a message is about a preset, and whether its value is shown, too."""
    group = preset.group
    if re.search(rf"(?<![\w/]){group}/{preset.name}(?![\w/.-])", message):  # as Hydra names it
        yield len(message), True
    about = [(f"{group}.kind", False), *((key, False) for key in re.findall(rf"^{group}\.\w+(?=: is )", message))]
    if group in GLOBAL_GROUPS:
        about = [(path[0], False) for path, _ in leaves(preset.values) if message.startswith(f"{path[0]}.kind=null")]
    for entry in preset.values.get("defaults", []):
        for key, name in entry.items() if isinstance(entry, Mapping) else [(group, entry)]:
            about.append((f"{re.sub('^(override )?/?|@.*', '', key)}={name}", True))
    for path, value in leaves(preset.values if group in GLOBAL_GROUPS else {group: preset.values}):
        key = ".".join(path)
        about.append((key, message.startswith(f"{key}={show(value)}")))
        if path[:3] == ("hydra", "sweeper", "params"):
            about.append((".".join(path[3:]), True))
        parents = [".".join(path[:end]) for end in range(2, len(path))]
        about += [(parent, False) for parent in parents if message.startswith((f"{parent}=", f"{parent}:"))]
    yield from ((len(key), certain) for key, certain in about if _begins(message, key))


def _begins(message: str, key: str) -> bool:
    return message.startswith(key) and re.match(r"[\w-]", message[len(key) :]) is None
