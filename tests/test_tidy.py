"""Old runs and sweeps are removed with all that belongs to them, and nothing else is."""

import shutil
from pathlib import Path

import pytest

from mnist_exp import run
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder, Mirrored, from_here

from .conftest import QUICK, in_process, runs_in, store


def tidy(*typed: str, cwd: Path) -> list[str]:
    """Remove without asking, and return what stays."""
    done = in_process(*typed, "--yes", cwd=cwd, module="mnist_exp.tidy")
    kept = done.stderr.splitlines()
    assert done.returncode == ("Removed " not in done.stdout)
    return kept if done.returncode == 0 else kept[:-1]


def test_what_others_need_stays_and_the_rest_goes_with_its_runs_and_artifacts(tmp_path: Path) -> None:
    counted, registered, old = (
        run(*QUICK, *typed, verbose=0) for typed in (["seed=1"], ["seed=2", "tracking.register=digits"], ["seed=3"])
    )
    done = in_process("-m", *QUICK, "seed=1,4", "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [sweep] = (path.parent for path in tmp_path.glob("multirun/*/*/run.json"))
    assert set(tidy("outputs", cwd=tmp_path)) == {
        f"{from_here(counted.output)} stays: {from_here(sweep)} counts its jobs",
        f"{from_here(registered.output)} stays: its model is registered as digits",
    }
    assert counted.output.exists()
    assert registered.output.exists()
    assert not old.output.exists()
    client = store(tmp_path)
    assert client.get_run(str(old.run_id)).info.lifecycle_stage == "deleted"
    assert not list(tmp_path.glob(f"mlruns/**/{old.run_id}/artifacts/*"))
    models = client.search_logged_models([runs_in(tmp_path)[0].info.experiment_id])
    assert {counted.run_id, registered.run_id} <= {model.source_run_id for model in models} - {old.run_id}
    assert len(models) == len(list(tmp_path.glob("mlruns/models/*/artifacts/MLmodel")))
    tidy("--older", "0", cwd=tmp_path)
    assert [one.info.run_id for one in runs_in(tmp_path)] == [registered.run_id]
    assert [path.parent for path in tmp_path.rglob("run.json")] == [registered.output]
    assert (registered.output / "model.keras").exists()


def test_what_runs_or_is_not_the_folders_own_stays(tmp_path: Path) -> None:
    runs, stranger, shown = (run(*QUICK, f"seed={seed}", verbose=0) for seed in (1, 2, 3))
    shutil.copytree(shown.output, tmp_path / "mine")
    Folder(runs.output).change(status="RUNNING", **locks.hold(runs.output))
    mirrored = Folder(stranger.output).mirrored()
    assert mirrored is not None
    Folder(stranger.output).write_mirrored(Mirrored(mirrored.store, str(shown.run_id)))
    listed = in_process(cwd=tmp_path, module="mnist_exp.tidy")
    assert listed.returncode == 0
    assert max(map(len, listed.stdout.splitlines())) <= 80
    for typed in ((), ("--older", "1", "--yes")):
        done = in_process("outputs", *typed, cwd=tmp_path, module="mnist_exp.tidy")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("nothing ")
        assert len(runs_in(tmp_path)) == 3
    assert set(tidy("outputs", cwd=tmp_path)) == {
        f"{from_here(runs.output)} stays: it runs",
        f"{from_here(stranger.output)} stays: run {shown.run_id} is that of another folder",
    }
    locks.release(runs.output)
    assert tidy("mine", cwd=tmp_path) == ["mine stays: it is not below outputs or multirun, and may hold other files"]
    assert {path.parent for path in tmp_path.rglob("run.json")} == {runs.output, stranger.output, tmp_path / "mine"}


@pytest.mark.fast
def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    done = in_process("nowhere", cwd=tmp_path, module="mnist_exp.tidy")
    assert (done.returncode, done.stderr) == (
        1,
        f"{tmp_path}/nowhere: no such folder; type that of a run or a sweep, or one above\n",
    )
