"""What a person sees in MLflow's pages of a store that a sweep wrote, in a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import installed, sweep_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = shutil.which("chromium")
README = Path(__file__).parents[1] / "README.md"
pytestmark = [
    pytest.mark.skipif(not installed("playwright"), reason="needs pip install -e '.[browser]'"),
    pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def address(sweep_folder: Path) -> Iterator[str]:
    """`mlflow ui` on the sweep's store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"],
        cwd=sweep_folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        next(line for line in server.stderr if "Uvicorn running on" in line)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


@pytest.fixture
def page() -> Iterator["Page"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def open_runs(page: "Page", address: str) -> None:
    """Open the runs by the link of README, since MLflow's first page shows none of them; the sweep unfolded."""
    [link] = re.findall(r"http://127.0.0.1:5000(/#/experiments/1/runs\?[^)\s]*)", README.read_text())
    page.goto(f"{address}{link}")
    page.get_by_role("heading", name="Runs").wait_for()
    page.get_by_role("button", name="Close").click()  # the assistant, which covers a third of the page
    page.locator("[data-component-id*='runnamecellrenderer']").first.click()


def test_the_runs_page_lists_the_parent_and_its_jobs(page: "Page", address: str, sweep_folder: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    open_runs(page, address)
    for run in [parent, *jobs]:
        page.get_by_role("row").filter(has=page.get_by_text(str(run.info.run_name), exact=True)).first.wait_for()


def test_two_jobs_compared_show_parameters_and_curves(page: "Page", address: str) -> None:
    chosen = ("hidden=16 activation=sigmoid", "hidden=64 activation=relu")
    open_runs(page, address)
    for name in chosen:
        row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True)).first
        row.get_by_role("checkbox").first.click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="Comparing 2 Runs").wait_for()
    for parameter, values in {"model.activation": ("sigmoid", "relu"), "model.hidden": ("16", "64")}.items():
        row = page.get_by_role("row").filter(has=page.get_by_text(parameter, exact=True)).first
        for value in values:
            row.get_by_text(value, exact=True).first.wait_for()
    page.get_by_role("link", name="loss", exact=True).click()
    for name in chosen:
        page.get_by_text(f"{name} (loss)").first.wait_for()
    page.wait_for_function(_TWO_CURVES)


# Plotly leaves points out that lie on a straight line, so not all ten epochs are in a path.
_TWO_CURVES = """() => {
    const lines = document.querySelectorAll(".scatterlayer .trace path.js-line")
    const paths = [...lines].map(line => line.getAttribute("d")).filter(path => path && path.split(",").length > 5)
    return new Set(paths).size >= 2
}"""


def test_the_link_that_a_sweep_prints_opens_it(page: "Page", address: str, sweep_folder: Path) -> None:
    parent, _ = sweep_in(sweep_folder)
    [link] = re.findall(r"http://127.0.0.1:5000(/#/\S+)", (sweep_folder / "stdout").read_text())
    page.goto(f"{address}{link}")
    page.get_by_role("heading", name=str(parent.info.run_name)).first.wait_for()
    page.get_by_text(parent.info.run_id).first.wait_for()


def test_the_page_of_a_sweep_shows_what_its_ranking_decides(sweep_folder: Path, address: str, page: "Page") -> None:
    parent, _ = sweep_in(sweep_folder)
    page.goto(f"{address}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}")
    page.get_by_role("heading", name="Ranking of the jobs").wait_for()
    assert page.get_by_text("A single run may be better or worse by chance").first.is_visible()
    assert page.get_by_text("model.kind", exact=True).first.is_visible()
    page.get_by_text("Show more").first.click()
    page.get_by_role("cell", name="sigmoid").first.wait_for()
