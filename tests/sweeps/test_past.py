"""What past runs are compared with: runs that a client wrote into a real store, as sweeps and single runs do."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

from mnist_exp.compare import compare, past_runs
from mnist_exp.experiment import Runs
from mnist_exp.tracking.reading import PROFILE

DATA = ("3f2a" * 8, "beef" * 8)
CONFIGURATION = {
    "dataset.kind": "mnist",
    "dataset.validation": "10000",
    "dataset.limit": "null",
    "dataset.seed": "0",
    "training.loss": "null",
    "objective": "val_accuracy",
    "direction": "maximize",
    "backend": "tensorflow",
}
_numbers = count(1)


@dataclass
class Experiment:
    """An experiment in a store, and what adds runs to it."""

    uri: str
    name: str
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.uri)
        self.id = self.client.create_experiment(self.name)

    def run(
        self,
        objective: float | None,
        values: Mapping[str, str],
        parent: str = "",
        data: tuple[str, str] | None = DATA,
        code: str = "c0de",
    ) -> str:
        """Add a run, and return its id; without an objective it failed."""
        number = next(_numbers)
        tags = {"mnist_exp.signature": str(number), "mnist_exp.code": code, "mnist_exp.packages": "keras 3.15"}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        run_id = self.client.create_run(self.id, start_time=number, tags=tags).info.run_id
        params = CONFIGURATION | {"seed": "0"} | dict(values)
        measured = {} if objective is None else {"objective": objective, params["objective"]: objective}
        metrics = [Metric(name, value, number, 0) for name, value in measured.items()]
        self.client.log_batch(run_id, metrics, [Param(*item) for item in params.items()])
        if data is not None:
            held_out = params["dataset.validation"].replace("test", "10000")
            sizes = {"training": 50000, "validation": int(held_out), "test": 10000}
            profile = json.dumps(sizes | ({"test_digest": data[1]} if data[1] else {}))
            self.client.log_inputs(
                run_id,
                [DatasetInput(Dataset("digits", data[0], "local", "{}", profile="{}"), [InputTag(PROFILE, profile)])],
            )
        self.client.set_terminated(run_id, "FAILED" if objective is None else "FINISHED", end_time=number)
        return str(run_id)

    def row(
        self,
        mean: float,
        values: Mapping[str, str],
        seeds: int = 3,
        parent: str = "",
        data: tuple[str, str] = DATA,
        code: str = "c0de",
    ) -> list[str]:
        """Add a run for each seed, and return the ids."""
        noise = random.Random(str(mean))
        return [
            self.run(noise.gauss(mean, 0.002), {**values, "seed": str(seed)}, parent, data, code)
            for seed in range(seeds)
        ]

    def sweep(self, varied: Mapping[str, str], tags: Mapping[str, str] | None = None) -> str:
        """Add a sweep without jobs."""
        own = {"mnist_exp.sweep": "signature", "mnist_exp.varied": json.dumps(varied)}
        run_id = self.client.create_run(self.id, start_time=next(_numbers), tags=own | dict(tags or {})).info.run_id
        self.client.set_terminated(run_id)
        return str(run_id)

    def grid(self, rows: int = 6) -> tuple[str, list[list[str]]]:
        """Add a sweep of so many rows, each 0.002 better than the one before; return its id, and those of each row."""
        sweep = self.sweep({"model.hidden": "several", "seed": "0,1,2"})
        return sweep, [self.row(0.9 + 0.002 * row, {"model.hidden": str(row)}, parent=sweep) for row in range(rows)]

    def runs(self, *words: str, last: int | None = None) -> Runs:
        return past_runs([*words, f"tracking.uri={self.uri}", f"tracking.experiment={self.name}"], last)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('past')}/mlflow.db"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def experiment(uri: str, request: pytest.FixtureRequest) -> Experiment:
    """An empty experiment in it."""
    return Experiment(uri, request.node.name)


@pytest.fixture
def shown(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> "Shown":
    return Shown(experiment, capsys)


@dataclass
class Shown:
    """What `compare` prints."""

    experiment: Experiment
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, like: str = "") -> str:
        where = [f"tracking.uri={self.experiment.uri}"]
        has_ids = any("=" not in word for word in words)
        where += [] if has_ids else [f"tracking.experiment={self.experiment.name}"]
        compare([*words, *where], like=like)
        return self.capsys.readouterr().out


def test_runs_on_other_images_have_their_own_table(experiment: Experiment, shown: Shown) -> None:
    experiment.run(None, {}, data=None)
    for validation in ("200", "300"):
        for hidden, mean in (("8", 0.8), ("16", 0.9)):
            experiment.row(mean, {"model.hidden": hidden, "dataset.validation": validation})
    experiment.row(0.99, {"dataset.path": "blobs.npz", "dataset.validation": "300"}, data=("b10b" * 8, ""))
    blobs = shown()
    assert blobs.startswith("4 runs, largest val_accuracy first\n")
    assert "FAILED" in blobs
    assert "Measured with dataset.validation=300, data=b10bb10b (digits)." in blobs
    larger, smaller = [line for line in blobs.splitlines() if "--like" in line]
    measure = "dataset.validation={}, data=3f2a3f2a (digits)"
    assert larger.startswith(f"6 more runs are measured with {measure.format(300)}: ")
    assert smaller.startswith(f"6 more runs are measured with {measure.format(200)}: ")
    table = shown(like=smaller.split()[-1])
    assert table.startswith("6 runs")
    assert f"Measured with {measure.format(200)}." in table
    assert "hidden=16 is best of 2 on these 200 images" in table
    assert experiment.runs().verdict.count("is best of 2") == 2
    records = experiment.runs().records
    assert {(record["dataset.validation"], record["data"]) for record in records if record["rank"]} == {
        (200, "3f2a3f2a"),
        (300, "3f2a3f2a"),
        (300, "b10bb10b"),
    }
    assert len(records) == 16


def test_the_test_set_is_one_measure_whatever_is_held_out(experiment: Experiment, shown: Shown) -> None:
    measured = {"objective": "test_accuracy"}
    experiment.row(0.8, measured, data=("0" * 32, ""))  # a record without a digest of the test set
    experiment.row(0.81, measured | {"dataset.seed": "1"}, data=("0" * 32, DATA[1]))
    experiment.row(0.82, measured | {"dataset.validation": "test", "dataset.limit": "600"})
    table = shown()
    assert table.startswith("9 runs, largest test_accuracy first, MEASURED ON THE TEST SET\n")
    assert "easured with" not in table
    experiment.row(0.9, measured, data=(DATA[0], "0" * 32))
    assert "Measured with test_set=00000000 (digits)." in shown()
    assert "9 more runs are measured with test_set=beefbeef (digits): " in shown()


def test_title_names_rankings_by_the_test_set(experiment: Experiment, shown: Shown) -> None:
    experiment.run(0.8, {})
    experiment.run(0.9, {"dataset.validation": "test"})
    experiment.run(0.9, {"dataset.validation": "test", "dataset.limit": "600", "dataset.seed": "1"})
    watched = shown()
    assert watched.startswith("2 runs, largest val_accuracy first, MEASURED ON THE TEST SET\n")
    assert "1 more run is measured with dataset.validation=10000: " in watched


def test_losses_are_ranked_apart_but_not_accuracies(experiment: Experiment, shown: Shown) -> None:
    by_loss = {"objective": "val_loss", "direction": "minimize"}
    for values in ({}, {"training.loss": "KLDivergence"}):
        experiment.run(0.9, values)
        experiment.run(0.3, by_loss | values)
    first, *others = (line for line in shown().splitlines() if "easured with" in line)
    assert first == "Measured with objective=val_loss, training.loss=KLDivergence."
    assert [line.split(": ")[0] for line in others] == [
        "2 more runs are measured with objective=val_accuracy",
        "1 more run is measured with objective=val_loss, training.loss=null",
    ]


def test_a_part_of_a_sweep_is_compared_as_the_whole_sweep_is(experiment: Experiment, shown: Shown) -> None:
    sweep, rows = experiment.grid()
    whole = {record["run_id"]: record["at_best"] for record in experiment.runs().records}
    assert experiment.runs().verdict.startswith("hidden=5 leads with")
    last = experiment.runs(last=9)
    assert len(last.records) == 9
    assert {record["run_id"]: record["at_best"] for record in last.records}.items() <= whole.items()
    assert f"these 3 of the 6 rows of sweep {sweep[:8]}" in last.verdict
    filtered = experiment.runs("model.hidden=3,4,5")
    assert filtered == last
    by_id = shown(*(run_id for row in rows[3:] for run_id in row))
    assert last.verdict in by_id
    assert experiment.runs().verdict in shown(sweep)
    some_seeds = experiment.runs("seed=0,1")
    assert some_seeds.verdict
    assert " of the " not in some_seeds.verdict.partition(";")[0]


def test_reused_runs_count_to_a_sweep(experiment: Experiment) -> None:
    reused = [run_id for row in range(4) for run_id in experiment.row(0.9 + row / 500, {"model.hidden": str(row)})]
    sweep = experiment.sweep({}, {f"mnist_exp.reused.{run_id}": "{}" for run_id in reused})
    for row in (4, 5):
        experiment.row(0.9 + row / 500, {"model.hidden": str(row)}, parent=sweep)
    assert f"these 2 of the 6 rows of sweep {sweep[:8]}" in experiment.runs(last=6).verdict


def test_records_have_keys_that_differ_between_tables(experiment: Experiment) -> None:
    for hidden, values in (("16", {}), ("16", {"objective": "val_loss"}), ("32", {"objective": "val_loss"})):
        experiment.run(0.5, {"model.hidden": hidden, **values})
    records = experiment.runs().records
    assert sorted((record["objective"], record["model.hidden"]) for record in records) == [
        ("val_accuracy", 16), ("val_loss", 16), ("val_loss", 32)
    ]  # fmt: skip


def test_several_sweeps_and_single_runs_are_one_family(experiment: Experiment, shown: Shown) -> None:
    first, rows = experiment.grid(3)
    second = experiment.sweep({})
    experiment.row(0.95, {"model.hidden": "95"}, parent=second)
    singles = experiment.row(0.96, {"model.hidden": "96"}, seeds=2)
    luck = "What is picked for its score looks better than it is."
    everything = shown()
    assert "the 5 rows of 2 sweeps and 2 single runs, " in everything
    assert luck not in everything
    assert "the 4 rows of 2 sweeps" in shown(first, second)
    picked = shown(*rows[2], *singles)
    assert f"these 2 of the 4 rows of sweep {first[:8]} and 2 picked runs" in picked
    assert luck in picked
    others = experiment.row(0.97, {"model.hidden": "97"}, seeds=2)
    assert "the 2 rows of 4 picked runs" in shown(*singles, *others)


def test_a_race_is_a_table_of_its_own(experiment: Experiment, shown: Shown) -> None:
    race = experiment.sweep({"model.hidden": "0,1", "seed": "as the race goes"})
    for hidden, seeds in (("0", 2), ("1", 3)):
        experiment.row(0.9 + int(hidden) / 50, {"model.hidden": hidden}, seeds, parent=race)
    said = f"A race is decided by its rounds: see the report of sweep {race[:8]}. Nothing is compared here."
    for text in (shown(), shown(race), shown("seed=0,1,2")):
        assert f"{said}\n" in text
        assert "hidden=1 " not in text
    assert experiment.runs().verdict == said
    assert {record["at_best"] for record in experiment.runs(last=4).records} == {None}
    grid, _ = experiment.grid(2)
    assert "hidden=1 " in shown()
    assert f"5 more runs are measured with race={race[:8]}: " in shown()
    assert "hidden=1 " in shown(grid)


def test_rows_may_differ_in_code_and_backend_and_a_note_says_so(experiment: Experiment, shown: Shown) -> None:
    experiment.row(0.8, {})
    assert "too." not in shown()
    experiment.row(0.9, {"backend": "jax"}, code="edited")
    assert "The rows differ in backend and code, too.\n" in shown()


def test_a_sweep_whose_parent_is_gone_is_single_runs(experiment: Experiment) -> None:
    sweep, _ = experiment.grid(2)
    experiment.client.delete_run(sweep)
    assert "the 2 rows of 6 picked runs" in experiment.runs("status=FINISHED").verdict
    experiment.row(0.8, {}, parent="it's")
    assert "the 3 rows of 9 picked runs" in experiment.runs("status=FINISHED").verdict
