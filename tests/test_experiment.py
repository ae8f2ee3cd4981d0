"""What makes two experiments the same: a result is used again only if nothing that could change it did."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnist_exp
from mnist_exp import experiment
from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.tracking.environment import run_record
from mnist_exp.training.engine import stack_key


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this project, to be edited, as a folder for PYTHONPATH."""
    root = Path(mnist_exp.__file__).parents[1]
    for name in ("mnist_exp", "hydra_plugins"):
        shutil.copytree(root / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "copy" / "conf", dirs_exist_ok=True)
    return tmp_path / "copy"


@pytest.fixture
def package(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the copy, whose digest `digest` takes."""
    with monkeypatch.context() as changed:
        changed.setattr(experiment, "__file__", str(copy / "mnist_exp" / "experiment.py"))
        yield copy / "mnist_exp"
    experiment._code_that_runs.cache_clear()


def digest() -> str:
    experiment._code_that_runs.cache_clear()
    return experiment.code_digest()


@pytest.mark.fast
def test_only_edits_of_training_code_change_the_digest(package: Path) -> None:
    of_the_result = {path for pattern in experiment.CODE_OF_THE_RESULT for path in package.glob(pattern)}
    config = compose([]).config
    before, files, signature = digest(), experiment.code_files(), experiment.experiment_signature(config, "")
    for path in set(package.rglob("*.py")) - of_the_result:
        path.write_text(path.read_text() + "\nedited = 1\n")
    assert digest() == before
    assert experiment.code_files() == files
    for path in of_the_result:
        text = path.read_text()
        path.write_text(text + "\nedited = 1\n")
        assert digest() != before, path
        assert experiment.experiment_signature(config, "") != signature
        now = experiment.code_files()
        assert [name for name in files if now[name] != files[name]] == [str(path.relative_to(package))]
        path.write_text(text)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("training/split.py", "    order = ", "    # By chance.\n\n    order = ", False),
        ("training/split.py", '"""Draw the', '"""Draw\n\n    the', False),
        ("training/split.py", "order[:size]", "order[-size:]", True),
        ("training/saved_models.py", "Absolute Add", "Absolute #\n\n            Add", True),
    ],
)
def test_words_for_readers_do_not_count(package: Path, name: str, old: str, new: str, counts: bool) -> None:
    text, before = (package / name).read_text(), digest()
    assert old in text
    (package / name).write_text(text.replace(old, new, 1))
    assert (digest() != before) == counts


@pytest.mark.fast
def test_all_versions_of_python_have_the_same_digest() -> None:
    others = [found for minor in (11, 12, 13) if (found := shutil.which(f"python3.{minor}", path=os.defpath))]
    code = "import mnist_exp.experiment; print(mnist_exp.experiment.code_digest())"
    env = {"PYTHONPATH": str(Path(mnist_exp.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in others or pytest.skip("needs a Python of the system"):
        done = subprocess.run([python, "-S", "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == experiment.code_digest(), python


# What `training/` imports of this project that cannot change a result; `experiment.py` says why.
STATED = {"config/conversion.py", "config/schema.py", "config/values.py", "experiment.py"}
ENDED = {"config/files.py", "errors.py", "signals.py", "text.py"}


def imports(path: Path, package: Path) -> set[str]:
    """Return the files of the package that a file of it imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == package.name:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            files = {f"{name.partition('.')[2].replace('.', '/')}.py" for name in (str(node.module), *names)}
            found |= {file for file in files if (package / file).is_file()}
    return found


@pytest.mark.fast
def test_the_digest_is_of_all_that_can_change_a_result() -> None:
    package = Path(mnist_exp.__file__).parent
    known, new = {"runner.py", "stack.py"}, {f"training/{path.name}" for path in (package / "training").glob("*.py")}
    while new:
        known |= new
        new = {file for imported in new for file in imports(package / imported, package)} - known - STATED - ENDED
        new = {file for file in new if not file.startswith("data/")}  # the digest of the data stands for it
    digested = {
        str(path.relative_to(package)) for pattern in experiment.CODE_OF_THE_RESULT for path in package.glob(pattern)
    }
    assert known == digested


@pytest.mark.fast
@pytest.mark.parametrize("seconds", ["5", "null"])
def test_checkpoint_times_are_not_part_of_an_experiment(seconds: str) -> None:
    one, other = (compose([f"training.checkpoint_seconds={value}"]) for value in ("30", seconds))
    assert other.config.training.checkpoint_seconds == (float(seconds) if seconds != "null" else None)
    assert experiment.experiment_signature(one.config, "") == experiment.experiment_signature(other.config, "")
    assert stack_key(one.config) == stack_key(other.config)
    parameters = [run_record(each).parameters for each in (one, other)]
    assert parameters[0] == parameters[1]
    assert "training.epochs" in parameters[0]


@pytest.mark.fast
def test_imports_have_no_circle() -> None:
    package = Path(mnist_exp.__file__).parent
    files = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    left = {file: imports(package / file, package) for file in files}
    while free := {file for file, others in left.items() if not others & left.keys()}:
        left = {file: others for file, others in left.items() if file not in free}
    assert not left


LAYERS = (
    ("errors", "text", "ends", "signals", "logs", "version"),
    ("config", "experiment"),
    ("data", "digits"),
    ("training",),
    ("tracking", "figures"),
    ("runner",),
    ("stack", "resume"),
    ("sweeps",),
    ("commands",),
    ("compare", "show", "predict", "rerun", "sync", "tidy", "__init__", "__main__"),
)
UPWARDS = {  # files.py opens files for everybody, and schema.py lists the kinds that their own modules define
    ("ends.py", "config/files.py"),
    ("logs.py", "config/files.py"),
    ("config/schema.py", "data/sources.py"),
    ("config/schema.py", "training/families.py"),
}


@pytest.mark.fast
def test_no_module_imports_from_a_layer_above() -> None:
    package = Path(mnist_exp.__file__).parent
    layers = {name: place for place, names in enumerate(LAYERS) for name in names}
    found = {
        (file, other)
        for file in (str(path.relative_to(package)) for path in package.rglob("*.py"))
        for other in imports(package / file, package)
        if layers[Path(other).parts[0].removesuffix(".py")] > layers[Path(file).parts[0].removesuffix(".py")]
    }
    assert found == UPWARDS


@pytest.mark.fast
def test_another_version_of_a_package_is_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([]).config
    before = experiment.experiment_signature(config, "digest")
    assert before == experiment.experiment_signature(config, "digest")
    for package in ("numpy", "keras", "tensorflow"):
        with monkeypatch.context() as changed:
            changed.setattr(
                importlib.metadata, "version", lambda name, package=package: "9" if name == package else "1"
            )
            one = experiment.experiment_signature(config, "digest")
            changed.setattr(importlib.metadata, "version", lambda _: "1")
            assert one != experiment.experiment_signature(config, "digest")
