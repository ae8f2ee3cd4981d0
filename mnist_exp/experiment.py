"""An experiment, and what makes two of them the same. Imports nothing heavy."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from mnist_exp.config import Config

# The modules that can change a result. An edit of any other leaves what has finished valid.
_RESULT_CODE = (
    "compiled.py",
    "datasets.py",
    "keras_backend.py",
    "keras_names.py",
    "models.py",
    "preprocessing.py",
    "runner.py",
    "stacking.py",
    "training.py",
)


@dataclass(frozen=True)
class Child:
    """A job's place in its sweep: the parent run's id (empty with `tracking=none`), and what varies, by full key."""

    parent: str
    values: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """A configuration, what was typed to get it (`tracking` and `hydra` aside), and the folder for its files."""

    config: Config
    overrides: tuple[str, ...]
    output: Path
    child: Child | None = None


def identity(config: Config) -> dict[str, Any]:
    """Return what can change a result: the configuration, the code that trains, and the packages it computes with.

    Where a run is recorded (`tracking`) and whether it may be skipped (`resume`) are left out.
    """
    values = {key: value for key, value in asdict(config).items() if key not in ("tracking", "resume")}
    return {"configuration": values, "code": code_digest(), "packages": package_versions(config.backend)}


def experiment_signature(config: Config, data_digest: str) -> str:
    """Return the hexadecimal SHA-256 that two runs share if they are the same experiment on the same data."""
    return signature([identity(config), data_digest])


def signature(content: Any) -> str:
    """Return the hexadecimal SHA-256 of plain values; the order of a map's keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Return 12 hexadecimal digits that change with every edit of the code that can change a result."""
    digest = hashlib.sha256()
    for name in _RESULT_CODE:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def package_versions(backend: str) -> dict[str, str]:
    """Return the versions of Keras, of its backend (`tensorflow` or `jax`) and of NumPy."""
    return {name: package_version(name) for name in (backend, "keras", "numpy")}


def package_version(module: str) -> str:
    """Return the version of what brings a module; of Keras and TensorFlow there is more, such as tensorflow-cpu."""
    try:
        return version(module)
    except PackageNotFoundError:
        return version(packages_distributions()[module][0])
