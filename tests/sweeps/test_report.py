"""The report of a real sweep: left when it ends, however it ends."""

import html
import re
import shlex
import signal
from pathlib import Path

import pytest

from mnist_exp.tracking.folder import Folder

from ..conftest import (
    SIX,
    artifacts,
    in_process,
    start,
    store,
    sweep_in,
    wait_for_line,
    wait_until_an_epoch_is_recorded,
)


def page_in(folder: Path) -> str:
    [found] = folder.glob("multirun/*/*/report.html")
    return found.read_text()


def commands(page: str) -> list[str]:
    found = re.findall(r'<td class="command">.*?<code>(.*?)</code>', page)
    return [html.unescape(text) for text in found]


def test_each_sweep_keeps_its_report(sweep_folder: Path) -> None:
    parent, jobs = sweep_in(sweep_folder)
    assert "report.html" in artifacts(store(sweep_folder), parent.info.run_id)
    page = page_in(sweep_folder)
    assert f"Sweep {parent.info.run_id[:8]}: 6 jobs, largest val_accuracy first" in page
    for job in jobs:
        assert f"{job.data.metrics['objective']:.4f}" in page
    assert Folder(sweep_folder / jobs[0].data.tags["mnist_exp.output"]).read().digest in page
    assert parent.data.tags["mnist_exp.packages"] in page
    assert page.count("<svg ") == 2
    for text in ("1  hidden=64 activation=relu, n=1", ">activation<"):
        assert text in page
    assert len(page.encode()) < 3_000_000


def test_command_of_a_row_repeats_the_run(sweep_folder: Path, tmp_path: Path) -> None:
    first, *_ = commands(page_in(sweep_folder))
    assert first == f"python -m mnist_exp {' '.join(SIX[2:])} model.hidden=64 model.activation=relu"
    done = in_process(*shlex.split(first)[3:], "tracking=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [repeated] = tmp_path.glob("outputs/*/*/run.json")
    scores = Folder(repeated.parent).read().scores
    parent, _ = sweep_in(sweep_folder)
    assert abs(scores["objective"] - parent.data.metrics["objective"]) < 0.01  # with another number of threads


def test_seeds_are_in_the_command_of_their_row(tmp_path: Path) -> None:
    small = ("dataset.limit=500", "training.epochs=1", "tracking=none", "resume=true")
    done = in_process("-m", "model.hidden=4,[8,4]", "seed=0,1", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = page_in(tmp_path)
    beginning = "python -m mnist_exp dataset.limit=500 training.epochs=1 -m"
    assert set(commands(page)) == {f"{beginning} model.hidden=4 seed=0,1", f"{beginning} 'model.hidden=[8,4]' seed=0,1"}
    pairs = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert (pairs["model.hidden"], pairs["seed"], pairs["dataset.limit"]) == ("4,[8,4]", "0,1", "500")


def test_sweep_whose_jobs_all_fail_writes_a_report(tmp_path: Path) -> None:
    failing = ("optimizer=sgd", "optimizer.learning_rate=1e38,2e38", "dataset.limit=500", "training.batch_size=100")
    done = in_process("-m", *failing, "tracking=none", cwd=tmp_path)
    assert done.returncode == 1
    page = page_in(tmp_path)
    assert page.count("FAILED: loss became nan in epoch 1") == 2
    assert "<svg " not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda one: str(one)
)
def test_a_sweep_that_a_signal_ends_leaves_a_report(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    slow = ("dataset.limit=1200", "training.batch_size=100", "training.epochs=2,100000")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it for all that it starts
    process = start("-m", *slow, cwd=tmp_path)
    signal.signal(signal.SIGHUP, before)
    wait_for_line(process, "1 of 2 done")
    wait_until_an_epoch_is_recorded(tmp_path)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == status
    assert stderr == "The sweep is KILLED; the same command with resume=true continues it\n"
    page = page_in(tmp_path)
    assert re.findall(r'<th scope="row">(.*?)</th>', page) == ["1", "-"]
    assert '<td class="">KILLED</td>' in page
    parent, jobs = sweep_in(tmp_path)
    assert [run.info.status for run in (parent, *jobs)] == ["KILLED", "FINISHED", "KILLED"]
    assert "1  2  " in stdout
    assert {"ranking.csv", "report.html", "figures/curves.png"} <= artifacts(store(tmp_path), parent.info.run_id)
