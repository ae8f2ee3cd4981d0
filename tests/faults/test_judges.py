"""What a command may not do when its store or its disk is away is counted."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record

from . import damages, disks, outages
from .table import Lacks
from .watched import Watched, watch

pytestmark = pytest.mark.fast

RUN = [(0.0, "Epoch 20/20"), (1.0, "TEST accuracy: 0.9000")]
SWEEP = [(0.0, "4 jobs: seed=0,1,2,3"), (1.0, "1        0.8773  0.0022  4     0.5099")]


def ended(code: int | None = 0, out: Any = RUN, err: tuple[str, ...] = (), end: float = 31.0) -> Watched:
    """Return a command that has ended, after 30 s of waiting."""
    process = subprocess.Popen(["true"], text=True)
    process.wait()
    return Watched(process, out, [(0.0, line) for line in err], code, end)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (ended(), 0),
        (ended(out=SWEEP), 0),
        (ended(code=None), 1),
        (ended(code=1), 1),
        (ended(err=("Traceback (most recent call last):", "ValueError")), 1),
        (ended(err=("Traceback (most recent call last):", *["  File"] * 90)), 1),
        (ended(out=RUN[:1]), 1),
        (ended(out=SWEEP[:1]), 1),
        (ended(end=100.0), 1),
    ],
)
def test_a_command_whose_store_was_away(command: Watched, wrong: int) -> None:
    lacks = Lacks()
    outages.judge(command, lacks)
    assert lacks.counts["wrong"] == wrong, lacks.notes


@pytest.mark.parametrize(
    ("command", "of_the_store", "moment", "wrong"),
    [
        (ended(), True, "in training", 0),
        (ended(err=("one",)), True, "in training", 0),
        (ended(err=("one", "two")), True, "in training", 1),
        (ended(1, err=("one",)), True, "in training", 1),
        (ended(1, err=("one",)), False, "in training", 0),
        (ended(1), False, "in training", 1),
        (ended(2, err=("one",)), False, "in training", 1),
        (ended(1, RUN[:1], ("one",)), False, "in training", 1),
        (ended(1, [], ("one",)), False, "in training", 0),
        (ended(1, [], ("one",)), True, "before the start", 0),
        (ended(1, [], ("one", "two")), True, "before the start", 2),
        (ended(None), True, "in training", 1),
        (ended(1, [], ("Traceback (most recent call last):", "Traceback")), False, "in training", 2),
    ],
)
def test_a_command_whose_disk_failed(
    tmp_path: Path, command: Watched, of_the_store: bool, moment: str, wrong: int
) -> None:
    lacks, damage = Lacks(), damages.Damage(damages.nothing, damages.nothing, (), of_the_store=of_the_store)
    disks.judge(command, tmp_path, lacks, damage, moment)
    assert lacks.counts["wrong"] == wrong, lacks.notes


def test_each_job_that_failed_has_a_message(tmp_path: Path) -> None:
    for number in range(2):
        folder = Folder(tmp_path / "multirun" / "day" / "time" / str(number))
        folder.begin(Record("job", {}))
        folder.end("FAILED")
    lacks, damage = Lacks(), damages.Damage(damages.nothing, damages.nothing, ())
    disks.judge(ended(1, [], ("one", "two", "three")), tmp_path, lacks, damage, "in training")
    assert not lacks.counts
    disks.judge(ended(1, [], ("one", "two", "three", "four")), tmp_path, lacks, damage, "in training")
    assert lacks.counts["wrong"] == 1


def test_a_command_that_has_trained_was_not_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "outputs" / "day" / "time")
    folder.begin(Record("run", {}))
    folder.measure(1, {"loss": 1.0})
    lacks, damage = Lacks(), damages.Damage(damages.nothing, damages.nothing, (), of_the_store=True)
    disks.judge(ended(1, RUN[:1], ("one",)), tmp_path, lacks, damage, "before the start")
    assert lacks.counts["wrong"] == 2  # the exit code, and no scores


def test_a_command_is_watched(tmp_path: Path) -> None:
    acted: list[Watched] = []
    seen = watch("model.hiden=3", cwd=tmp_path, moment=lambda _: True, act=acted.append)
    assert acted == [seen]
    assert seen.code == 1
    assert len(seen.messages()) == 1
    assert "hiden" in seen.messages()[0]
    assert seen.end >= seen.err[0][0]


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    assert watch("--help", cwd=tmp_path, limit=0.0).code is None


def test_every_damage_has_its_turn() -> None:
    found = list(damages.cases())
    assert len(set(found)) == len(found) == 43
    assert {name for name, _, _ in found[: len(damages.FAULTS)]} == damages.FAULTS.keys()
