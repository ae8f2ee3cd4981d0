"""Earlier runs of an experiment, found without a store."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import mnist_exp
from mnist_exp.config.composition import compose
from mnist_exp.config.own_code import CodeFile
from mnist_exp.experiment import experiment_key
from mnist_exp.tracking import index
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

pytestmark = pytest.mark.fast

KEY, OTHER = "0" * 64, "1" * 64
ADDS = """
import sys
from pathlib import Path
from mnist_exp.tracking import index
for number in range(200):
    index.add(sys.argv[1], Path("outputs") / f"{sys.argv[2]}-{number}")
"""


def run_in(path: Path, key: str = KEY) -> Path:
    Folder(path).write(Record("a run", {index.KEY: key}))
    index.add(key, path)
    return path.absolute()


def test_runs_with_folders_are_found_newest_first(tmp_path: Path) -> None:
    assert index.find(KEY) == []
    first, second, third = (run_in(Path("outputs") / name) for name in ("a", "new\nline 'b' %20?", "c"))
    run_in(Path("outputs/other"), OTHER)
    assert index.find(KEY) == [third, second, first]
    index.add(KEY, first)  # this run resumes
    assert index.find(KEY) == [first, third, second]
    (third / "run.json").unlink()
    assert index.find(KEY) == [first, second]
    (first / "run.json").write_text("{}")
    assert index.find(KEY) == [second]
    shutil.rmtree(".mnist_exp")
    assert index.find(KEY) == [second]
    assert sorted(path.name for path in (tmp_path / ".mnist_exp").iterdir()) == [KEY, OTHER]


def test_a_folder_that_was_moved_with_its_runs_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = run_in(tmp_path.parent / f"{tmp_path.name}-outside")
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    run_in(Path("outputs/a"))
    index.add(KEY, outside)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    monkeypatch.chdir(tmp_path / "two")
    assert index.find(KEY) == [outside, tmp_path / "two" / "outputs" / "a"]


@pytest.mark.parametrize(
    "line", ["", "no JSON", "[1]", "3", "null", '"outputs/other"', '"/etc"', '"\\u0000"', "[" * 9999]
)
def test_a_line_that_names_no_run_of_the_experiment_is_left_out(line: str) -> None:
    known = run_in(Path("outputs/a"))
    run_in(Path("outputs/other"), OTHER)
    with Path(".mnist_exp", KEY).open("a") as file:
        file.write(f"{line}\n")
    assert index.find(KEY) == [known]


def test_processes_add_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1])}
    adding = [subprocess.Popen([sys.executable, "-c", ADDS, KEY, name], env=environment) for name in "abcd"]
    assert [process.wait() for process in adding] == [0] * 4
    lines = [json.loads(line) for line in (tmp_path / ".mnist_exp" / KEY).read_text().splitlines()]
    assert sorted(lines) == sorted(f"outputs/{name}-{number}" for name in "abcd" for number in range(200))


@pytest.mark.parametrize("made", ["a file", "a link", "a pipe"])
def test_unwritable_index_is_ignored(tmp_path: Path, made: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    if made == "a file":
        Path(".mnist_exp").touch()
    else:
        Path(".mnist_exp").mkdir()
        path = Path(".mnist_exp", KEY)
        if made == "a link":
            path.symlink_to(elsewhere)
        else:
            os.mkfifo(path)
    run_in(Path("outputs/a"))
    assert index.find(KEY) == []
    assert elsewhere.read_bytes() == b""


def test_the_key_is_of_configuration_and_data_alone() -> None:
    config = compose([]).config
    before = experiment_key(config, "digest")
    for same in ("tracking=none", "resume=true"):
        assert experiment_key(compose([same]).config, "digest") == before
    assert experiment_key(replace(config, code=CodeFile("mine.py", "import keras\n")), "digest") == before
    assert experiment_key(compose(["seed=1"]).config, "digest") != before
    assert experiment_key(compose([]).config, "other") != before
