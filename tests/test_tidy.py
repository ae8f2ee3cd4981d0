"""Old runs and sweeps are removed with all that belongs to them, and nothing else is."""

import shutil
from pathlib import Path

import pytest

from mnist_exp import run
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder, Mirrored, relative_path

from .conftest import QUICK, Terminal, in_process, runs_in, store

pytestmark = pytest.mark.slow

NOTHING = "nothing to remove: no other run or sweep is"


def tidy(*typed: str, cwd: Path) -> list[str]:
    """Type a command, and return what it says on standard error."""
    done = in_process(*typed, cwd=cwd, module="mnist_exp.tidy")
    assert done.returncode == ("Removed " not in done.stdout), done.stderr
    return done.stderr.splitlines()


def test_tidy_keeps_runs_that_others_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, registered, old = (
        run(*QUICK, *typed, verbose=0) for typed in (["seed=1"], ["seed=2", "tracking.register=digits"], ["seed=3"])
    )
    done = in_process("-m", *QUICK, "seed=1,4", "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "multirun").rename(tmp_path / "elsewhere")
    (tmp_path / "multirun").symlink_to("elsewhere")
    [sweep] = (path.parent for path in tmp_path.glob("elsewhere/*/*/run.json"))
    stays = [
        f"{relative_path(counted.output)} stays: it counts in {relative_path(sweep)}",
        f"{relative_path(registered.output)} stays: its model is registered as digits",
    ]
    asked = "nothing was removed, as nobody can be asked; --yes removes it"
    assert sorted(tidy("outputs", cwd=tmp_path)) == sorted([*stays, asked])
    for answer, said in (("", ["nothing was removed"]), ("no\n", ["nothing was removed"]), ("y\n", [])):
        assert old.output.exists()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert sorted(tidy("outputs", cwd=tmp_path)) == sorted([*stays, *said])
    assert not old.output.exists()
    client = store(tmp_path)
    assert client.get_run(str(old.run_id)).info.lifecycle_stage == "deleted"
    assert not list(tmp_path.glob(f"mlruns/**/{old.run_id}/artifacts/*"))
    models = client.search_logged_models([runs_in(tmp_path)[0].info.experiment_id])
    assert {counted.run_id, registered.run_id} <= {model.source_run_id for model in models}
    assert old.run_id not in {model.source_run_id for model in models}
    assert len(models) == len(list(tmp_path.glob("mlruns/models/*/artifacts/MLmodel")))
    job = str(next(sweep.glob("1")))
    assert tidy(job, "--yes", cwd=tmp_path) == [f"{NOTHING} in {job}"], "a job goes with its sweep"
    tidy("--older", "0", "--yes", cwd=tmp_path)
    assert [run.info.run_id for run in runs_in(tmp_path)] == [registered.run_id]
    assert [path.parent for path in tmp_path.rglob("run.json")] == [registered.output]
    assert (registered.output / "model.keras").exists()


def test_tidy_keeps_active_runs_and_foreign_files(tmp_path: Path) -> None:
    runs, stranger, shown = (run(*QUICK, f"seed={seed}", verbose=0) for seed in (1, 2, 3))
    shutil.copytree(shown.output, tmp_path / "outputs" / "copy")
    Folder(runs.output).change(status="RUNNING")
    locks.hold(runs.output)
    [address] = Folder(stranger.output).mirrors()
    Folder(stranger.output).write_mirrored(address, Mirrored(str(shown.run_id)))
    listed = in_process(cwd=tmp_path, module="mnist_exp.tidy")
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) == 7
    assert max(map(len, listed.stdout.splitlines())) <= 80
    assert tidy("--older", "1", "--yes", cwd=tmp_path) == [f"{NOTHING} that old"]
    assert set(tidy("--older", "0", "--yes", cwd=tmp_path)) == {
        f"{relative_path(runs.output)} stays: it runs",
        f"{relative_path(stranger.output)} stays: run {shown.run_id} is that of another folder",
        f"{relative_path(shown.output)} stays: another folder is a copy",
        "outputs/copy stays: another folder is a copy",
        f"{NOTHING} that old",
    }
    locks.release(runs.output)
    assert len(list(tmp_path.glob("outputs/**/model.keras"))) == 4
    assert len(runs_in(tmp_path)) == 3


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("outputs/../mine", "outputs/../mine: must be a folder in outputs or multirun, in the current folder"),
        ("--older=-1", "--older -1: must be a number of days, such as 30"),
        ("--older=nan", "--older nan: must be a number of days, such as 30"),
    ],
)
def test_unremovable_file_is_one_message(tmp_path: Path, typed: str, message: str) -> None:
    (tmp_path / "outputs").mkdir()
    assert tidy(typed, "--yes", cwd=tmp_path) == [message]
