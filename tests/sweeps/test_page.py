"""The page of a sweep: all that it was given, as text, in a file that loads nothing; and as a person sees it."""

import hashlib
import re
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from mnist_exp.errors import printable
from mnist_exp.sweeps.curves import Curve
from mnist_exp.sweeps.page import Report, page
from mnist_exp.sweeps.ranking import compared, rank
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.job import Job

from ..conftest import installed

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
    "&lt;b&gt; $title ${style}",
    "wrong\x1b[2J\u202etxt.exe\ud800\n" + "x" * 300,
]


def curve(name: str, *values: float, spread: float = 0.0) -> Curve:
    return Curve("", name, 1, values, [value - spread for value in values], [value + spread for value in values])


def sweep(rows: int) -> Report:
    """A report of so many rows of three seeds, best first; every second one has layers."""
    jobs = [
        Job(
            {"hidden": str(8 * (row + 1)), "layers": LAYERS if row % 2 else "Flatten", "seed": str(seed)},
            "FINISHED",
            0.95 - row / 400 - seed / 1000 * (1 + row),
            {"test_loss": 0.2 + row / 100},
            2.0,
        )
        for row in range(rows)
        for seed in range(3)
    ]
    failed = Job({"hidden": "0"}, "FAILED", reason=HOSTILE[0])
    lines, texts = Table("val_accuracy", "maximize", compared(rank(jobs, "maximize")), [failed]).cells
    commands = [f"python -m mnist_exp hidden={line[1]} 'layers={LAYERS}'" for line in lines[1:-1]]
    return Report(
        title="Sweep 3f2a1c22: hidden=8,16 seed=0,1,2",
        verdict=["The first row is best.", "On other images it would be 0.94 to 0.96."],
        lines=lines,
        texts=texts,
        commands=[*commands, ""],
        metric="val_accuracy",
        curves=[curve(line[1], 0.5, 0.8, 0.95 - row / 400, spread=0.01) for row, line in enumerate(lines[1:-1])],
        importance={"layers": 0.2, "hidden": 0.7},
        varied={"hidden": "8,16", "layers": LAYERS},
        fixed={"training.epochs": "3"},
        facts={"commit": "54f8309"},
        pictures={"small": b"small picture"},
        patch="+one\n-\tother",
    )


def hostile() -> Report:
    """A report that says something hostile wherever it can."""
    pairs = {text: text for text in HOSTILE}
    lines = [["", *HOSTILE], [*HOSTILE, "1"], ["2=", *HOSTILE]]
    return Report(
        HOSTILE[0], HOSTILE, lines, [0, 1], ["; ".join(HOSTILE), ""], HOSTILE[1], [curve(text, 1) for text in HOSTILE],
        dict.fromkeys(HOSTILE, 0.1), pairs, pairs, pairs, dict.fromkeys(HOSTILE, HOSTILE[0].encode()), "".join(HOSTILE),
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
@pytest.mark.parametrize("report", [sweep(4), hostile()])
def test_all_that_was_given_is_text_in_the_page(report: Report) -> None:
    read = Read(page(report))
    header, *lines = ([printable(cell) for cell in line] for line in report.lines)
    shown = [text.removeprefix("show") for text in read.of("th", "td")]
    wanted = [["place", *header[1:], "command"]]
    wanted += [[*line, printable(command)] for line, command in zip(lines, report.commands, strict=True)]
    assert shown == [cell for line in wanted for cell in line]
    title = printable(report.title)
    assert [*read.of("h1"), read.of("title")[0]] == [title, title]
    for pairs in (report.varied, report.fixed, report.facts):
        assert {(printable(key), printable(value)) for key, value in pairs.items()} <= set(
            zip(read.of("dt"), read.of("dd"), strict=True)
        )
    assert [printable(one) for one in report.verdict] == read.of("p")[: len(report.verdict)]
    assert all(any(printable(one.label) in text for text in read.of("li")) for one in report.curves)


@pytest.mark.fast
def test_nothing_that_was_given_loads_or_runs() -> None:
    text = page(hostile())
    read = Read(text)
    [script] = read.of("script")
    [policy] = [attrs["content"] or "" for tag, attrs in read.tags if "http-equiv" in attrs]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:;" in policy
    assert re.findall("script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]
    assert "innerHTML" not in script
    names = {name for _, attrs in read.tags for name in attrs}
    assert not {name for name in names if name.startswith("on")}
    assert names & {"src", "href", "srcset", "action", "data", "style", "xlink:href"} == {"src", "href"}
    addresses = [attrs[name] or "" for _, attrs in read.tags for name in ("src", "href") if name in attrs]
    assert all(re.match(r"#[a-z]+$|data:,$|data:image/png;base64,[A-Za-z0-9+/=]*$", address) for address in addresses)
    assert {tag for tag, _ in read.tags} & {"iframe", "object", "embed", "base", "form", "b"} == set()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", text)


@pytest.mark.fast
def test_a_page_of_a_thousand_rows_and_large_pictures_can_be_mailed() -> None:
    pictures = {"large": bytes(2_000_000), "small": b"small picture", "larger": bytes(2_500_000)}
    curves = [curve(str(row), *np.linspace(0.1, 0.9, 300)) for row in range(1000)]
    read = Read(text := page(replace(sweep(1000), pictures=pictures, curves=curves)))
    assert len(text.encode()) <= 3_000_000
    assert len(read.of("tr")) == 1 + 1000
    [png] = [attrs["src"] or "" for tag, attrs in read.tags if tag == "img"]
    assert b64decode(png.partition(",")[2]) == b"small picture"
    [note] = [one for one in read.of("p") if one.startswith("Left out")]
    assert note.endswith(": the ranking's rows below line 1000; the picture larger; the picture large.")


@pytest.mark.fast
def test_what_is_left_out_is_said() -> None:
    text = page(replace(sweep(3), patch="+" * 4_000_000))
    assert "Left out, to keep this page small: the picture small; the changes of the code." in text
    assert 'id="patch"' not in text
    whole = sweep(40)
    text = page(replace(whole, commands=["x" * 100_000] * 41))
    assert len(text.encode()) <= 3_000_000
    assert "the ranking&#x27;s rows below line 20" in text
    assert len(Read(text).of("tr")) == 21
    assert "Left out" not in page(whole)


@pytest.mark.fast
def test_curves_go_up_with_their_values_and_have_gaps() -> None:
    curves = [curve("best", 0.5, 0.75, 1.0), curve("gap", 0.6, float("nan"), 0.7, float("inf")), curve("one", 0.5)]
    read = Read(page(replace(sweep(1), curves=curves)))
    tags = read.tags
    drawn = [attrs["d"] or "" for tag, attrs in tags if tag == "path" and attrs["class"] == "line"]
    one, gap, best = (path for path in drawn if path != "M2 6H34")
    places = [tuple(map(int, point.split())) for point in best.removeprefix("M").replace("h0", "").split("L")]
    assert [x for x, _ in places] == [0, 333, 667]
    assert places[0][1] - places[1][1] == pytest.approx(places[1][1] - places[2][1], abs=1)
    assert places[0][1] > places[1][1] > 0
    ticks = {
        text: float((attrs["y"] or "").rstrip("%"))
        for (tag, attrs), (text, *_) in zip(tags, (one or [""] for one in read.texts), strict=True)
        if tag == "text" and attrs.get("x") == "-10"
    }
    assert ticks["0.5"] == pytest.approx(places[0][1] / 10, abs=0.1)
    assert ticks["1.0"] == pytest.approx(places[2][1] / 10, abs=0.1)
    assert re.fullmatch(r"M0 \d+h0M667 \d+h0", gap)
    assert re.fullmatch(r"M0 \d+h0", one)


@pytest.mark.fast
def test_a_curve_that_diverged_does_not_flatten_the_others() -> None:
    curves = [curve(str(row), 0.5, 0.9, spread=0.1) for row in range(8)]
    for diverged in (1e6, -1e6, 1e308):
        drawn = page(replace(sweep(1), curves=[*curves, curve("diverged", 0.5, diverged)]))
        heights = [int(y) for y in re.findall(r'class="line" d="M0 (\d+)h0L1000', drawn)]
        ends = [int(y) for y in re.findall(r'class="line" d="M0 \d+h0L1000 (\d+)"', drawn)]
        assert all(start - end > 250 for start, end in zip(heights, ends, strict=True))
        assert len(ends) == 8
        assert "all others" in drawn


@pytest.mark.fast
def test_what_is_empty_has_no_part() -> None:
    bare = replace(sweep(1), curves=[], importance={}, varied={}, fixed={}, facts={}, pictures={}, patch="", verdict=[])
    assert [attrs["id"] for tag, attrs in Read(page(bare)).tags if tag == "section"] == ["ranking"]
    assert 'id="curves"' not in page(replace(bare, curves=[curve("failed", float("nan"))]))


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
@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")])
def test_it_fits_the_screen_and_is_quiet(
    browser: "Browser", width: int, theme: Literal["light", "dark"], paper: str
) -> None:
    for report in (sweep(40), hostile()):
        shown, heard = opened(browser, page(report), viewport={"width": width, "height": 900}, color_scheme=theme)
        shown.locator("summary").evaluate_all("all => all.forEach(summary => summary.click())")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        assert shown.evaluate("window.ran") is None
        assert heard == []


@in_browser
def test_a_header_sorts_by_number_and_back(browser: "Browser") -> None:
    shown, _ = opened(browser, page(sweep(12)))

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
    shown, _ = opened(browser, page(report), permissions=["clipboard-read", "clipboard-write"])
    shown.get_by_role("row").nth(2).get_by_role("button", name="copy").click()
    shown.get_by_role("button", name="copied").wait_for()
    assert shown.evaluate("navigator.clipboard.readText()") == report.commands[1]


@in_browser
def test_it_needs_no_script(browser: "Browser") -> None:
    report = sweep(3)
    shown, _ = opened(browser, page(report), java_script_enabled=False)
    assert shown.get_by_role("button").count() == 0
    shown.get_by_role("row").nth(1).get_by_text("show").click()
    shown.get_by_text(report.commands[0]).wait_for(state="visible")


@in_browser
def test_its_policy_runs_no_other_script(browser: "Browser") -> None:
    added = "<script>window.ran = true</script><img src=x onerror=window.ran=true></body>"
    shown, heard = opened(browser, page(sweep(1)).replace("</body>", added))
    assert shown.evaluate("window.ran") is None
    assert any("Content Security Policy" in one for one in heard)
