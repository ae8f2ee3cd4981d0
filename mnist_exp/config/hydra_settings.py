"""Check Hydra's own settings for a run or a sweep: launchers and output folders."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.overrides import Override
from mnist_exp.errors import InputError, did_you_mean, format_value

# By the key of the output folder: settings that only the other way to run reads.
_WITHOUT_EFFECT = {
    "hydra.run.dir": (r"hydra[./](sweep|sweeper|launcher)\b", "is for a sweep; add -m, or leave it out"),
    "hydra.sweep.dir": (r"hydra\.run\b", "is for a single run; with -m, hydra.sweep.dir=DIR is the output folder"),
}


def check_launcher(composed: DictConfig) -> None:
    """Raise InputError for a setting that the launcher does not have.

    The launcher checks the values.
    """
    if not isinstance(settings := composed.hydra.launcher, DictConfig):
        raise InputError(f"hydra.launcher={format_value(settings)}: must be a map; hydra/launcher=CHOICE chooses one")
    store, choice = ConfigStore.instance(), f"{composed.hydra.runtime.choices['hydra/launcher']}.yaml"
    if choice not in store.list("hydra/launcher"):
        return  # its plugin has files, which Hydra checks
    keys = list(map(str, store.load(f"hydra/launcher/{choice}").node))
    for key in map(str, settings):
        if key not in keys:
            raise InputError(f"hydra.launcher.{key}: is no setting of this launcher{did_you_mean(key, keys)}")


def check_output(composed: DictConfig, key: str) -> None:
    """Check the output folder at `key`: `hydra.run.dir` or `hydra.sweep.dir`.

    Raises:
        InputError: if another value leads it elsewhere, such as a preset's in `hydra.run.dir=${tracking.experiment}`,
            its name is too long, or a setting is typed that has no effect.
    """
    hydra: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    others, instead = _WITHOUT_EFFECT[key]
    for override in hydra["overrides"]["hydra"]:
        if re.match(others, Override.parse(override).key):
            raise InputError(f"{override}: {instead}")
    name = key.split(".")[1]
    typed, folder = str(hydra[name]["dir"]), str(composed.hydra[name]["dir"])
    absolute = Path(folder).is_absolute() and not typed.startswith(("/", "${hydra", "${oc."))
    if absolute or (".." in Path(folder).parts and ".." not in typed):
        raise InputError(f"{key}={typed}: leads to {folder} through another value; type the folder itself")
    _check_names(key, folder)
    _check_inside("hydra.output_subdir", str(composed.hydra.output_subdir))


def check_subfolders(composed: DictConfig, varied: Collection[str], *, draws: bool) -> None:
    """Raise InputError if jobs of a sweep could share a folder.

    Args:
        composed: the sweep.
        varied: the keys with several values.
        draws: whether two jobs may have the same values.
    """
    hydra: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    subdir = str(hydra["sweep"]["subdir"])
    has_number = re.search(r"\$\{hydra[.:]job\.(num|id)\}", subdir)
    left_out = set(hydra["job"]["config"]["override_dirname"]["exclude_keys"])
    by_dirname = re.search(r"\$\{hydra[.:]job\.override_dirname\}", subdir) and not left_out & set(varied)
    by_values = varied and all(f"${{{key}}}" in subdir for key in varied)
    if not has_number and (draws or not (by_dirname or by_values)):
        raise InputError(
            f"hydra.sweep.subdir={subdir}: each job needs a folder of its own; must have the job's "
            "number, ${hydra.job.num}"
        )


def check_subfolder(job: DictConfig) -> None:
    """Raise InputError if a job's composed folder is outside its sweep's."""
    job.hydra.job.num, job.hydra.job.id = 0, "0"
    _check_inside("hydra.sweep.subdir", str(job.hydra.sweep.subdir))


def _check_inside(key: str, folder: str) -> None:
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise InputError(f"{key}={folder}: must be a folder in the output folder")
    _check_names(key, folder)


def _check_names(key: str, folder: str) -> None:
    if len(folder) > 2000 or any(len(part.encode()) > 255 for part in Path(folder).parts):
        raise InputError(f"{key}={folder}: is too long for the name of a folder")
