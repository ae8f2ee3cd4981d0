"""An experiment, and what makes two of them the same. Imports nothing heavy."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.schema import Config

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Child:
    """A job's place in its sweep: the parent run's id (empty with `tracking=none`), and what varies, by full key."""

    parent: str
    values: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """A configuration, what was typed to get it (`tracking` and `hydra` aside), and the folder for its files.

    `child`: of a sweep's job. `repeats`: the id of the run that it repeats, if it does.
    """

    config: Config
    overrides: tuple[str, ...]
    output: Path
    child: Child | None = None
    repeats: str | None = None


@dataclass(frozen=True)
class Result:
    """What an experiment gives.

    `history`: one value an epoch, for `loss`, each metric, and both with `val_`. `scores`: `test_loss`, a `test_`
    value for each metric, and `fit_seconds`. `objective`: the value that runs are ranked by. `model`: takes raw images
    of 0 to 255. `run_id`: MLflow's, None with `tracking=none`. `output`: the folder with figures, configuration, log
    and model.
    """

    history: dict[str, list[float]]
    scores: dict[str, float]
    objective: float
    model: "keras.Model"
    run_id: str | None
    config: Config
    output: Path


@dataclass(frozen=True)
class Sweep:
    """Several jobs, as typed and as a preset has it.

    `overrides`: typed, `tracking` and `hydra` aside. `swept`: what was typed for each key that varies. `jobs`: their
    number. `config`: the first job's. `watches_test_set`: whether any job does. `folder`: for the sweep's own files,
    the jobs' folders in it. `sweeper`, `launcher`: Hydra's settings of them.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    jobs: int
    config: Config
    watches_test_set: bool
    folder: Path
    sweeper: dict[str, Any]
    launcher: dict[str, Any]


# Parts of a configuration that cannot change a result: where a run is recorded, whether it may be skipped, and the path
# of the user's own code, whose digest counts instead.
NOT_OF_THE_RESULT = ("tracking", "resume", "code")


def identity(config: Config) -> dict[str, Any]:
    """Return what can change a result: the configuration, the code that trains, and the packages it computes with."""
    values = {key: value for key, value in asdict(config).items() if key not in NOT_OF_THE_RESULT}
    own = {"own_code": config.code.digest} if config.code is not None else {}
    return {"configuration": values, "code": code_digest(), "packages": package_versions(config.backend), **own}


def experiment_signature(config: Config, data_digest: str) -> str:
    """Return the hexadecimal SHA-256 that two runs share if they are the same experiment on the same data."""
    return signature([identity(config), data_digest])


def signature(content: Any) -> str:
    """Return the hexadecimal SHA-256 of plain values; the order of a map's keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Return 12 hexadecimal digits that change with every edit of the code that can change a result.

    That is the folder `learning/`, and `runner.py`. An edit of any other file leaves what has finished valid.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted((package / "learning").glob("*.py")), package / "runner.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def package_versions(backend: str) -> dict[str, str]:
    """Return the versions of Keras, of its backend (`tensorflow` or `jax`) and of NumPy."""
    return {name: package_version(name) for name in (backend, "keras", "numpy")}


def package_version(module: str) -> str:
    """Return the version of what brings a module; of Keras and TensorFlow there is more, such as tensorflow-cpu."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version  # help can do without

    try:
        return version(module)
    except PackageNotFoundError:
        return version(packages_distributions()[module][0])
