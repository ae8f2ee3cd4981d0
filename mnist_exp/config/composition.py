"""Compose conf/ and overrides to a checked `Experiment`."""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override as ParsedOverride
from hydra.core.override_parser.types import QuotedString, ValueType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config import CONF, own_code
from mnist_exp.config.backend import choose_backend, compute_with_one_thread
from mnist_exp.config.checks import check
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.hydra_errors import as_input_errors
from mnist_exp.config.hydra_settings import check_output, check_subfolder
from mnist_exp.config.keras_source import REQUIRED
from mnist_exp.config.overrides import Override, leaves, refuse_passwords, select_experiment
from mnist_exp.config.own_code import CodeFile, read_code
from mnist_exp.config.parsing import parse
from mnist_exp.config.presets import (
    Preset,
    attribute_errors,
    check_values,
    list_files,
    list_presets,
    read_chosen,
)
from mnist_exp.config.schema import Config, takes_list
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, result_settings

ONLY_CONFIG_DIR = (
    "would let Hydra read settings that can run code; presets of your own are read, as values, from --config-dir DIR"
)


@dataclass(frozen=True)
class Composed:
    """A job as Hydra composed it, not checked yet.

    `overrides`: the job's, those of `hydra` aside. `code`: the user's own file.
    """

    values: DictConfig
    overrides: tuple[str, ...]
    output: Path
    code: CodeFile | None

    def experiment(self) -> Experiment:
        """Check the job, and raise InputError for a value that cannot be used."""
        return Experiment(check_composed(self.values, self.code), select_experiment(self.overrides), self.output)


def compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> Experiment:
    """Compose conf/ with `overrides`, as the command line does for one run.

    Args:
        overrides: as typed after `python -m mnist_exp`.
        config_dir: a folder of presets, as for `--config-dir`.

    Raises:
        InputError: for an override or a preset that cannot be used.
    """
    with offer_user_choices(config_dir, overrides) as code:
        return compose_run(compose_values(overrides), overrides, code)


def recompose(recorded: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """Compose a recorded configuration, from `config.yaml`, with `overrides` on top.

    It may come from others, so it is checked as presets of `config_dir` are. Its `tracking` is left out, and so is a
    group that is chosen anew, such as `model=cnn`.

    Raises:
        InputError: if either has a value that cannot be used.
    """
    own = result_settings(recorded)
    check_values(own, "a recorded configuration")
    for path, value in leaves(own):
        if value == "???":  # Hydra would take the value of conf/
            raise InputError(f"{'.'.join(path)}: is not set in the recorded configuration")
    chosen = {Override.parse(text).key for text in overrides}
    if chosen & {"experiment", "sweep"}:
        raise InputError("experiment: cannot be changed in a rerun; change single values or groups, such as model=cnn")
    own = {key: value for key, value in own.items() if not (isinstance(value, Mapping) and key in chosen)}
    with offer_user_choices(None, overrides, recorded=own.get("backend")) as code:
        choices = [
            {f"override /{group}": _choice(group, own[group])}
            for group in ("dataset", "model", "preprocessing", "optimizer")
            if group in own
        ]
        with list_presets([Preset("experiment", "recorded", {"defaults": choices, **own})]):
            typed = ["experiment=recorded", *overrides]
            return compose_run(compose_values(typed), typed, code)


def _choice(group: str, values: Any) -> str:
    """Return the name of the choice whose `kind` is that of `values`."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    kinds = {OmegaConf.select(OmegaConf.load(path), "kind"): path.stem for path in (CONF / group).glob("*.yaml")}
    kinds |= {preset.name: preset.name for preset in _own_choices() if preset.group == group}
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{group}.kind={kind}: must be one of {', '.join(sorted(map(str, kinds)))}")
    return kinds[kind]


@contextmanager
def offer_user_choices(
    config_dir: str | Path | None,
    overrides: Sequence[str],
    *,
    in_sweep: bool = False,
    recorded: object = None,
) -> Iterator[CodeFile | None]:
    """Offer Hydra a folder's presets, and the registrations of the file of `code=`.

    Args:
        config_dir: the folder.
        overrides: as typed; the last `code=` counts.
        in_sweep: whether jobs of a sweep run the file.
        recorded: the backend of a recorded configuration.

    Yields:
        The imported file, or None.

    Raises:
        InputError: for a preset or a file that cannot be used, two choices of one name, or an override that cannot be
            parsed or lets Hydra read configuration from elsewhere.
    """
    refuse_passwords(overrides)
    parsed = parse(overrides)
    code = _find_code_file(parsed)
    if not in_sweep:
        _refuse_several(parsed)
    files = list_files(Path(config_dir)) if config_dir is not None else {}
    presets = read_chosen(files, overrides)  # before any code runs
    if code is not None:
        choose_backend(_backend(parsed, recorded))
        if in_sweep:
            compute_with_one_thread()
    own_code.use(code)
    for choice in (choices := _own_choices()):
        in_conf = (CONF / choice.group / f"{choice.name}.yaml").exists()
        if in_conf or (choice.group, choice.name) in files:
            where = "this project" if in_conf else f"a preset in {config_dir}"
            chosen = f"{choice.group}={choice.name}"
            raise InputError(f"code={code and code.path}: {chosen} is a choice of {where}; rename yours")
    for override in parsed:
        above, _, part = override.key_or_group.rpartition(".")
        if takes_list(above) and not part.isdecimal():
            raise InputError(f"{override.input_line}: {above} is a list; set all of it, such as '{above}=[A,B]'")
    with attribute_errors(presets, overrides), list_presets([*presets, *choices], files):
        yield code


def _refuse_several(parsed: Sequence[ParsedOverride]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            typed = Override.parse(override.input_line or "")
            instead = ""
            if re.fullmatch(r"0,\d+", typed.value):
                instead = f", or type {typed.key}={typed.value.replace(',', '.')} for one number"
            elif override.value_type == ValueType.SIMPLE_CHOICE_SWEEP and takes_list(typed.key):
                instead = f", or type '{typed.key}=[{typed.value}]' for one list"
            raise InputError(f"{typed.text}: has several values; add -m for a sweep over them{instead}")


def _find_code_file(parsed: Sequence[ParsedOverride]) -> CodeFile | None:
    # Hydra accepts several spellings of the key.
    if any(re.split(r"[./\[\]]+", override.key_or_group)[:2] == ["hydra", "searchpath"] for override in parsed):
        raise InputError(f"hydra.searchpath: {ONLY_CONFIG_DIR}")
    for override in parsed:
        if override.key_or_group == "hydra/sweeper" and override.value() != "mnist_exp":
            raise InputError(f"{override.input_line}: is not used here; choose sweep=grid, random, optuna or race")
    typed = [override for override in parsed if override.key_or_group == "code" and not override.is_delete()]
    if not typed or (path := typed[-1].value()) is None:
        return None
    if typed[-1].is_sweep_override():
        raise InputError(f"{typed[-1].input_line}: must have one value, which all jobs of a sweep share")
    if not isinstance(path, str | QuotedString):
        raise InputError(f"{typed[-1].input_line}: must be a Python file, such as code=mine.py")
    return read_code(path if isinstance(path, str) else path.text)


def _backend(parsed: Sequence[ParsedOverride], recorded: object) -> str:
    """Return the backend of the overrides, a preset, the record, or the default."""
    overrides = [Override.parse(override.input_line or "") for override in parsed if not override.is_delete()]
    typed = {
        override.key: override.value.partition(",")[0].strip("'\"") for override in overrides
    }  # the first of several
    files = [CONF / group / f"{typed.get(group, '')}.yaml" for group in ("sweep", "experiment")]  # a sweep wins
    preset = [OmegaConf.select(OmegaConf.load(file), "backend") for file in files if file.is_file()]
    found = next(filter(None, [typed.get("backend"), *preset, recorded]), "tensorflow")
    # Another one is refused once all is composed.
    return "jax" if found == "jax" and importlib.util.find_spec("jax") is not None else "tensorflow"


def _own_choices() -> list[Preset]:
    """Return the user's registrations, as choices of groups with their keys."""
    defaults: dict[str, list[Any]] = {
        "model": [{"override /preprocessing@_global_.preprocessing": "image"}],
        "dataset": ["mnist", "_self_"],  # for the keys that all datasets have
        "optimizer": [],
    }
    found = [
        (group, name, {key: declared.default for key, declared in keys.items()})
        for group in ("model", "dataset")
        for name, keys in own_code.keys(group).items()
    ]
    optimizers = own_code.own_classes("optimizers")
    found += [("optimizer", name, own_code.read_arguments(own)) for name, own in optimizers.items()]
    return [
        Preset(
            group,
            name,
            {key: "???" if value is REQUIRED else value for key, value in keys.items()}
            | {"defaults": defaults[group], "kind": name},
        )
        for group, name, keys in found
    ]


def compose_run(composed: DictConfig, overrides: Sequence[str], code: CodeFile | None) -> Experiment:
    """Return the experiment of a single run.

    Args:
        composed: what Hydra made of `overrides`.
        overrides: as typed.
        code: the file that they name.

    Raises:
        InputError: for a value that cannot be used, or is for sweeps only.
    """
    if composed.hydra.mode == RunMode.MULTIRUN:
        raise InputError("hydra.mode=MULTIRUN: is for a sweep; type -m instead")
    if (chosen := composed.hydra.runtime.choices.get("sweep")) is not None:
        raise InputError(f"sweep={chosen}: is a sweep; type python -m mnist_exp -m sweep={chosen}")
    config = check_composed(composed, code)
    if config.prune is not None:
        raise InputError(
            f"prune={config.prune.kind}: stops jobs of a sweep, and this is a single run; type -m and several values, "
            "such as seed=0,1,2; for one run there is training.callbacks.EarlyStopping={patience:3}"
        )
    check_output(composed, "hydra.run.dir")
    return Experiment(config, select_experiment(overrides), Path(str(composed.hydra.run.dir)).resolve())


def check_job(loader: JobLoader, sweep: DictConfig, overrides: Sequence[str], code: CodeFile | None) -> Config:
    """Compose and check a sweep's job.

    Args:
        loader: composes the job.
        sweep: the composed sweep.
        overrides: of the job, but those of `hydra`.
        code: the file that they name.

    Raises:
        InputError: if a value cannot be used.
    """
    with as_input_errors(overrides):
        composed = loader.load_sweep_config(sweep, list(overrides))
        check_subfolder(composed)
    return check_composed(composed, code)


def check_composed(composed: DictConfig, code: CodeFile | None) -> Config:
    """Check a configuration without its part `hydra`.

    Raise InputError for a value that cannot be used.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    with as_input_errors():
        values: Any = OmegaConf.to_container(own, resolve=True)
    return check(values, code)
