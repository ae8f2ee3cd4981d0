"""An experiment, and what makes two of them the same. Imports nothing heavy."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.schema import Config

if TYPE_CHECKING:
    import keras
    import pandas


@dataclass(frozen=True)
class Child:
    """A job's place in its sweep: the parent run's id (empty with `tracking=none`), and what varies, by full key."""

    parent: str
    values: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """A configuration, what was typed to get it (`tracking` and `hydra` aside), and the folder for its files.

    `child`: of a sweep's job. `repeats`: the id of the run that it repeats, if it does. `verbose`: whether it may
    print; a sweep's job does not.
    """

    config: Config
    overrides: tuple[str, ...]
    output: Path
    child: Child | None = None
    repeats: str | None = None
    verbose: bool = True

    @property
    def prints(self) -> bool:
        """Whether its progress and scores go to the terminal."""
        return self.verbose and self.child is None


@dataclass(frozen=True)
class Result:
    """What an experiment gives.

    `history`: one value an epoch, for `loss`, each metric, both with `val_`, and a `learning_rate` that changes.
    `scores`: `test_loss`, a `test_` value for each metric, and `fit_seconds`. `objective`: the value that runs are
    ranked by. `model`: takes raw images of 0 to 255. `run_id`: MLflow's, None with `tracking=none`. `output`: the
    folder with figures, configuration, log and model.
    """

    history: dict[str, list[float]]
    scores: dict[str, float]
    objective: float
    model: "keras.Model"
    run_id: str | None
    config: Config
    output: Path


@dataclass(frozen=True)
class Runs:
    """Runs as a ranking has them.

    `records`: one a run, best first, with its row's place, what varies, objective, scores, status and id. `verdict`:
    which rows can be told from the first, a sentence a ranking; empty with a single row.
    """

    records: Sequence[Mapping[str, object]]
    verdict: str

    def frame(self) -> "pandas.DataFrame":
        """Return the records as a table, one row a run; what varies is a number where all its values are numbers."""
        import pandas

        frame = pandas.DataFrame.from_records(list(self.records))
        texts = ["run_id", "status", "reason", "data", "code", "own_code"]  # ids and digests, some all of digits
        for name in frame.columns.difference(texts):
            with suppress(ValueError, TypeError):  # not a number in each row
                frame[name] = pandas.to_numeric(frame[name])
        return frame


@dataclass(frozen=True)
class SweepResult(Runs):
    """What a sweep gives.

    `run_id`: of the parent run, None with `tracking=none`. `output`: the folder with the ranking, the figures, and the
    jobs' folders. `unfinished`: how many of `jobs` did not come to their end.
    """

    run_id: str | None
    output: Path
    jobs: int
    unfinished: int


@dataclass(frozen=True)
class Sweep:
    """Several jobs, as typed and as a preset has them.

    `overrides`: typed, `tracking` and `hydra` aside. `swept`: the values of each key that varies. `configs`: the first
    job's, then one for each other value. `folder`: holds the sweep's own files, and the folders of its jobs.
    `launcher`: Hydra's settings of it.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    configs: Sequence[Config]
    folder: Path
    launcher: dict[str, Any]

    @property
    def config(self) -> Config:
        """The first job's."""
        return self.configs[0]

    @property
    def watches_test_set(self) -> bool:
        """Whether any job does."""
        return any(config.dataset.validation == "test" for config in self.configs)


# Parts of a configuration that cannot change a result: where a run is recorded, whether it may be skipped or stopped
# early, and the path of the user's own code, whose digest counts instead.
_NOT_OF_THE_RESULT = ("tracking", "resume", "prune", "code")


def of_the_result(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of the values of a configuration, those that can change a result."""
    return {key: value for key, value in values.items() if key not in _NOT_OF_THE_RESULT}


def identity(config: Config) -> dict[str, Any]:
    """Return what can change a result: the configuration, the code that trains, and the packages it computes with."""
    own = {"own_code": config.code.digest} if config.code is not None else {}
    values = of_the_result(asdict(config))
    return {"configuration": values, "code": code_digest(), "packages": package_versions(config.backend), **own}


def experiment_signature(config: Config, data_digest: str) -> str:
    """Return the hexadecimal SHA-256 that two runs share if they are the same experiment on the same data."""
    return signature([identity(config), data_digest])


def signature(content: Any) -> str:
    """Return the hexadecimal SHA-256 of plain values; the order of a map's keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# The code that can change a result, below this folder: what trains, and what that imports of this project. Not what
# states and checks a configuration (this file, `values.py`, `conversion.py` and `schema.py`), for a signature holds the
# configuration itself; nor how a run ends (`errors.py`, `interrupts.py`). A test compares this with the imports.
CODE_OF_THE_RESULT = (
    "runner.py",
    "learning/*.py",
    "config/code_file.py",
    "config/keras_names.py",
    "config/keras_source.py",
    "config/own_names.py",
)


@cache
def code_digest() -> str:
    """Return 12 hexadecimal digits that change with every edit of `CODE_OF_THE_RESULT`; not with one of a comment, a
    docstring or a blank line, nor with the version of Python."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in CODE_OF_THE_RESULT:
        for path in sorted(package.glob(pattern)):
            digest.update("\n".join([path.name, *_lines_that_run(path)]).encode())
    return digest.hexdigest()[:12]


def _lines_that_run(path: Path) -> list[str]:
    """Return the lines of a Python file without comments, and without statements that are nothing but text.

    They are cut by their places, as versions of Python differ in the tokens of an f-string.
    """
    import tokenize  # help can do without

    lines = path.read_text(encoding="utf-8").split("\n")
    kept: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column].rstrip()
            elif token.type == tokenize.NEWLINE:
                if any(one.type != tokenize.STRING for one in statement):
                    kept.update(row for one in statement for row in range(one.start[0], one.end[0] + 1))
                statement = []
            elif token.type not in (tokenize.ENCODING, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
                statement.append(token)
    return [lines[row - 1] for row in sorted(kept)]


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
