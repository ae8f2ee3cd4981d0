"""Searches: what Optuna draws from records, and searches that run, stop and go on."""

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mnist_exp.errors import InputError
from mnist_exp.sweeps.kind import Kind
from mnist_exp.tracking.records import Record

from ..conftest import command, facts, in_process, recorded_job, runs_in, start, sweep_in, wait_for_line
from .test_kinds import planned

FAST = ("dataset.limit=300", "dataset.validation=100", "training.epochs=1", "training.batch_size=100")
SPACE = (
    "model.hidden=range(4,24,4)",
    "model.activation=choice(sigmoid,relu)",
    "optimizer.learning_rate=tag(log,interval(0.001,0.1))",
    "training.batch_size=int(interval(10,90))",
)


def search(*typed: str) -> Kind:
    return planned("sweep=optuna", "~hydra.sweeper.params", "+hydra.sweeper.params=null", *SPACE, *typed)[1]


def run_all(kind: Kind, objectives: Sequence[float | None]) -> list[dict[str, str]]:
    """Return the values of all jobs of a search whose jobs score so, in their order."""
    ended: list[Record] = []
    while (jobs := kind.propose(ended, "maximize")) is not None:
        for values in (dict(text.split("=") for text in job[-4:]) for job in jobs):
            objective = objectives[len(ended)]
            ended.append(recorded_job(values, "FINISHED" if objective is not None else "FAILED", objective, {}))
    return [job.values for job in ended]


@pytest.mark.fast
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_search_draws_n_trials_jobs_from_its_ranges(at_once: int) -> None:
    scores = [0.5 + place / 100 if place % 4 else None for place in range(14)]
    drawn = run_all(search("hydra.sweeper.n_trials=14", f"hydra.sweeper.n_jobs={at_once}"), scores)
    assert len(drawn) == 14
    assert drawn == run_all(search("hydra.sweeper.n_trials=14", f"hydra.sweeper.n_jobs={at_once}"), scores)
    for values in drawn:
        assert values["model.hidden"] in {"4", "8", "12", "16", "20"}
        assert values["model.activation"] in {"sigmoid", "relu"}
        assert 0.001 <= float(values["optimizer.learning_rate"]) <= 0.1
        assert 10 <= int(values["training.batch_size"]) <= 90


@pytest.mark.fast
def test_search_learns_from_ended_and_pruned_jobs() -> None:
    kind = search("hydra.sweeper.n_trials=60")

    def drawn_after(best: str) -> Counter[str]:
        ended = []
        for place in range(40):
            hidden = str(4 + 4 * (place % 5))
            values = {"model.hidden": hidden, "model.activation": "relu", "optimizer.learning_rate": "0.01"}
            values["training.batch_size"] = str(10 + place)
            job = recorded_job(values, "FINISHED", 0.9 + place / 1e4 if hidden == best else 0.1 + place / 1e4, {})
            if hidden != best and place % 2:
                job.tags["mnist_exp.pruned"] = "1"
            ended.append(job)
        jobs = [kind.propose([*ended, *more], "maximize") or [] for more in ([], ended[:1], ended[:2], ended[:3])]
        return Counter(text for [job] in jobs for text in job if text.startswith("model.hidden="))

    assert drawn_after("20").most_common(1)[0][0] == "model.hidden=20"
    assert drawn_after("4").most_common(1)[0][0] == "model.hidden=4"


@pytest.mark.fast
def test_search_proposes_interrupted_jobs_first() -> None:
    kind = search("hydra.sweeper.n_trials=3")
    [first] = kind.propose([], "maximize") or []
    values = dict(text.split("=") for text in first[-4:])
    killed, finished = recorded_job(values, "KILLED", None, {}), recorded_job(values, "FINISHED", 0.5, {})
    assert kind.propose([killed], "maximize") == [first]
    assert kind.propose([killed, finished], "maximize") not in (None, [first])
    assert kind.propose([killed, finished, finished, finished], "maximize") is None


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: must be a whole number from 1 to 100,000"),
        ("hydra.sweeper.n_jobs=0", "hydra.sweeper.n_jobs=0: must be a whole number, at least 1"),
        ("hydra.sweeper.sampler=grid", "hydra.sweeper.sampler=grid: must be TPESampler or RandomSampler, such as"),
        ("+hydra.sweeper.sampler.RandomSampler.seed=1", "must be one sampler; choose sweep=random, or sweep=optuna"),
        ("+hydra.sweeper.sampler.TPESampler.sed=1", "hydra.sweeper.sampler.TPESampler={.*sed: 1.*}: .*sed"),
        ("model.hidden=interval(2,1)", "finite numbers.* with FROM at most TO"),
        ("optimizer.learning_rate=tag(log,interval(0,1))", "finite numbers above 0 with FROM at most TO"),
        ("model.hidden=interval(0,inf)", "finite numbers.* with FROM at most TO"),
        ("seed=range(2000000000)", "asks for 2,000,000,000 jobs; a sweep may have 100,000 at most"),
    ],
)
def test_a_search_that_cannot_be_is_refused(typed: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(typed)


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_to_its_total(tmp_path: Path) -> None:
    seven = ("-m", "sweep=optuna", *FAST, "hydra.sweeper.n_trials=7")
    process = start(*seven, cwd=tmp_path)
    wait_for_line(process, "3 of 7 done")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    parent, jobs = sweep_in(tmp_path)
    assert 3 <= [job.info.status for job in jobs].count("FINISHED") < 7
    done = command(*seven, "resume=true", cwd=tmp_path)  # with the same number of threads
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n7 of 7 done" in done.stdout
    resumed, jobs = sweep_in(tmp_path)
    assert resumed.info.run_id == parent.info.run_id
    assert [job.info.status for job in jobs] == ["FINISHED"] * 7  # the one that was interrupted, too
    assert len({facts(job)["swept"] for job in jobs}) == 7
    assert "7 jobs, largest val_accuracy first" in done.stdout


def test_a_random_search_whose_jobs_all_fail_says_why(tmp_path: Path) -> None:
    few = ("dataset.limit=200", "hydra.sweeper.n_trials=2", "dataset.validation=0.999")
    done = in_process("-m", "sweep=random", *FAST, *few, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "2 of 2 jobs did not finish; the same command with resume=true retries them\n"
    assert done.stdout.count("FAILED: dataset.validation=0.999: holds out 200 of 200 training images") == 2
    assert [run.info.status for run in runs_in(tmp_path)] == ["FAILED"] * 3
