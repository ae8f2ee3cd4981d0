"""What can be installed: the bounds of pyproject.toml, the wheel and the source archive."""

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from site import getsitepackages
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from .conftest import QUICK, command

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / ".ci" / "constraints"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """The version of each package in a file of constraints."""
    lines = (CONSTRAINTS / name).read_text().splitlines()
    assert lines[0].startswith("#")
    return dict(line.split("==") for line in lines[1:])


def required() -> dict[str, Requirement]:
    """What pyproject.toml says of the packages that a run needs, and of JAX."""
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["jax"]]
    return {requirement.name: requirement for requirement in map(Requirement, texts)}


@pytest.mark.fast
def test_constraints_are_the_bounds_of_pyproject() -> None:
    lowest, newest = pins("lowest.txt"), pins("newest.txt")
    assert lowest.keys() == newest.keys() == required().keys()
    for name, requirement in required().items():
        assert [bound.version for bound in requirement.specifier if bound.operator == ">="] == [lowest[name]], name
        assert newest[name] in requirement.specifier, name


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, which is to unpack it."""
    folder = tmp_path_factory.mktemp("site")
    [wheel] = dist.glob("*.whl")
    with ZipFile(wheel) as files:
        files.extractall(folder)
    return folder


def test_a_wheel_runs_in_an_empty_folder(tmp_path: Path, site: Path) -> None:
    done = command(*QUICK, "tracking=none", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "TEST accuracy" in done.stdout
    where = subprocess.run(
        [sys.executable, "-c", "from mnist_exp.config.composition import CONF; print(CONF)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.strip() == str(site / "mnist_exp" / "conf")


def test_the_wheel_has_its_licences_and_its_types(dist: Path) -> None:
    [path] = dist.glob("*.whl")
    with ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = f"{path.name.removesuffix('-py3-none-any.whl')}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
        assert wheel.read(f"{info}/licenses/LICENSE").startswith(b"MIT License")
        assert b"by-sa/3.0" in wheel.read(f"{info}/licenses/mnist_exp/data/README.md")
    assert "License-Expression: MIT AND CC-BY-SA-3.0\n" in metadata
    assert {"mnist_exp/py.typed", "mnist_exp/conf/config.yaml", "mnist_exp/data/README.md"} <= names
    assert {f"mnist_exp/sweeps/page.{end}" for end in ("html", "css", "js")} <= names
    assert {name.partition("/")[0] for name in names} == {"mnist_exp", "hydra_plugins", info}


def test_a_program_sees_the_types_of_an_installed_package(tmp_path: Path, site: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from mnist_exp import run\n"
        'result = run("model.hidden=64")\n'
        'score: float = result.scores["test_accuracy"]\n'
        'text: str = result.scores["test_accuracy"]\n'
    )
    # With -S, mypy sees no other mnist_exp, such as one that is installed as editable.
    mypy = [sys.executable, "-S", "-m", "mypy", "--strict", "--no-error-summary", str(program)]
    path = os.pathsep.join([str(site), *getsitepackages()])
    done = subprocess.run(
        mypy, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    [error] = done.stdout.splitlines()
    assert error.startswith("program.py:4: error: Incompatible types in assignment"), done


@pytest.mark.slow
def test_tests_pass_from_the_source_archive(tmp_path: Path, dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    sources = tmp_path / path.name.removesuffix(".tar.gz")
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "docs/quickstart.ipynb", ".ci/run"):
        assert (sources / name).is_file(), name
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    some = ["tests/config/test_schema.py", "tests/test_docs.py"]  # these read conf/, docs/ and each other
    pytest_fast = [sys.executable, "-m", "pytest", "-m", "fast", "--basetemp", str(tmp_path / "tests"), *some]
    done = subprocess.run(
        pytest_fast, cwd=sources, env={**env, "PYTHONPATH": str(sources)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
