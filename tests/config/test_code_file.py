"""Nothing but what is typed names a file of the user's own, and one file."""

import re
from pathlib import Path

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.errors import InputError

from ..conftest import in_process

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("code=none.py", "code=none.py: no such file"),
        ("code=none.txt", "code=none.txt: must be a Python file"),
        (f"code={'a' * 300}.py", "File name too long"),
        ("code=[a.py]", "code=[a.py]: must be a Python file"),
        ("code=${dataset.path}", "must be a Python file"),
        ("code=a.py,b.py", "code=a.py,b.py: must have one value, which all jobs of a sweep share"),
    ],
)
def test_code_names_one_python_file(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([typed])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("experiment/evil.yaml", "# @package _global_\ncode: mine.py\n"),
        ("sweep/evil.yaml", "# @package _global_\nhydra: {sweeper: {params: {code: mine.py}}}\n"),
    ],
)
@pytest.mark.parametrize("beside", [(), ("code=mine.py",)])
def test_no_preset_names_code(tmp_path: Path, file: str, text: str, beside: tuple[str, ...]) -> None:
    (tmp_path / "mine.py").write_text("open('RAN', 'w')")
    preset = tmp_path / "theirs" / file
    preset.parent.mkdir(parents=True)
    preset.write_text(text)
    done = in_process("--config-dir", "theirs", "-m", *beside, file.partition("/")[0] + "=evil", cwd=tmp_path)
    assert done.returncode == 1
    assert "code=mine.py: a preset or recorded run may not set this" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "theirs"}


def test_nor_does_a_value_that_hydra_is_told_to_sweep(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("open('RAN', 'w')")
    done = in_process("-m", "sweep=grid", "+hydra.sweeper.params.code=mine.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "code=mine.py: can only be typed" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py"}
