"""The report of a real sweep: made when it ends, and made again from its folder or from the store."""

import html
import json
import math
import shlex
import shutil
from pathlib import Path

from mnist_exp.sweeps.report import page_of
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import data_digest

from ..conftest import SIX, artifacts, in_process, store, sweep_in


def folder_of(sweep_folder: Path) -> Path:
    [found] = sweep_folder.glob("multirun/*/*/report.html")
    return found.parent


def test_each_sweep_keeps_its_report(sweep_folder: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    assert {"report.html", "report.json"} <= artifacts(store(sweep_folder), parent.info.run_id)
    page = (folder_of(sweep_folder) / "report.html").read_text().replace("<wbr>", "")
    assert f"Sweep {parent.info.run_id[:8]}: 6 jobs, largest val_accuracy first" in page
    for job in jobs:
        assert f"{job.data.metrics['objective']:.4f}" in page
    assert data_digest(jobs[0]) in page
    assert parent.data.tags["mnist_exp.packages"] in page
    assert "data:image/png;base64," in page
    assert len(page.encode()) < 3_000_000


def test_a_report_is_made_again_from_the_store_and_from_the_folder(sweep_folder: Path, tmp_path: Path) -> None:
    parent, _ = sweep_in(sweep_folder)
    kept = folder_of(sweep_folder)
    address = f"tracking.uri=sqlite:///{sweep_folder}/mlflow.db"
    of_store = in_process(parent.info.run_id[:8], address, cwd=tmp_path, module="mnist_exp.report")
    assert of_store.stdout == f"Report in report-{parent.info.run_id[:8]}.html\n", of_store.stderr
    of_folder = in_process(str(kept), "--output", "mine.html", cwd=tmp_path, module="mnist_exp.report")
    assert of_folder.stdout == "Report in mine.html\n", of_folder.stderr
    for path in tmp_path.glob("*.html"):
        assert path.read_bytes() == (kept / "report.html").read_bytes()


def test_the_command_beside_a_row_repeats_it(sweep_folder: Path, tmp_path: Path) -> None:
    report = json.loads((folder_of(sweep_folder) / "report.json").read_text())
    first = report["commands"][0]
    assert first == f"python -m mnist_exp {' '.join(SIX[2:])} model.hidden=64 model.activation=relu"
    done = in_process(*shlex.split(first)[3:], "tracking=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [repeated] = tmp_path.glob("outputs/*/*/run.json")
    scores = Folder(repeated.parent).read().scores
    parent, _ = sweep_in(sweep_folder)
    assert abs(scores["objective"] - parent.data.metrics["objective"]) < 0.01  # with another number of threads


def test_a_value_that_is_no_number_leaves_a_gap(sweep_folder: Path) -> None:
    report = json.loads((folder_of(sweep_folder) / "report.json").read_text())
    report["curves"][0]["mean"][1] = math.nan
    page = page_of({"report.json": json.dumps(report).encode()})
    assert page.count("<tr") == 7


def test_a_folder_of_somebody_else_shows_no_file_of_ones_own(sweep_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    shutil.copy(folder_of(sweep_folder) / "report.json", tmp_path / "theirs")
    (tmp_path / "secret.txt").write_text("a file of one's own")
    (tmp_path / "theirs" / "code.patch").symlink_to(tmp_path / "secret.txt")
    done = in_process("theirs", "--output", "page.html", cwd=tmp_path, module="mnist_exp.report")
    assert done.returncode == 0, done.stderr
    assert "a file of one's own" not in html.unescape((tmp_path / "page.html").read_text())


def test_what_cannot_be_reported_is_one_message(sweep_folder: Path, tmp_path: Path) -> None:
    _, jobs = sweep_in(sweep_folder)
    address = f"tracking.uri=sqlite:///{sweep_folder}/mlflow.db"
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "report.json").write_text('{"title": 5}')
    (tmp_path / "short").mkdir()
    whole = json.loads((folder_of(sweep_folder) / "report.json").read_text())
    (tmp_path / "short" / "report.json").write_text(json.dumps(whole | {"lines": []}))
    (tmp_path / "empty").mkdir()
    for typed, message in (
        ((jobs[0].info.run_id, address), "is no sweep; it is a job of the sweep"),
        (("abc", address), "abc: no such run in"),
        (("empty",), "empty: has no report.json, which a sweep leaves in its folder when it ends"),
        (("short",), "report.json: is no report of this version (lines: must be a header and rows"),
        (("hostile",), "report.json: is no report of this version (title: Input should be a valid string)"),
        ((jobs[0].info.run_id, "model.hidden=4"), "model.hidden=4: is not used here"),
        ((str(folder_of(sweep_folder)), "--output", "no/such/x.html"), "--output no/such/x.html: cannot be written"),
    ):
        done = in_process(*typed, cwd=tmp_path, module="mnist_exp.report")
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_seeds_are_in_the_command_of_their_row(tmp_path: Path) -> None:
    small = ("dataset.limit=500", "training.epochs=1", "tracking=none")
    done = in_process("-m", "model.hidden=4,[8,4]", "seed=0,1", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder_of(tmp_path) / "report.json").read_text())
    beginning = "python -m mnist_exp dataset.limit=500 training.epochs=1 -m"
    assert set(report["commands"]) == {
        f"{beginning} model.hidden=4 seed=0,1",
        f"{beginning} 'model.hidden=[8,4]' seed=0,1",
    }
    assert report["varied"] == {"model.hidden": "4,[8,4]", "seed": "0,1"}
    assert "model.hidden" not in report["fixed"]
    assert report["fixed"]["dataset.limit"] == "500"
