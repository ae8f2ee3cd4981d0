"""The page of a sweep: all that it was given, as text, in a file that loads nothing; and as a person sees it."""

import hashlib
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import Markup

from mnist_exp.sweeps.charts import Curves, importance_bars, objective_by_parameter, validation_curves
from mnist_exp.sweeps.importance import Importance
from mnist_exp.sweeps.page import Report, as_svg, render_report
from mnist_exp.sweeps.ranking import compare_rows, rank
from mnist_exp.sweeps.table import Table
from mnist_exp.text import printable

from ..conftest import installed, recorded_job

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSER = shutil.which("chromium")
in_browser = pytest.mark.skipif(
    BROWSER is None or not installed("playwright"), reason="needs pip install -e '.[browser]' and Debian's chromium"
)

LAYERS = "[{Residual:[{Conv2D:{filters:32,kernel_size:3,padding:same}},BatchNormalization]},Flatten,{Dense:{units:10}}]"
HOSTILE = [
    "</script><script>window.ran = true</script>",
    "</title></style><img src=x onerror=window.ran=true>",
    '" onmouseover="window.ran=true" x=\'',
    "javascript:window.ran=true",
    "<svg onload=window.ran=true></svg></code></details></table>",
    "https://example.com/pixel.png",
    "&lt;b&gt; $title$ {{ 7 * 7 }} {% raw %}",
    "wrong\x1b[2J\u202etxt.exe\ud800\n" + "x" * 300,
]


def curves(*names: str) -> dict[str, Markup]:
    rows: list[Curves] = [("1", name, [[0.5, 0.8, 0.95], [0.4, 0.7, 0.9]]) for name in names]
    return {"Curves": as_svg(validation_curves(rows, names[0]), "curves")}


def sweep(rows: int) -> Report:
    """A report of so many rows of three seeds, best first; every second one has layers."""
    jobs = [
        recorded_job(
            {"hidden": str(8 * (row + 1)), "layers": LAYERS if row % 2 else "Flatten", "seed": str(seed)},
            "FINISHED",
            0.95 - row / 400 - seed / 1000 * (1 + row),
            {"test_loss": 0.2 + row / 100},
            2.0,
        )
        for row in range(rows)
        for seed in range(3)
    ]
    failed = recorded_job({"hidden": "0"}, "FAILED", reason=HOSTILE[0])
    lines, texts = Table("val_accuracy", "maximize", compare_rows(rank(jobs, "maximize"), "maximize"), [failed]).cells
    return Report(
        title="Sweep 3f2a1c22: hidden=8,16 seed=0,1,2",
        verdict=["The first row is best.", "On other images it would be 0.94 to 0.96."],
        lines=lines,
        texts=texts,
        commands=[f"python -m mnist_exp hidden={line[1]} 'layers={LAYERS}'" for line in lines[1:-1]],
        pictures=curves("a", "b")
        | {"Importance": as_svg(importance_bars(Importance({"layers": 0.7}, "all")), "importance")},
        tables={"Varied keys": {"hidden": "8,16", "layers": LAYERS}, "Record": {"commit": "54f8309"}},
        patch="+one\n-\tother",
    )


def hostile() -> Report:
    """A report that says something hostile wherever it can."""
    points = [(dict.fromkeys(HOSTILE[:3], other), 0.1) for other in HOSTILE]
    cells = [({"a": text, "b": other}, 0.1) for text in HOSTILE for other in HOSTILE]
    drawn = {
        "points": objective_by_parameter(points, HOSTILE[1]),
        "map": objective_by_parameter(cells, HOSTILE[2]),
        "bars": importance_bars(Importance(dict.fromkeys(HOSTILE, 0.1), HOSTILE[0], "chance")),
    }
    lines = [["", *HOSTILE], [*HOSTILE, "1"], ["2=", *HOSTILE]]
    return Report(
        HOSTILE[0], HOSTILE, lines, [0, 1], ["; ".join(HOSTILE)],
        {f"{HOSTILE[0]} {name}": as_svg(figure, name) for name, figure in drawn.items()} | curves(*HOSTILE),
        {title: {text: text for text in HOSTILE} for title in HOSTILE}, "".join(HOSTILE),
    )  # fmt: skip


class Read(HTMLParser):
    """A page, read: its tags in order, and the text in each; that every tag is closed is asserted."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[list[str]] = []
        self.unclosed: list[int] = []
        self.feed(text)
        assert not self.unclosed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "img", "wbr"}:
            self.unclosed.append(len(self.tags))
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.tags[self.unclosed.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.unclosed:
            self.texts[index].append(data)

    def of(self, *wanted: str) -> list[str]:
        """The text of each tag of these names."""
        return ["".join(text) for (tag, _), text in zip(self.tags, self.texts, strict=True) if tag in wanted]


@pytest.mark.fast
@pytest.mark.parametrize("report", [sweep(4), hostile()], ids=["sweep", "hostile"])
def test_all_that_was_given_is_text_in_the_page(report: Report) -> None:
    read = Read(render_report(report))
    header, *lines = ([printable(cell) for cell in line] for line in report.lines)
    shown = [text.removeprefix("show") for text in read.of("th", "td")]
    wanted = [["place", *header[1:], "command"]]
    wanted += [[*line, printable(text)] for line, text in zip_longest(lines, report.commands, fillvalue="")]
    assert shown == [cell for line in wanted for cell in line]
    title = printable(report.title)
    assert [*read.of("h1"), read.of("title")[0]] == [title, title]
    pairs = [(printable(key), printable(value)) for table in report.tables.values() for key, value in table.items()]
    assert pairs == list(zip(read.of("dt"), read.of("dd"), strict=True))
    assert [printable(line) for line in report.verdict] == read.of("p")[: len(report.verdict)]


@pytest.mark.fast
def test_no_hostile_file_is_loaded_or_run() -> None:
    text = render_report(hostile())
    read = Read(text)
    [script] = read.of("script")
    [policy] = [attrs["content"] or "" for tag, attrs in read.tags if "http-equiv" in attrs]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:;" in policy
    assert re.findall("script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]
    assert "innerHTML" not in script
    names = {name for _, attrs in read.tags for name in attrs}
    assert not {name for name in names if name.startswith("on")}
    assert names & {"src", "href", "srcset", "action", "data", "xlink:href"} == {"href", "xlink:href"}
    addresses = [attrs[name] or "" for _, attrs in read.tags for name in ("href", "xlink:href") if name in attrs]
    image = r"data:image/png;base64,[A-Za-z0-9+/=\s]*$"
    assert all(re.match(rf"#\w+$|data:,$|{image}", address) for address in addresses)
    assert {tag for tag, _ in read.tags} & {"img", "iframe", "object", "embed", "base", "form", "b"} == set()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", text)


@pytest.mark.fast
def test_the_texts_of_pictures_are_whole_and_their_ids_their_own() -> None:
    text = render_report(hostile())
    assert "</script><script>window.ran = true</script>" in Read(text).of("text")
    formula = render_report(replace(sweep(1), pictures=curves("loss $x^2$ and $y$")))
    assert Read(formula).of("text").count("1  loss $x^2$ and $y$, n=2") == 1
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 10
    used = set(re.findall(r'(?:url\(|xlink:href=")#(\w+)', text))
    assert used <= set(ids)
    assert used
    assert not re.search("<[?]xml|<!DOCTYPE svg|<metadata", text)
    assert render_report(hostile()) == text


@pytest.mark.fast
def test_page_has_200_rows_each_with_its_command() -> None:
    report = sweep(201)
    read = Read(render_report(report))
    assert [text.removeprefix("show") for text in read.of("td") if text.startswith("show")] == report.commands[:200]
    assert len(read.of("tr")) == 1 + 200
    assert sum("... and 2 more in ranking.csv." in text for text in read.of("p")) == 1  # a row and a job that failed
    assert "more in ranking.csv" not in render_report(sweep(199))


@pytest.mark.fast
def test_empty_report_has_only_the_ranking() -> None:
    bare = replace(sweep(1), pictures={}, tables={"Record": {}}, patch="", verdict=[])
    assert Read(render_report(bare)).of("h2") == ["Ranking"]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened(browser: "Browser", text: str, **context: Any) -> tuple["Page", list[str]]:
    """The page from a file, and what it complains of and asks for."""
    Path("page.html").write_text(text, "utf-8")
    shown = browser.new_context(**context).new_page()
    heard: list[str] = []
    shown.on("console", lambda message: heard.append(message.text))
    shown.on("pageerror", lambda error: heard.append(str(error)))
    shown.on("request", lambda request: heard.append(request.url))
    shown.goto(address := Path("page.html").absolute().as_uri())
    heard.remove(address)
    return shown, heard


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_output_fits_the_screen(browser: "Browser", width: int) -> None:
    for report in (sweep(40), hostile()):
        shown, heard = opened(browser, render_report(report), viewport={"width": width, "height": 900})
        shown.locator("summary").evaluate_all("all => all.forEach(summary => summary.click())")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate("window.ran") is None
        assert heard == []


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_cut_ranking_fades_out(browser: "Browser", width: int) -> None:
    shown, _ = opened(browser, render_report(sweep(1)), viewport={"width": width, "height": 900})
    frame = shown.locator(".scroll")
    is_cut = frame.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    assert is_cut == (width == 390)

    def faded() -> str:
        width: str = frame.evaluate("frame => getComputedStyle(frame).getPropertyValue('--cut')")
        return width

    assert (faded() != "0px") == is_cut
    frame.evaluate("frame => new Promise(done => { frame.scrollLeft = 9999; requestAnimationFrame(done) })")
    assert faded() == "0px"


@in_browser
def test_a_header_sorts_by_number_and_back(browser: "Browser") -> None:
    shown, _ = opened(browser, render_report(sweep(12)))

    def column(place: int) -> list[str]:
        texts: list[str] = shown.locator(f"tbody tr > :nth-child({place + 1})").all_text_contents()
        return texts

    def sorted_by() -> list[tuple[str, str | None]]:
        headers = shown.locator("th[aria-sort]").all()
        return [(header.inner_text(), header.get_attribute("aria-sort")) for header in headers]

    header = shown.locator("thead th").all_text_contents()
    hidden, difference = header.index("hidden"), header.index("difference")
    assert sorted_by() == [("place", "ascending")]
    best_first = column(0)
    shown.get_by_role("button", name="hidden").click()
    assert column(hidden) == ["0", *(str(8 * row) for row in range(1, 13))]
    assert sorted_by() == [("hidden", "ascending")]
    shown.get_by_role("button", name="difference").focus()
    shown.keyboard.press("Enter")
    numbers = column(difference)
    assert [float(text) for text in numbers[:11]] == sorted(float(text) for text in numbers[:11])
    assert numbers[11:] == ["", ""]
    shown.keyboard.press("Enter")
    assert [float(text) for text in column(difference)[:11]] == sorted(map(float, numbers[:11]), reverse=True)
    assert column(difference)[11:] == ["", ""]
    assert sorted_by() == [("difference", "descending")]
    shown.get_by_role("button", name="place").click()
    assert column(0) == best_first
    assert best_first[-1] == "-"


@in_browser
def test_a_button_copies_the_command_of_its_row(browser: "Browser") -> None:
    report = sweep(3)
    shown, _ = opened(browser, render_report(report), permissions=["clipboard-read", "clipboard-write"])
    shown.get_by_role("row").nth(2).get_by_role("button", name="copy").click()
    shown.get_by_role("button", name="copied").wait_for()
    assert shown.evaluate("navigator.clipboard.readText()") == report.commands[1]


@in_browser
def test_report_needs_no_script(browser: "Browser") -> None:
    report = sweep(3)
    shown, _ = opened(browser, render_report(report), java_script_enabled=False)
    assert shown.get_by_role("button").count() == 0
    shown.get_by_role("row").nth(1).get_by_text("show").click()
    shown.get_by_text(report.commands[0]).wait_for(state="visible")


@in_browser
def test_reports_policy_allows_one_script(browser: "Browser") -> None:
    added = "<script>window.ran = true</script><img src=x onerror=window.ran=true></body>"
    shown, heard = opened(browser, render_report(sweep(1)).replace("</body>", added))
    assert shown.evaluate("window.ran") is None
    assert any("Content Security Policy" in message for message in heard)
