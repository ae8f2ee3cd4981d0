"""The notebooks in docs/ run from start to end, and say the same in two languages."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mnist_exp

from .conftest import runs_in

DOCS = Path(__file__).parents[1] / "docs"


# The notebook in Japanese has the same code, which the test below compares.
@pytest.mark.slow
def test_a_notebook_runs_and_leaves_a_tracked_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(mnist_exp.__file__).parents[1]))
    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "TEST accuracy: 0.89" in printed
    assert "Epoch 10/10" in printed
    assert not any(output.get("name") == "stderr" for output in outputs)
    [recorded] = runs_in(tmp_path)
    assert recorded.info.status == "FINISHED"


def test_both_languages_have_the_same_code() -> None:
    english, japanese = (
        nbformat.read(DOCS / name, as_version=4).cells for name in ("quickstart.ipynb", "quickstart.ja.ipynb")
    )
    assert [cell.cell_type for cell in english] == [cell.cell_type for cell in japanese]
    for cell, other in zip(english, japanese, strict=True):
        assert (cell.source == other.source) == (cell.cell_type == "code")
