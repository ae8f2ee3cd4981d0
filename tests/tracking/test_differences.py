"""What a run with `resume=true` says of an earlier one that it cannot use: two records, compared in words."""

import json
from pathlib import Path

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.experiment import Child, Experiment, code_files
from mnist_exp.tracking.differences import facts, in_words
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Record

pytestmark = pytest.mark.fast


def record(*overrides: str, child: Child | None = None) -> Record:
    return run_record(Experiment(compose(overrides).config, overrides, Path(), child), 1, None, {})


def said(then: Record, now: Record, digests: tuple[str, str] = ("", "")) -> str:
    old, new = (facts(one.parameters, one.tags, digest) for one, digest in zip((then, now), digests, strict=True))
    return in_words("run 3f2a1c22", old, new)


def tagged(**tags: str) -> Record:
    """A record with other tags."""
    before = record()
    return Record(before.name, before.tags | {f"mnist_exp.{key}": value for key, value in tags.items()})


def edited(*paths: str) -> Record:
    return tagged(code="0" * 12, code_files=json.dumps(code_files() | dict.fromkeys(paths, "000000")))


def test_nothing_differs() -> None:
    typed = ("model.hidden=32", "tracking.experiment=a", "dataset.validation=100")
    assert said(record(), record()) == ""
    assert said(record(*typed), record("model.hidden=32", "dataset.validation=100", "resume=true")) == ""
    packages = ", ".join("python 2.7" if one.startswith("python") else one for one in _packages())
    assert said(tagged(packages=packages), tagged()) == ""


def test_keys_are_named_with_then_and_now() -> None:
    found = said(record(), record("model.hidden=32", "training.epochs=3"))
    assert found == "model.hidden 16 in run 3f2a1c22, 32 now; training.epochs 10 then, 3 now"
    many = said(record(), record("model=cnn", "optimizer=sgd", "seed=1", "dataset.limit=50", "training.epochs=3"))
    assert many.startswith("dataset.limit null in run 3f2a1c22, 50 now; ")
    assert many.endswith("; and more")
    assert " none" not in many  # what a choice has of its own comes last
    assert "[{Dense: {" in (
        layers := said(record("model=layers", f"model.layers=[{'{Dense:{units:8}},' * 20}Flatten]"), record())
    )
    assert len(layers) < 400


def test_files_of_the_code_are_named() -> None:
    assert said(edited("learning/models.py"), tagged()) == "learning/models.py differs from the code of run 3f2a1c22"
    files = list(code_files())
    two, five = said(edited(*files[:2]), tagged()), said(edited(*files[:5]), tagged())
    assert two == f"{files[0]}, {files[1]} differ from the code of run 3f2a1c22"
    assert five == f"{', '.join(files[:3])}, more differ from the code of run 3f2a1c22"
    gone = tagged(code="0" * 12, code_files=json.dumps(code_files() | {"learning/gone.py": "000000"}))
    assert said(gone, tagged()) == "learning/gone.py differs from the code of run 3f2a1c22"


@pytest.mark.parametrize("tag", ["", "{}", "[", "[1]"])
def test_the_code_differs_where_a_record_has_no_files(tag: str) -> None:
    assert said(tagged(code="0" * 12, code_files=tag), tagged()) == "something differs from the code of run 3f2a1c22"


def test_packages_own_code_and_data_are_named() -> None:
    packages = ", ".join("keras 2.0" if one.startswith("keras ") else one for one in _packages())
    keras = next(one for one in _packages() if one.startswith("keras ")).removeprefix("keras ")
    assert said(tagged(packages=packages), tagged()) == f"keras 2.0 in run 3f2a1c22, {keras} now"
    assert said(tagged(own_code="mine.py 1"), tagged(own_code="mine.py 2")) == (
        "own_code mine.py 1 in run 3f2a1c22, mine.py 2 now"
    )
    data = said(edited("runner.py"), tagged(), ("a" * 32, "b" * 32))
    assert data == f"runner.py differs from the code of run 3f2a1c22; data {'a' * 12} then, {'b' * 12} now"


def test_a_store_of_somebody_else_prints_one_line() -> None:
    found = said(tagged(packages="keras 1\n\x1b[2J, , x", own_code="y" * 5000), tagged())
    assert found.isprintable()
    assert len(found) < 500


def test_a_tag_with_all_files_fits_any_store_and_a_job_has_none() -> None:
    assert len(record().tags["mnist_exp.code_files"]) < 2000  # MLflow takes 8000 characters, earlier ones 5000
    assert "mnist_exp.code_files" not in record(child=Child("", {"seed": "0"})).tags


def _packages() -> list[str]:
    return record().tags["mnist_exp.packages"].split(", ")
