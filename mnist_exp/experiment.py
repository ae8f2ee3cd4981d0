"""Define an experiment, and when two of them are the same."""

import hashlib
import html
import json
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.schema import Config, keys

if TYPE_CHECKING:
    import keras
    import pandas


@dataclass(frozen=True)
class Child:
    """A job's place in its sweep.

    `parent`: MLflow's id of the sweep, empty with `tracking=none`. `values`: its own, by full key. `sweep`: the id in
    the sweep's record.
    """

    parent: str
    values: dict[str, str]
    sweep: str = ""


@dataclass(frozen=True)
class Experiment:
    """A configuration, the overrides that made it, and the folder for its files.

    `overrides`: without `tracking`, `hydra` and `resume`. `child`: for a sweep's job. `repeats`: the id of the run that
    it repeats. `verbose`: whether it may print. `resumes`: whether it goes on after the checkpoint in its folder, if
    there is one. `digest`: of its data, if they were read before it is recorded.
    """

    config: Config
    overrides: tuple[str, ...]
    output: Path
    child: Child | None = None
    repeats: str | None = None
    verbose: bool = True
    resumes: bool = False
    digest: str = ""

    @property
    def prints(self) -> bool:
        """Whether progress and scores go to the terminal."""
        return self.verbose and self.child is None


@dataclass(frozen=True)
class Result:
    """The outcome of an experiment.

    `history`: one value an epoch, for `loss`, each metric, both with `val_`, and a `learning_rate` that changes.
    `scores`: `test_loss`, a `test_` value for each metric, and `fit_seconds`. `objective`: ranks runs. `model`: takes
    raw images of 0 to 255. `run_id`: MLflow's, None with `tracking=none`. `output`: the folder with figures,
    configuration, log and model.
    """

    history: dict[str, list[float]] = field(repr=False)
    scores: dict[str, float]
    objective: float
    model: "keras.Model" = field(repr=False)
    run_id: str | None
    config: Config = field(repr=False)
    output: Path

    def _repr_html_(self) -> str:
        import pandas

        place = html.escape(f"Run {self.run_id or ''} in {self.output}")
        return f"{pandas.Series(self.scores).to_frame('score').to_html()}<p>{place}</p>"


@dataclass(frozen=True)
class Runs:
    """Ranked runs.

    `records`: one a run, best first, with its row's place, varied values, objective, scores, status and id. `verdict`:
    says which row to take, in a sentence for each ranking; empty with a single row.
    """

    records: Sequence[Mapping[str, object]] = field(repr=False)
    verdict: str

    def frame(self) -> "pandas.DataFrame":
        """Return the records, one a row.

        A column with both numbers and texts, such as `16` and `[16, 32]`, is text; one with whole numbers and gaps has
        pandas' type Int64.
        """
        import pandas

        frame = pandas.DataFrame.from_records(list(self.records))
        for name, column in frame.items():
            kinds = {type(record.get(str(name))) for record in self.records} - {type(None)}
            if kinds == {int} and column.dtype.kind == "f":
                frame[name] = column.astype("Int64")
            elif pandas.api.types.infer_dtype(column).startswith("mixed"):
                frame[name] = column.map(str, na_action="ignore")
        return frame

    def _repr_html_(self) -> str:
        return f"{self.frame().to_html(index=False, max_rows=20)}<p>{html.escape(self.verdict)}</p>"


@dataclass(frozen=True)
class SweepResult(Runs):
    """The outcome of a sweep.

    `run_id`: the parent run's, None with `tracking=none`. `output`: the folder with the ranking, the figures, and the
    jobs' folders. `unfinished`: how many of `jobs` did not finish.
    """

    run_id: str | None
    output: Path
    jobs: int
    unfinished: int


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was planned.

    `overrides`: typed, without `tracking`, `hydra` and `resume`. `swept`: the values of each key that varies.
    `configs`: the first job's, then one for each other value. `folder`: for the sweep's files and its jobs' folders.
    `launcher`: Hydra's settings. `verbose`: whether it may print. `resumes`: whether it goes on in its folder.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    configs: Sequence[Config]
    folder: Path
    launcher: dict[str, Any]
    verbose: bool = True
    resumes: bool = False

    @property
    def config(self) -> Config:
        """The first job's configuration."""
        return self.configs[0]

    @property
    def watches_test_set(self) -> bool:
        """Whether a job validates with the test set."""
        return any(config.dataset.validation == "test" for config in self.configs)


def result_settings(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return the values of a configuration that can change a result."""
    return {
        key: result_settings(value, f"{above}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{above}{key}" not in keys("no result")
    }


def identity(config: Config) -> dict[str, Any]:
    """Return the causes of a result beside the data: configuration, code, packages."""
    own = {"own_code": config.code.digest} if config.code is not None else {}
    values = result_settings(asdict(config))
    return {"configuration": values, "code": code_digest(), "packages": package_versions(config.backend), **own}


def experiment_signature(config: Config, data_digest: str) -> str:
    """Return the signature of an experiment on its data."""
    return signature([identity(config), data_digest])


def experiment_key(config: Config, data_digest: str) -> str:
    """Return the key of a configuration and its data, whatever the code and packages."""
    return signature([result_settings(asdict(config)), data_digest])


def signature(content: Any) -> str:
    """Return the hexadecimal SHA-256 of plain values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# The code that trains, and what it imports of this package. A signature holds the configuration itself, so the modules
# that check it (`values.py`, `conversion.py`, `schema.py` and this one) are left out; `errors.py` and `signals.py`
# cannot change a result. A test compares this with the imports.
CODE_OF_THE_RESULT = (
    "runner.py",
    "stack.py",
    "training/*.py",
    "config/backend.py",
    "config/keras_*.py",
    "config/own_code.py",
)


def code_digest() -> str:
    """Return 12 hexadecimal digits that change with the code of `CODE_OF_THE_RESULT`.

    Comments, docstrings, blank lines and the version of Python do not change them.
    """
    return hashlib.sha256(b"".join(_code_that_runs().values())).hexdigest()[:12]


def code_files() -> dict[str, str]:
    """Return six such digits for each file, by its path in this package."""
    return {path: hashlib.sha256(code).hexdigest()[:6] for path, code in _code_that_runs().items()}


@cache
def _code_that_runs() -> dict[str, bytes]:
    package = Path(__file__).parent
    paths = [path for pattern in CODE_OF_THE_RESULT for path in sorted(package.glob(pattern))]
    return {
        path.relative_to(package).as_posix(): "\n".join([path.name, *_lines_that_run(path)]).encode() for path in paths
    }


def _lines_that_run(path: Path) -> list[str]:
    """Return the lines of a Python file without comments and docstrings.

    They are cut by position, since versions of Python differ in the tokens of an f-string.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    kept: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column].rstrip()
            elif token.type == tokenize.NEWLINE:
                if any(token.type != tokenize.STRING for token in statement):
                    kept.update(row for token in statement for row in range(token.start[0], token.end[0] + 1))
                statement = []
            elif token.type not in (tokenize.ENCODING, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
                statement.append(token)
    return [lines[row - 1] for row in sorted(kept)]


def package_versions(backend: str) -> dict[str, str]:
    """Return the versions of Keras, its backend (`tensorflow` or `jax`) and NumPy."""
    return {name: package_version(name) for name in (backend, "keras", "numpy")}


def package_version(module: str) -> str:
    """Return the version of the package with this module, such as tensorflow-cpu."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version  # slow to import

    try:
        return version(module)
    except PackageNotFoundError:
        return version(packages_distributions()[module][0])
