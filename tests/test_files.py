"""Files are opened, replaced and removed without a link that is followed, a pipe that is waited for, or a rest."""

import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_exp import commands
from mnist_exp.config.files import no_link, open_file, remove_files, replacing, write_text
from mnist_exp.errors import InputError
from mnist_exp.figures import ImageGrid, save, write

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "must be a file; is a pipe, a socket or a device"),
        ("socket", "must be a file; is a pipe, a socket or a device"),
        ("device", "must be a file; is a pipe, a socket or a device"),
        ("folder", "must be a file; is a folder"),
        ("large", "has 11 bytes; must have at most 10"),
        ("missing", "no such file"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("null\0", "embedded null "),
    ],
)
def test_open_file_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = Path(kind)
    with socket.socket(socket.AF_UNIX) as opened:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                opened.bind(str(path))
            case "device":
                path.symlink_to("/dev/zero")
            case "folder":
                path.mkdir()
            case "large":
                path.write_bytes(b"x" * 11)
            case "loop":
                path.symlink_to(path)
        with pytest.raises(InputError, match=re.escape(message)):
            open_file(path, most=10)


@pytest.mark.parametrize("linked", ["run.json", "figures", "."])
def test_no_link_in_a_runs_folder_is_opened(tmp_path: Path, linked: str) -> None:
    (tmp_path / "mine/figures").mkdir(parents=True)
    for name in ("run.json", "figures/curves.png"):
        (tmp_path / "mine" / name).write_text("{}")
    folder = tmp_path / "there"
    if linked == ".":
        folder.symlink_to("mine")
    else:
        folder.mkdir()
        (folder / linked).symlink_to(tmp_path / "mine" / linked)
    name = "figures/curves.png" if linked == "figures" else "run.json"
    with pytest.raises(InputError, match="is a link; must be a file"):
        open_file(folder / name, folder=folder)
    open_file(folder / name).close()
    (tmp_path / "link").symlink_to("mine")  # above a run's folder there may be one
    open_file(tmp_path / "link/figures/curves.png", folder=tmp_path / "link/figures").close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path, victim = tmp_path / "run.json", tmp_path / "victim"
    victim.write_text("mine")
    path.symlink_to("victim")
    write_text(path, "first \ud800")
    assert (path.is_symlink(), path.read_text(), victim.read_text()) == (False, "first \\ud800", "mine")
    with pytest.raises(NotADirectoryError), replacing(path) as new:
        new.rmdir()
    assert path.read_text() == "first \\ud800"
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "victim"}
    assert path.stat().st_mode == victim.stat().st_mode
    victim.unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "folder", "text")
    assert caught.value.filename == str(tmp_path / "folder")


def test_appending_refuses_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            no_link(tmp_path / name, os.O_WRONLY | os.O_CREAT)
    assert not (tmp_path / "victim").exists()


def test_files_are_removed_by_name_and_folders_if_empty(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim/run.json", tmp_path / "there"
    names = {"run.json", "figures/a.png", ".hydra/deep/x.yaml", f".new-{'a' * 32}.png", "model-3.5.keras", "mine/note"}
    for path in (victim, *(folder / name for name in names)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "run.log").symlink_to("../victim/run.json")
    (folder / "model").symlink_to("../victim")
    chosen = {"run.json", "run.log", "figures/a.png", "model/run.json", ".hydra/", "model-{epoch}.keras"}
    assert remove_files(folder, chosen) == [folder / "mine/note"]
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "model"]
    assert remove_files(folder / "model", chosen) == []  # it is a link
    assert victim.exists()
    assert remove_files(victim.parent, chosen) == []
    assert not victim.parent.exists()


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_plot_replaces_only_figures_of_this_program(tmp_path: Path, suffix: str) -> None:
    figure = Figure()
    figure.subplots()
    ours, theirs = (tmp_path / f"{name}{suffix}" for name in ("ours", "theirs"))
    commands.check_plot(ours)
    write(figure, ours)
    commands.check_plot(ours)
    figure.savefig(theirs)
    with pytest.raises(InputError, match=rf"--plot .*theirs{suffix}: was not drawn by this program; choose another"):
        commands.check_plot(theirs)
    with pytest.raises(InputError, match="File name too long"):
        commands.check_plot(tmp_path / f"{'x' * 300}{suffix}")


def test_a_sheet_of_images_is_known_as_drawn_here(tmp_path: Path) -> None:
    save({"seen": ImageGrid(np.zeros((1, 28, 28)), ["0"], "seen", 2)}, tmp_path)
    commands.check_drawn(tmp_path / "seen.png", "--output")
