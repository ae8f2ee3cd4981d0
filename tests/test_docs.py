"""README and docs/ tell the truth: their commands are run, and what is shown below a command is what it prints.

In a block of `console`, a line that starts with `$ ` is a command, and what follows is its output: `...` stands for
anything, a number with two decimals or more may be off by 0.02, and durations, among them numbers with one decimal, may
be any. A command that fails must be shown with its message; one that shows nothing trains on few images. A block of
`bash` or `python` runs and succeeds; one of `yaml` or `python` with the name of a file beside it is written to that
file. A page is read from top to bottom in one folder that has `docs/` in it, like a checkout. RUN_ID is the last run
that the page has printed, SWEEP_ID the last sweep.
"""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from mnist_exp.config import CONF
from mnist_exp.data.datasets import Data
from mnist_exp.data.sources import Dataset, sources
from mnist_exp.training.families import FAMILIES, Model

from .conftest import alone_with_ray, in_process, installed

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What no page's test runs, and where it is run instead.
ELSEWHERE = {
    "python3 -m venv": "test_the_first_commands_of_the_readme",
    "pip install": "test_the_first_commands_of_the_readme, .ci/run",
    "uv ": "test_the_first_commands_of_the_readme",
    "python -m tests.benchmarks": "takes an hour and a half",
    "pytest": ".ci/run",
    ".ci/run": ".ci/run",
}
# What a command needs that a plain installation does not bring.
EXTRAS = {
    "launcher=joblib": "hydra-joblib-launcher",
    "launcher=ray": "hydra-ray-launcher",
    "launcher=submitit": "hydra-submitit-launcher",
    "sweep=optuna": "optuna",
    "sweep=random": "optuna",
    "prune=": "optuna",
    "fashion_mnist": "a network",
}
# What goes on until it is stopped; each is on one page, so that two never want the same port.
SERVERS = ("mlflow ui", "export MLFLOW_TRACKING_URI=sqlite:///mlflow.db\nmlflow models serve")
# What a process of this test's cannot do: another program or backend, other processes, what only a shell understands.
ELSEWHERE_THAN_HERE = re.compile(r"^(?!python -m mnist_exp)|[|;&<>`$*]|jax|stacked|launcher=", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A command, what is shown below it, the language of its block, and where it is.

    Of a file its text, its name, and `file` as the language.
    """

    text: str
    shown: str
    kind: str
    place: str


def commands_of(page: Path) -> list[Command]:
    """Return what the fenced blocks of a page hold, in its order."""
    found: list[Command] = []
    text = page.read_text()
    for block in re.finditer(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        language, beside, content = block.groups()
        place = f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}"
        assert language in {"console", "bash", "python", "yaml", "text"}, f"{place}: {language} is none of those"
        if language == "console":
            for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
                typed, _, shown = part.partition("\n")
                found.append(Command(typed, shown, "bash", place))
        elif language != "text":
            found.append(Command(content, beside, "file" if beside else language, place))
    return found


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def in_sentences() -> list[str]:
    """Return the whole commands that stand in sentences and tables, and that no page's block has."""
    whole = re.compile(r"`((?:python -m mnist_exp|mnist_exp |eval )[^`]*)`")
    spans = {" ".join(span.split()) for page in PAGES for span in whole.findall(prose_of(page))}
    in_blocks = {line for page in PAGES for command in commands_of(page) for line in command.text.splitlines()}
    return sorted(spans - in_blocks)


def shortened(text: str) -> str:
    """Return a command that trains with few images and one epoch, where it does not say otherwise."""
    if not re.match(r"python -m mnist_exp(?! .*--)( |$)", text):
        return text
    if "dataset" not in text:  # presets hold out 5,000 images, and sweeps 10,000
        text += " dataset.limit=" + ("12000" if "sweep=" in text or "experiment=" in text else "2000")
    if "training.epochs" not in text:
        text += " training.epochs=1"
    return text + " hydra.sweeper.max_jobs=9" * ("sweep=race" in text)  # its first round


class Reader:
    """Somebody who types commands one after the other in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""
        self.servers: list[subprocess.Popen[str]] = []
        (folder / "docs").symlink_to(ROOT / "docs")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}

    def type(self, command: Command) -> None:
        """Type one command, and compare what it prints with what is shown."""
        if command.kind == "file":
            file = self.folder / command.shown
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(command.text)
            return
        text = "\n".join(line for line in command.text.strip().replace("\\\n", "").splitlines() if runs_here(line))
        if not command.shown:
            text = "\n".join(map(shortened, text.splitlines()))
        for kind in ("Run", "Sweep"):
            if (name := f"{kind.upper()}_ID") in text:
                text = text.replace(name, self.last(kind))
        if text.startswith(SERVERS):
            self.serve(text)
            return
        if command.kind == "bash" and not ELSEWHERE_THAN_HERE.search(text):
            returncode, printed = self.run_here(text)
        else:
            program = [sys.executable, "-c"] if command.kind == "python" else ["bash", "-euo", "pipefail", "-c"]
            with alone_with_ray() if "launcher=ray" in text else nullcontext():
                returncode, printed = self.run([*program, text])
        self.printed += printed
        print(f"$ {text}\n{printed}")  # pytest shows it of a test that fails
        assert returncode == 0 or command.shown, f"{command.place}: {text}\n{printed}"
        if command.shown:
            assert_shown(command.shown, re.sub(r"\b[0-9a-f]{32}\b", "RUN_ID", printed), command.place)

    def run(self, arguments: list[str]) -> tuple[int, str]:
        """Run a program in a terminal; return its exit status, and what is to be read there at the end."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            arguments, cwd=self.folder, env=self.environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # Linux says so when no process writes any more
            while chunk := os.read(ours, 65536):
                printed += chunk
        os.close(ours)
        return process.wait(), as_read(printed.decode())

    def run_here(self, text: str) -> tuple[int, str]:
        """Run commands of this project, a line each, in this process; return what `run` does."""
        printed, returncode = "", 0
        for line in text.splitlines():
            module, *arguments = shlex.split(line)[2:]
            done = in_process(*arguments, cwd=self.folder, module=module, COLUMNS="80")
            printed += as_read(done.stdout + done.stderr)
            returncode = returncode or done.returncode
        return returncode, printed

    def last(self, kind: str) -> str:
        """Return the id of the last run or sweep that was printed."""
        return str(re.findall(rf"^{kind} ([0-9a-f]{{32}}) in", self.printed, re.MULTILINE)[-1])

    def serve(self, text: str) -> None:
        """Start a server, and wait until it answers."""
        server = subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.servers.append(server)
        assert server.stderr is not None
        assert any("Uvicorn running on" in line for line in server.stderr), text

    def leave(self) -> None:
        """Stop the servers."""
        for server in self.servers:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


def as_read(printed: str) -> str:
    """Return what is to be read at the end of what was printed on a terminal."""
    printed = re.sub(r"[^\n]*\n\x1b\[\?25h\r\x1b\[1A\x1b\[2K", "", printed)  # rich goes back and takes its bar away
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x08", "", printed).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def runs_here(line: str) -> bool:
    """Whether a command is run by the tests of this file, with what is installed."""
    return not line.startswith(tuple(ELSEWHERE)) and all(
        installed(extra) for word, extra in EXTRAS.items() if word in line
    )


def assert_shown(shown: str, printed: str, place: str) -> None:
    """Check that the lines that are shown are printed, in their order, and others only where `...` stands."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    at, anywhere = 0, False
    for wanted in (line.strip() for line in shown.splitlines() if line.strip()):
        if wanted == "...":
            anywhere = True
            continue
        found = [index for index in range(at, len(lines) if anywhere else at + 1) if same(wanted, lines[index:])]
        assert found, f"{place} shows\n{wanted}\nwhich is not printed after line {at} of\n{printed}"
        at, anywhere = found[0] + 1, False
    assert anywhere or at == len(lines), f"{place} does not show\n{lines[at:]}"


def same(wanted: str, lines: list[str]) -> bool:
    """Whether the first of `lines` says what is shown."""
    pattern, scores = "", []
    for token in re.findall(r"\.\.\.|\d+\.\d+ sec|\d+\.\d+|\d+m?s\b|\s+|━+|[^\s.\d━]+|.", wanted):
        if token == "..." or "━" in token:
            pattern += ".*"
        elif re.fullmatch(r"\d+\.\d|\d+\.\d+ sec|\d+m?s", token):
            pattern += r"[\d.]+(?: sec|[mu]?s)?"
        elif re.fullmatch(r"\d+\.\d+", token):
            pattern += r"([\d.]+(?:e-\d+)?)"
            scores.append(float(token))
        else:
            pattern += r"\s+" if token.isspace() else re.escape(token)
    found = re.fullmatch(pattern, lines[0]) if lines else None
    return found is not None and all(abs(float(a) - b) <= 0.02 for a, b in zip(found.groups(), scores, strict=True))


# The page in Japanese types what the English one does, which a test below compares.
@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if not page.name.endswith(".ja.md")]
)
def test_page_shows_the_output_of_its_commands(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for command in commands_of(page):
            reader.type(command)
    finally:
        reader.leave()


@pytest.mark.slow
@pytest.mark.parametrize("text", in_sentences())
def test_a_command_that_a_sentence_or_table_names_runs(text: str, tmp_path: Path) -> None:
    if not runs_here(text):
        pytest.skip("needs an extra")
    reader = Reader(tmp_path)
    if ".compare" in text or "RUN_ID" in text:
        reader.type(Command("python -m mnist_exp", "", "bash", "a run to start from"))
    reader.type(Command(text, "", "bash", "a sentence"))


FIRST = """\
python3 -m venv .venv && source .venv/bin/activate
pip install -e . && python -m mnist_exp
"""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout, to clone it")
@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(".ci/environment .venv -e . && .venv/bin/python -m mnist_exp", marks=pytest.mark.slow, id="uv"),
        pytest.param(FIRST, marks=pytest.mark.release, id="pip"),
    ],
)
def test_the_first_commands_of_the_readme(tmp_path: Path, typed: str) -> None:
    assert commands_of(PAGES[0])[0].text.startswith(FIRST)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    bash = ["bash", "-euo", "pipefail", "-c", typed]
    done = subprocess.run(bash, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "TEST accuracy: 0.89" in done.stdout


@pytest.mark.fast
@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    prose = prose_of(page)
    assert not re.search(r"^    \S", prose, re.MULTILINE), "an indented block would not be run"
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        if link.startswith(("http://127.0.0.1", "https://")):
            continue  # a command of the page serves the first, and tests run offline
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", found).lower().replace(" ", "-") for found in headings}, link


@pytest.mark.fast
def test_every_extra_that_a_page_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for page in PAGES for extra in re.findall(r"pip install -e '\.\[(\w+)\]'", page.read_text())}
    assert {"jax", "joblib", "optuna", "ray", "slurm", "test"} <= named <= set(extras)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("page", "classes", "shared"), [("models.md", FAMILIES, Model), ("data.md", sources(), Dataset)]
)
def test_the_table_of_a_group_has_its_choices_with_their_keys(page: str, classes: Sequence[type], shared: type) -> None:
    group = shared.__name__.lower()
    text = (ROOT / "docs" / page).read_text()
    rows = re.split(r"\n\n", text[text.index(f"| `{group}=` |") :])[0].splitlines()[2:]
    cells = [row.strip("|").split("|") for row in rows]
    shown = {name.strip(" `"): set(re.findall(r"`(\w+)`", keys)) for name, _, keys in cells}
    kinds = {part: get_args(get_type_hints(part)["kind"])[0] for part in classes}
    both = {field.name for field in fields(shared)}
    assert shown == {kind: {field.name for field in fields(part)} - both for part, kind in kinds.items()}
    in_conf = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert in_conf == set(kinds.values())


@pytest.mark.fast
def test_both_languages_type_the_same() -> None:
    english, japanese = (commands_of(ROOT / "docs" / name) for name in ("first-steps.md", "first-steps.ja.md"))
    assert [(c.text, c.shown) for c in english] == [(c.text, c.shown) for c in japanese]


def test_a_source_of_images_is_one_class_and_one_yaml_file(tmp_path: Path, mnist: Data) -> None:
    for name in ("mnist_exp", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    example = (ROOT / "docs" / "extending.md").read_text().split("## A dataset, for example")[1]
    with (tmp_path / "mnist_exp" / "data" / "sources.py").open("a") as code:
        code.write("\n\n".join(re.findall(r"```text\n(.*?)```", example, re.DOTALL)))
    text = (tmp_path / "conf" / "dataset" / "idx.yaml").read_text()
    (tmp_path / "conf" / "dataset" / "npy.yaml").write_text(text.replace("kind: idx", "kind: npy"))
    (tmp_path / "digits").mkdir()
    for part in ("x_train", "y_train", "x_test", "y_test"):
        np.save(tmp_path / f"digits/{part}.npy", getattr(mnist, part)[:200])
    command = [sys.executable, "-m", "mnist_exp.show", "dataset=npy", "dataset.path=digits", "--save", "saved.npz"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    with np.load(tmp_path / "saved.npz") as file:
        assert file["x_train"].shape == (200, 28, 28)
