"""Runs named by their ids: a few small runs in one real store, and what is typed to find them."""

import csv
import io
import json
import re
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pytest

from mnist_exp import run
from mnist_exp.compare import compare
from mnist_exp.config.composition import compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError
from mnist_exp.predict import predict
from mnist_exp.sweeps.best_rows import read_best_rows
from mnist_exp.sweeps.plan import plan
from mnist_exp.tracking.reading import find_run

from .conftest import QUICK, in_process, runs_in, store

pytestmark = pytest.mark.slow

SEVEN = Path(__file__).parents[1] / "docs/seven.png"


SMALL = ("dataset.limit=500", *QUICK[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two networks and two seeds, and runs of other models and objectives."""
    folder = tmp_path_factory.mktemp("ids")
    done = in_process("-m", *SMALL, "model.hidden=8,16", "seed=0,1", cwd=folder)
    assert done.returncode == 0, done.stderr
    layers = ("model=layers", "training.epochs=1")
    with chdir(folder):
        run(*SMALL, "model=linear", "objective=val_loss")
        run(*SMALL, "model.hidden=4", "objective=val_loss")
        run(*SMALL, *layers, "model.layers=[Flatten,{Dense:{units:8}}]")
        run(*SMALL, *layers, "model.layers=[Flatten,{Dense:{units:4}}]", "training.callbacks.TerminateOnNaN={}")
    other = store(folder).create_experiment("other")
    for _ in range(17):  # two of 17 begin with the same character
        store(folder).create_run(other)
    return folder


def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def ids(folder: Path) -> list[str]:
    return [run.info.run_id for experiment in ("mnist_exp", "other") for run in runs_in(folder, experiment)]


def beginning(folder: Path, run_id: str) -> str:
    """The shortest beginning of an id that no other run has."""
    return next(run_id[:n] for n in range(1, 33) if sum(other.startswith(run_id[:n]) for other in ids(folder)) == 1)


def test_every_command_takes_the_beginning_of_an_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, job, *_ = (run.info.run_id for run in runs_in(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(folder))
    assert find_run(store(folder), uri(folder), beginning(folder, job)).run_id == job
    [seen] = predict(beginning(folder, sweep), [SEVEN])
    assert 0 <= seen.label <= 9
    rows, _, _ = read_best_rows(compose([]).config, beginning(folder, sweep), 5)
    assert {row["model.hidden"] for row in rows} == {"8", "16"}
    with pytest.raises(
        InputError, match=rf"hydra.sweeper.from_sweep={job[:12]}: is no sweep; it is a job of the sweep {sweep}"
    ):
        read_best_rows(compose([]).config, job[:12], 5)


def test_ambiguous_or_unknown_id_is_one_message(folder: Path) -> None:
    client = store(folder)
    first, count = Counter(run_id[0] for run_id in ids(folder)).most_common(1)[0]
    with pytest.raises(InputError) as caught:
        find_run(client, "the-store", first)
    named = str(caught.value).removeprefix(f"{first}: is the beginning of several ids; type one of ").split(", ")
    assert {len(name) for name in named if name != "and more"} == {8}
    assert len(named) == min(count, 7)
    for name in named[:6]:
        assert find_run(client, "the-store", name).run_id.startswith(name)
    for unknown in ("%", "_", "no-such-run", "", "f' OR run_id LIKE '", "0" * 32, "A" * 8):
        with pytest.raises(InputError, match="no such run in the-store"):
            find_run(client, "the-store", unknown)


def test_compare_takes_ids_of_runs_and_sweeps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, *jobs, linear, _, eight, four = (run.info.run_id for run in runs_in(folder))

    def shown(*typed: str, words: tuple[str, ...] = (), form: str = "table") -> str:
        compare([*(beginning(folder, run_id) for run_id in typed), *words, f"tracking.uri={uri(folder)}"], form=form)
        return capsys.readouterr().out

    def listed(*typed: str, words: tuple[str, ...] = ()) -> list[str]:
        found = csv.DictReader(io.StringIO(shown(*typed, words=words, form="csv")))
        return [line["run_id"] for line in found]

    assert set(listed(sweep, four)) == {*jobs, four}
    assert listed(linear) == [linear]
    assert set(listed(sweep, words=("seed=1",))) == {
        run.info.run_id for run in runs_in(folder) if run.data.params.get("seed") == "1"
    }
    rows = [line for line in shown(sweep).splitlines() if line[:1].isdigit()][1:]
    assert len(rows) == 2
    for row, best_of in zip(rows, ranked_jobs(folder, jobs), strict=True):
        assert row.split()[1] == best_of[:8]
    layers = shown(eight, four)
    assert "  [Flatten, {Dense: {units: 8}}]  " in layers
    assert "  [Flatten, {Dense: {units: 4}}]  " in layers


def ranked_jobs(folder: Path, jobs: list[str]) -> list[str]:
    """The best job of each row of the sweep, best row first."""
    objectives: dict[str, list[tuple[float, str]]] = {}
    for job in runs_in(folder):
        if job.info.run_id in jobs:
            measured = (job.data.metrics["objective"], job.info.run_id)
            objectives.setdefault(job.data.params["model.hidden"], []).append(measured)
    return [max(row)[1] for row in sorted(objectives.values(), key=lambda row: -sum(value for value, _ in row))]


def test_every_format_has_the_same_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(form: str) -> tuple[str, str]:
        compare([f"tracking.uri={uri(folder)}"], form=form)
        captured = capsys.readouterr()
        return captured.out, captured.err

    records = json.loads(shown("json")[0])
    lines = list(csv.DictReader(io.StringIO(shown("csv")[0])))
    assert [record["run_id"] for record in records] == [line["run_id"] for line in lines]
    assert len(records) == len({record["run_id"] for record in records}) == 8
    measured = {
        run.info.run_id: run.data.metrics["objective"]
        for run in runs_in(folder)
        if "mnist_exp.sweep" not in run.data.tags
    }
    for record, line in zip(records, lines, strict=True):
        value = measured[record["run_id"]]
        assert record[record["objective"]] == value
        assert float(line[line["objective"]]) == value
    assert "MEASURED ON THE TEST SET" in shown("csv")[1]
    table, markdown, latex = (shown(form)[0] for form in ("table", "markdown", "latex"))
    assert all(text.count("more runs are measured with objective=") == 1 for text in (table, markdown, latex))
    assert all(text.count("MEASURED ON THE TEST SET") == 1 for text in (table, markdown, latex))
    assert latex.count("\\begin{tabular}") == len(re.findall("^\\| :---", markdown, re.MULTILINE)) == 1


@pytest.mark.parametrize("typed", ["12345e67", "1e691863", "00001234", "12345678", "'12345e67'"])
def test_a_race_gets_a_numeric_id_as_it_was_typed(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(folder))
    overrides = ["sweep=race", f"hydra.sweeper.from_sweep={typed}"]
    with pytest.raises(InputError) as caught:
        plan(compose_values(overrides), overrides, None, JobLoader.of_conf())
    assert str(caught.value).startswith(f"hydra.sweeper.from_sweep={typed.strip(chr(39))}: no such run")
