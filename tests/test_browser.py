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

from mnist_exp.tracking import views

from .conftest import in_process, installed, store, sweep_in

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
        page.set_default_timeout(20_000)
        yield page
        browser.close()


LINKS = re.compile(r"http://127.0.0.1:5000(/#/[^)\s]*)")
ALL_RUNS = r"http://127.0.0.1:5000(/#/[^)\s]*mnist_exp-all[^)\s]*)"


def open_link(page: "Page", address: str, link: str) -> None:
    """Open a link with nothing clicked, and wait for its charts."""
    page.goto(f"{address}{link}")
    page.locator(".js-plotly-plot").first.wait_for()


def wait_for_curves(page: "Page", count: int) -> None:
    """Wait until so many curves are drawn, of which plotly draws each twice."""
    page.wait_for_function(
        """count => {
            const lines = document.querySelectorAll(".scatterlayer .trace path.js-line")
            return new Set([...lines].map(line => line.getAttribute("d"))).size == count
        }""",
        arg=count,
    )


def test_readme_opens_the_curves_of_all_runs(page: "Page", address: str) -> None:
    [link] = re.findall(ALL_RUNS, README.read_text())
    open_link(page, address, link)
    wait_for_curves(page, 12)  # accuracy and loss of six jobs, and none of their parent


def test_compare_prints_a_link_to_the_curves_of_its_runs(page: "Page", address: str, sweep_folder: Path) -> None:
    _, jobs = sweep_in(sweep_folder)
    chosen = [jobs[0], jobs[-1]]
    ids = [job.info.run_id for job in chosen]
    done = in_process(*ids, cwd=sweep_folder, module="mnist_exp.compare")
    [link] = LINKS.findall(done.stdout)
    open_link(page, address, link)
    wait_for_curves(page, 4)  # accuracy and loss; the page draws what is in sight
    page.get_by_role("button", name="Close").click()  # the assistant, which covers a third of the page
    for job in chosen:
        row = page.get_by_role("row").filter(has=page.get_by_text(str(job.info.run_name), exact=True)).first
        row.get_by_role("checkbox").first.click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="Comparing 2 Runs").wait_for()
    for parameter, values in {"model.activation": ("sigmoid", "relu"), "model.hidden": ("16", "64")}.items():
        row = page.get_by_role("row").filter(has=page.get_by_text(parameter, exact=True)).first
        for value in values:
            row.get_by_text(value, exact=True).first.wait_for()


def test_link_of_a_sweep_opens_curves_axes_and_rows(page: "Page", address: str, sweep_folder: Path) -> None:
    _, jobs = sweep_in(sweep_folder)
    [link] = LINKS.findall((sweep_folder / "stdout").read_text())
    open_link(page, address, link)
    page.get_by_text("hidden=64 activation=relu leads, 6 rows").first.wait_for()
    wait_for_curves(page, 12)
    page.wait_for_function("document.querySelectorAll('.parcoords .dimension').length == 3")
    page.goto("about:blank")
    page.goto(f"{address}{link.replace('CHART', 'TABLE')}")
    names = [page.get_by_text(str(job.info.run_name), exact=True).first for job in jobs]
    for name in names:
        name.wait_for()
    places = [name.evaluate("element => element.getBoundingClientRect().top") for name in names]
    best = max(jobs, key=lambda job: job.data.metrics["objective"])
    assert min(places) == places[jobs.index(best)]
    assert page.locator("[data-component-id*='runnamecellrenderer']").count() <= len(jobs)


def test_view_that_was_deleted_by_hand_stays_deleted(page: "Page", address: str, sweep_folder: Path) -> None:
    parent, _ = sweep_in(sweep_folder)
    client, experiment_id = store(sweep_folder), parent.info.experiment_id
    key = views.make_key(parent.info.run_id)
    tag = f"mlflow.sharedViewState.{key}"
    before = client.get_experiment(experiment_id).tags[tag]
    [link] = LINKS.findall((sweep_folder / "stdout").read_text())
    open_link(page, address, link)
    page.get_by_test_id("saved-views-trigger").click()
    page.get_by_test_id(f"saved-views-delete-{key}").click(force=True)
    with page.expect_response(lambda response: "delete-experiment-tag" in response.url):
        page.get_by_role("button", name="Delete", exact=True).click()
    try:
        assert not views.save(client, experiment_id, key, views.View("again", "", []))
        assert tag not in client.get_experiment(experiment_id).tags
    finally:
        client.set_experiment_tag(experiment_id, tag, before)


def test_report_shows_the_verdict_of_the_ranking(sweep_folder: Path, address: str, page: "Page") -> None:
    parent, _ = sweep_in(sweep_folder)
    page.goto(f"{address}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}")
    page.get_by_role("heading", name="Ranking of the jobs").wait_for()
    assert page.get_by_text("a single run may be better or worse by chance").first.is_visible()
    assert page.get_by_text("model.kind", exact=True).first.is_visible()
    page.get_by_text("Show more").first.click()
    page.get_by_role("cell", name="sigmoid").first.wait_for()
