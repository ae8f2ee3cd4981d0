"""A run's folder may come from a stranger: nothing outside it is changed or sent, and each failure is one line."""

import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_exp.config.files import BEFORE_A_RECORD, MODEL_FILES, copy_files
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

from .conftest import Terminal, in_process

pytestmark = pytest.mark.slow

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"
ENDED = Record("theirs", {"mnist_exp.own_code": "mine.py 0123456789ab"}, status="FINISHED", end=1, id="a" * 32)
NAMES = sorted({*ENDED.own_files(), *(name.rstrip("/") for name in BEFORE_A_RECORD), ".run.json.new", ".new-model"})


def state(folder: Path) -> dict[str, object]:
    """Return all that is below a folder, without following a link."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if stat.S_ISREG(mode := path.lstat().st_mode) else mode
        for path in [folder, *folder.rglob("*")]
    }


def mine(folder: Path) -> Path:
    """Make a folder with a file of one's own, which no command may touch."""
    (folder / "mine").mkdir(parents=True)
    (folder / "mine/key").write_text(SECRET)
    return folder / "mine"


def check(folder: Path, *typed: str, module: str) -> str:
    """Type a command, which leaves what is mine as it is; return what it says on standard error."""
    before = state(folder / "mine")
    done = in_process(*typed, cwd=folder, module=f"mnist_exp.{module}" if module else "mnist_exp")
    assert state(folder / "mine") == before
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    sent = [path for path in folder.glob("mlruns/**/*") if path.is_file()]
    assert all(path.stat().st_size < 2e9 and SECRET.encode() not in path.read_bytes() for path in sent)
    return done.stderr


@pytest.mark.parametrize("name", ["run.log", "config.yaml", "figures/curves.png", "code/mine.py", "model/conda.yaml"])
def test_no_file_that_a_link_leads_to_is_sent(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "outputs/theirs")
    folder.write(ENDED)
    for model in ("model/MLmodel", "model/weights"):
        (folder.path / model).parent.mkdir(exist_ok=True)
        (folder.path / model).write_text("flavors: {}\n")
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).symlink_to(mine(tmp_path) / "key")
    said = check(tmp_path, "outputs", module="sync")
    assert f"outputs/theirs/{name}: is a link; must be a file" in said
    assert len(said.splitlines()) == 1


def test_no_lock_is_asked_for_through_a_link(tmp_path: Path) -> None:
    theirs = Folder(tmp_path / "outputs/theirs")
    theirs.write(replace(ENDED, status="RUNNING", end=None))
    (theirs.path / "run.lock").symlink_to(mine(tmp_path) / "new")
    assert check(tmp_path, module="tidy") == ""
    assert theirs.read().status == "RUNNING"


def test_no_name_in_a_record_leads_out_of_the_folder(tmp_path: Path) -> None:
    victim = mine(tmp_path)
    code = {"mnist_exp.own_code": f"../../..{victim}/mine.py 0123456789ab"}
    Folder(tmp_path / "outputs/theirs").write(replace(ENDED, tags=code))
    (tmp_path / f"outputs/theirs/code{victim}").mkdir(parents=True)
    (tmp_path / f"outputs/theirs/code{victim}/mine.py").write_text("theirs")
    assert check(tmp_path, "outputs", module="sync") == ""
    with pytest.raises(InputError, match="is outside"):
        copy_files(tmp_path / "outputs", ["../mine/key"], tmp_path / "copies")


def test_tidy_keeps_a_run_above_removed_folders(tmp_path: Path) -> None:
    mine(tmp_path)
    for place in ("outputs", "outputs/day/run"):
        Folder(tmp_path / place).write(replace(ENDED, id=("b" if place == "outputs" else "a") * 32))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "outputs/paper.tex").write_text("mine")
    (tmp_path / "outputs/day/run/notes.txt").write_text("mine")
    assert check(tmp_path, "loop", module="tidy").endswith(
        "loop: must be a folder in outputs or multirun, in the current folder\n"
    )
    said = check(tmp_path, "--older", "30", "--yes", module="tidy")
    assert said.splitlines() == [
        "outputs stays: other runs lie in it",
        "outputs/day/run/notes.txt stays: no run writes a file of that name",
    ]
    assert {path.as_posix() for path in Path("outputs").rglob("*") if path.is_file()} == {
        *("outputs/run.json", "outputs/paper.tex", "outputs/day/run/notes.txt")
    }


def test_tidy_keeps_a_folder_that_is_moved_while_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (victim := mine(tmp_path) / "outputs/day/run").mkdir(parents=True)
    Folder(victim).write(ENDED)
    Folder(tmp_path / "outputs/day/run").write(ENDED)

    class Moving(Terminal):
        def readline(self, *_: object) -> str:  # type: ignore[override]
            (tmp_path / "outputs/day").rename(tmp_path / "away")
            (tmp_path / "outputs/day").symlink_to(victim.parent)
            return "y\n"

    monkeypatch.setattr("sys.stdin", Moving())
    assert "has changed meanwhile; type the command again" in check(tmp_path, "outputs/day", module="tidy")
    assert (tmp_path / "away/run/run.json").exists()


VALUES: st.SearchStrategy[object] = st.sampled_from(
    [10**400, -1, 1.5, None, "", "x" * 300, "/dev/zero", "..", [], {}, ["a"], True, "\ud800", "\0"]
)
RECORDS = st.builds(
    lambda key, value: json.dumps(asdict(ENDED) | {key: value}),
    st.sampled_from([*asdict(ENDED), "other"]),
    VALUES
    | st.just("RUNNING")
    | st.dictionaries(st.sampled_from(["mnist_exp.sweep", "mnist_exp.output", "a"]), VALUES),
)
TEXTS = st.sampled_from(["", "{}", "[" * 100_000, '{"step": 1}\n', "\0\xff", '{"store": "a", "run_id": ["b"]}'])
KINDS = st.sampled_from(["file", "link", "link to a folder", "link to nothing", "pipe", "folder", "large"])


@given(
    record=st.just(json.dumps(asdict(ENDED))) | RECORDS | TEXTS,
    entries=st.dictionaries(st.sampled_from([*NAMES, "mine.txt", "0/run.json"]), st.tuples(KINDS, TEXTS), max_size=5),
)
@settings(max_examples=12, deadline=None)
def test_no_folder_leads_out_of_itself(
    tmp_path_factory: pytest.TempPathFactory, record: str, entries: dict[str, tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("root")
    key, folder = mine(root) / "key", root / "outputs/theirs"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(record, "utf-8", "surrogatepass")
    for name, (kind, text) in entries.items():
        path = folder / name
        if any(above.exists() and not above.is_dir() for above in path.parents) or os.path.lexists(path):
            continue
        if key.parent in path.parent.resolve().parents or path.parent.resolve() == key.parent:
            continue  # below a link to what is mine
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "file":
                path.write_text(text)
            case "link":
                path.symlink_to(key)
            case "link to a folder":
                path.symlink_to(key.parent)
            case "link to nothing":
                path.symlink_to(key.with_name("new"))
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "large":
                with path.open("wb") as file:
                    file.truncate(3_000_000_000)
    check(root, module="tidy")
    check(root, "outputs", module="sync")
    check(root, "hydra.run.dir=outputs/theirs", "dataset=npz", "dataset.path=none.npz", "tracking=none", module="")
    check(root, "outputs", "--yes", module="tidy")


def test_model_files_equal_mlflows(quick_folder: Path) -> None:
    written = {
        path.relative_to(model).as_posix()
        for model in quick_folder.glob("mlruns/models/*/artifacts")
        for path in model.rglob("*")
        if path.is_file()
    }
    assert written
    assert written <= set(MODEL_FILES)
