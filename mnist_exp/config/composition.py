"""From conf/ and overrides to a checked `Experiment`. Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.hydra_api import compose_conf
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.overrides import Override, is_search_path, of_the_experiment
from mnist_exp.config.presets import CONF, Preset, check_values, leaves, offered, read_presets
from mnist_exp.config.schema import Config, check
from mnist_exp.errors import InputError
from mnist_exp.experiment import NOT_OF_THE_RESULT, Experiment
from mnist_exp.redaction import shown_address, without_secrets

ONLY_CONFIG_DIR = (
    "would let Hydra read settings that can run code; presets of your own are read, as values, from --config-dir DIR"
)

# A callback or a tag is added on the command line without a plus, also to those of a preset, since these maps take any
# key. A config that belongs to no group is in no list of choices.
_open_map = DictConfig({}, flags={"struct": False})
ConfigStore.instance().store(name="open_map", node={"training": {"callbacks": _open_map}})
ConfigStore.instance().store(name="open_map_of_tags", node={"tags": _open_map})


@dataclass(frozen=True)
class Composed:
    """What Hydra composed for a job, before it is checked. `overrides`: all of its own, none for Hydra."""

    values: DictConfig
    overrides: tuple[str, ...]
    output: Path

    def experiment(self) -> Experiment:
        """Return the checked experiment.

        Raises:
            InputError: if a value cannot be used.
        """
        return Experiment(check_composed(self.values), of_the_experiment(self.overrides), self.output)


def compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> Experiment:
    """Compose conf/ with `overrides`, as the command line does for one run.

    Args:
        overrides: what one types after `python -m mnist_exp`.
        config_dir: a folder with presets of one's own, as with `--config-dir`.

    Raises:
        InputError: if an override does not parse, names nothing that exists, or has a value that cannot be used, or a
            preset in `config_dir` sets what it may not.
    """
    refuse_search_path(overrides)
    with presets_of(config_dir):
        return compose_run(overrides)


def recompose(recorded: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """Compose a recorded configuration, as config.yaml holds it, with `overrides` on top of it.

    It may come from others, so it is checked like a preset from elsewhere before Hydra gets it; where it was recorded
    (`tracking`) is left out.

    Args:
        recorded: the configuration.
        overrides: as for a run; of a group that is chosen anew, such as `model=cnn`, nothing recorded remains.

    Raises:
        InputError: if either has a value that cannot be used.
    """
    refuse_search_path(overrides)
    own = {key: value for key, value in recorded.items() if key not in NOT_OF_THE_RESULT}
    check_values(own, "a recorded configuration")
    for path, value in leaves(own):
        if value == "???":  # which Hydra would fill with the value of conf/
            raise InputError(f"{'.'.join(path)}: is not set in the recorded configuration")
    chosen = {Override.of(text).key for text in overrides}
    if chosen & {"experiment", "sweep"}:
        raise InputError("experiment: cannot be changed in a rerun; change single values or groups, such as model=cnn")
    own = {key: value for key, value in own.items() if not (isinstance(value, Mapping) and key in chosen)}
    choices = [
        {f"override /{group}": _choice(group, own[group])}
        for group in ("dataset", "model", "preprocessing", "optimizer")
        if group in own
    ]
    with offered([Preset("experiment", "recorded", {"defaults": choices, **own})]):
        return compose_run(["experiment=recorded", *overrides])


def _choice(group: str, values: Any) -> str:
    """Return the file in conf/ of a kind: its name is the kind, but for an optimizer, whose kind is Keras's name.

    Raises:
        InputError: if there is no such kind.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    kinds = {OmegaConf.select(OmegaConf.load(path), "kind"): path.stem for path in (CONF / group).glob("*.yaml")}
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{group}.kind={kind}: must be one of {', '.join(sorted(map(str, kinds)))}")
    return kinds[kind]


def refuse_search_path(overrides: Sequence[str]) -> None:
    """Check that no override lets Hydra read configuration from elsewhere.

    Raises:
        InputError: if one does, or cannot be parsed.
    """
    with as_input_errors():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(is_search_path(override.key_or_group) for override in parsed):
        raise InputError(f"hydra.searchpath: {ONLY_CONFIG_DIR}")


def compose_run(overrides: Sequence[str]) -> Experiment:
    """Compose and check one run, with the presets that are offered."""
    composed = compose_values(overrides, RunMode.RUN)
    if (chosen := composed.hydra.runtime.choices.get("sweep")) is not None:
        raise InputError(f"sweep={chosen}: is a sweep; type python -m mnist_exp -m sweep={chosen}")
    config = check_composed(composed)
    check_output(composed, "hydra.run.dir")
    return Experiment(config, of_the_experiment(overrides), Path(str(composed.hydra.run.dir)).resolve())


def check_output(composed: DictConfig, key: str) -> None:
    """Check that no value leads an output folder elsewhere than where it was typed to be, or puts a password into it.

    Args:
        composed: with Hydra's own configuration.
        key: of the folder, such as `hydra.run.dir`.

    Raises:
        InputError: if one does, such as `hydra.run.dir=${tracking.experiment}` with a name from a preset.
    """
    *parents, name = key.split(".")
    parent = OmegaConf.select(composed, ".".join(parents))
    written: Any = OmegaConf.to_container(parent, resolve=False)
    typed, folder = str(written[name]), str(parent[name])
    absolute = Path(folder).is_absolute() and not typed.startswith(("/", "${hydra", "${oc."))
    if absolute or (".." in Path(folder).parts and ".." not in typed):
        raise InputError(f"{key}={typed}: leads to {folder} through another value; type the folder itself")
    address = str(composed.tracking.get("uri"))
    written_down = composed.hydra.output_subdir is not None or without_secrets(folder) != folder
    if written_down and shown_address(address) != address:
        raise InputError(
            "tracking.uri: Hydra would write what you type into a file; put an address with a password or parameters "
            "into MLFLOW_TRACKING_URI"
        )


def compose_values(overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """Return the configuration with Hydra's own under `hydra`; in MULTIRUN mode without what is swept."""
    with as_input_errors(overrides):
        try:
            return compose_conf(overrides, mode)
        except ValueError as error:  # a group that is given no name of a choice, such as model=5
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            typed = [one.input_line or "" for one in parsed if not isinstance(one.value(), str | list)]
            typed = [text for text in typed if (CONF / Override.of(text).key).is_dir()] or list(overrides)
            raise InputError(f"{' '.join(typed)}: must be GROUP=CHOICE, such as model=cnn; --help lists all") from error


def check_composed(composed: DictConfig) -> Config:
    """Return the checked configuration; what is Hydra's is left out.

    Raises:
        InputError: if a value cannot be used.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    with as_input_errors():
        values = OmegaConf.to_container(own, resolve=True)
    assert isinstance(values, dict)
    return check({str(key): value for key, value in values.items()})


def presets_of(config_dir: str | Path | None) -> AbstractContextManager[None]:
    """Let Hydra find the presets of a folder, checked, while the block runs; of None, none."""
    return offered(read_presets(Path(config_dir).expanduser()) if config_dir is not None else [])
