"""Races: replayed on known scores, and run on real MNIST in real stores."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from mnist_exp.errors import InputError
from mnist_exp.sweeps.best_rows import check_rows
from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.ranking import find_unranked, rank
from mnist_exp.sweeps.rounds import MAX_ROUNDS, Round
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.records import Record

from ..conftest import (
    SharedFolder,
    command,
    facts,
    in_process,
    recorded_job,
    start,
    store,
    sweep_in,
    wait_for_line,
)
from .replays import RACES, equal_means, hard_bank, noisy_bank, real_bank, replay_races, skewed_bank

# Three widths, of which the smallest is beaten at once, on 2,000 images; two rounds.
THREE = (
    "sweep=race",
    "model.hidden=2,24,32",
    "optimizer.learning_rate=0.03",
    "dataset.limit=2500",
    "dataset.validation=500",
    "training.epochs=2",
    "training.batch_size=100",
    "hydra.sweeper.max_jobs=13",
)


def race_of(combinations: int, **rules: float) -> Race:
    values = [{"a": str(place)} for place in range(combinations)]
    given = {"seeds": 3, "max_jobs": 20 * combinations, "indifference": 0.0, **rules}
    return Race([[]] * combinations, values, int(given["seeds"]), int(given["max_jobs"]), given["indifference"])


def raced(race: Race, means: Sequence[float | None], spread: float = 0.0, direction: str = "maximize") -> list[Round]:
    """A race in which each combination scores its mean, and by the seed up to `spread` more or less."""

    def launch(jobs: Sequence[tuple[int, int]]) -> list[float | None]:
        swings = [spread * ((seed * 7 + 3 * place) % 5 - 2) / 2 for place, seed in jobs]
        return [
            None if (mean := means[place]) is None else mean + swing
            for (place, _), swing in zip(jobs, swings, strict=True)
        ]

    return list(race.play(direction, launch))


@pytest.mark.fast
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_clear_best_is_found_in_the_first_round(direction: str) -> None:
    [only] = raced(race_of(4), [0.2, 0.9, 0.5, 0.1], spread=0.001, direction=direction)
    assert only.left == ((1,) if direction == "maximize" else (3,))
    assert (only.end, only.jobs, set(only.seeds.values()), len(only.dropped)) == ("decided", 12, {3}, 3)


@pytest.mark.fast
def test_race_gives_seeds_to_open_rows_until_jobs_are_spent() -> None:
    rounds = raced(race_of(3, max_jobs=30), [0.9, 0.9001, 0.1], spread=0.01)
    assert all(ended.dropped == {2: 1} for ended in rounds)
    assert [ended.jobs for ended in rounds] == [9, 13, 17, 23, 29]  # a sixth round would be for one of the two alone
    assert [ended.seeds[0] for ended in rounds] == [3, 5, 7, 10, 13]
    assert [ended.end for ended in rounds] == [None, None, None, None, "spent"]


@pytest.mark.fast
def test_a_race_ends_after_its_last_round() -> None:
    rounds = raced(race_of(2, max_jobs=10**9), [0.9, 0.9], spread=0.01)
    assert (len(rounds), rounds[-1].end) == (MAX_ROUNDS, "rounds")


@pytest.mark.fast
def test_race_leaves_small_differences_open() -> None:
    means = [0.9, 0.9001, 0.1]
    assert raced(race_of(3, indifference=0.0), means, spread=0.001)[-1].end == "spent"
    last = raced(race_of(3, indifference=0.01), means, spread=0.0005)[-1]
    assert (last.end, set(last.left), last.number) == ("indifferent", {0, 1}, 1)
    apart = raced(race_of(2, indifference=0.01), [0.9, 0.88], spread=0.02)[-1]
    assert (apart.end, apart.left) == ("indifferent", (0, 1))  # who takes the first loses at most that
    assert 0 < apart.comparisons[1].at_best <= 0.01


@pytest.mark.fast
def test_a_combination_that_fails_is_dropped() -> None:
    rounds = raced(race_of(3), [None, 0.9, float("nan")])
    assert (rounds[0].failed, rounds[0].left, rounds[0].end) == (frozenset({0, 2}), (1,), "decided")
    assert raced(race_of(2), [None, None])[-1].end == "failed"


@pytest.mark.parametrize(
    "races", [pytest.param(40, marks=pytest.mark.fast), pytest.param(RACES, marks=pytest.mark.release)]
)
def test_replayed_races_keep_the_best_and_save_jobs(races: int) -> None:
    one, hard = replay_races(real_bank(), races), replay_races(hard_bank(), races)
    assert min(one.best_kept, one.best_leads, hard.best_kept, hard.best_leads) >= 0.97
    assert min(one.ended, hard.ended) >= 0.97
    assert one.left <= 3
    assert one.jobs <= 0.33
    for bank in [equal_means(real_bank()), noisy_bank()] if races == RACES else []:
        assert replay_races(bank, races).dropped <= 0.05
    assert replay_races(noisy_bank((10, 1, 1, 1)), max(races, 200)).dropped <= 0.05
    assert replay_races(skewed_bank(), max(races, 200)).best_kept >= 0.97


def ranked(race: Race, scores: Sequence[Sequence[float | None]], direction: str = "maximize") -> tuple[Table, str]:
    """The table and the sentence below it of a race whose jobs score so, by combination and seed."""
    jobs: list[Record] = []

    def launch(launched: Sequence[tuple[int, int]]) -> list[float | None]:
        objectives = [scores[place][seed] for place, seed in launched]
        for (place, seed), objective in zip(launched, objectives, strict=True):
            status = "FAILED" if objective is None else "FINISHED"
            jobs.append(recorded_job({"a": str(place), "seed": str(seed)}, status, objective, {}, seconds=1.0))
        return objectives

    race.rounds.extend(race.play(direction, launch))
    rows, _ = race.arrange(rank(jobs, direction), direction)
    return Table("val_accuracy", direction, rows, find_unranked(jobs), raced=True), race.verdict(rows, "", "")


@pytest.mark.fast
def test_failed_row_is_not_called_beaten() -> None:
    scores: list[list[float | None]] = [[0.9, 0.901, 0.902], [0.95, 0.952, None], [0.5, 0.503, 0.501]]
    table, said = ranked(race_of(3), scores)
    assert [row.values["a"] for row in table.rows] == ["0", "2", "1"]
    assert [(row.dropped, row.failed) for row in table.rows] == [(None, False), (1, False), (1, True)]
    assert "failed, round 1" in table.text()
    assert said == (
        "a=0 is best of the 2 rows that are compared: the other is not better (95 %, over 1 round); "
        "it is 0.3997 behind. Rows with a failed job are not compared."
    )
    left = "a=0 is left, since jobs failed of all others."
    assert ranked(race_of(2), scores[:2])[1] == left
    _, said = ranked(race_of(2), [[0.9, 0.9, None], [0.1, None, 0.1]])
    assert said == ""


@pytest.mark.fast
def test_a_dropped_row_is_compared_with_a_new_leader() -> None:
    leader: list[float | None] = [0.91, 0.92, 0.93, None, None]
    table, said = ranked(race_of(3), [leader, [0.9, 0.93, 0.92, 0.9, 0.91], [0.5, 0.51, 0.52]])
    assert [row.values["a"] for row in table.rows] == ["1", "2", "0"]
    assert said.startswith("a=1 is best of the 2 rows that are compared: the other is not better")
    assert said.endswith("it is 0.4020 behind. Rows with a failed job are not compared.")


@pytest.mark.fast
def test_rows_return_when_all_that_were_left_failed() -> None:
    one, other, behind = [0.91, 0.92, 0.93, None, None], [0.9, 0.93, 0.92, None, None], [0.5, 0.51, 0.52]
    race = race_of(3)
    table, _ = ranked(race, [one, other, [*behind, *[0.5] * 60]])
    assert [last.left for last in race.rounds] == [(0, 1), (2,)]
    assert [(row.values["a"], row.failed) for row in table.rows] == [("2", False), ("0", True), ("1", True)]


@pytest.mark.fast
def test_a_row_that_the_leader_no_longer_beats_is_taken_back(tmp_path: Path) -> None:
    """The first row leads until its later seeds fail; the second was beaten, and gets the seeds that it lacks."""
    scores = [
        [0.95, 0.951, 0.952, *[0.86, 0.9] * 30],
        [0.88, 0.8801, 0.8802, *[0.88] * 60],
        [0.9499, 0.9509, 0.951, *[0.859, 0.899] * 30],
    ]
    race = race_of(3, max_jobs=30)
    ranked(race, scores)
    first, second, third = race.rounds[:3]
    assert (first.dropped, second.back, third.back) == ({1: 1}, (1,), ())
    assert (second.seeds[1], third.seeds[1]) == (3, third.seeds[0])
    race.report(tmp_path)
    assert [line["outcome"] for line in race_csv(tmp_path) if line["a"] == "1"][:2] == ["beaten", "taken back"]


@pytest.mark.fast
def test_a_round_that_was_not_over_does_not_count() -> None:
    race = race_of(2)
    scores = [[0.9, 0.91, 0.92, 0.99], [0.905, 0.9, 0.91, 0.1]]
    race.rounds.append(next(race.play("maximize", lambda jobs: [scores[place][seed] for place, seed in jobs])))
    jobs = [
        recorded_job({"a": str(a), "seed": str(seed)}, "FINISHED", score, {})
        for a, row in enumerate(scores)
        for seed, score in enumerate(row)
    ]
    rows, [ending] = race.arrange(rank(jobs, "maximize"), "maximize")
    assert [row.mean for row in rows] == [pytest.approx(0.91), pytest.approx(0.905)]
    assert [(len(row.jobs), row.missing) for row in rows] == [(3, 1)] * 2
    assert race.verdict(rows, "", "").startswith("a=0 leads with 0.9100; the other may be better, by 0.")
    assert ending.endswith("It was not over.")


@pytest.mark.fast
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_verdict_of_a_race_is_its_last_decision(direction: str) -> None:
    means = [0.5, 0.51, 0.9, 0.1]
    scores = [[mean + (seed * 7 + 3 * place) % 5 / 100 for seed in range(99)] for place, mean in enumerate(means)]
    race = race_of(4, max_jobs=60)
    table, said = ranked(race, scores, direction)
    best = 2 if direction == "maximize" else 3
    assert race.rounds[-1].left == (best,)
    assert said.startswith(f"a={best} is best of 4: none of the others is better (95 %, over ")
    assert not any(row.is_open for row in table.rows)
    two = [[0.5, 0.52, 0.51, 0.5, 0.53], [0.51, 0.51, 0.52, 0.51, 0.5]]
    table, said = ranked(race_of(2, max_jobs=10), two, direction)
    assert [row.is_open for row in table.rows] == [False, True]
    assert "the other may be better, by " in said
    alike = [[mean + seed / 100 for seed in range(9)] for mean in (0.5, 0.5001)]
    alike[1][1] += 0.0002
    _, said = ranked(race_of(2, indifference=0.004), alike, direction)
    assert "; if you take it, you lose at most 0.00" in said


@pytest.mark.fast
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_race_proposes_rounds_and_reports_each_once(direction: str, tmp_path: Path) -> None:
    sign = 1 if direction == "maximize" else -1
    race, jobs, news = race_of(3, max_jobs=30), list[Record](), list[str]()
    race.overrides = [[f"a={place}"] for place in range(3)]
    while (proposed := race.propose(jobs, direction)) is not None:
        for values in (dict(text.split("=") for text in job) for job in proposed):
            place, seed = int(values["a"]), int(values["seed"])
            score = sign * ((0.9, 0.9, 0.1)[place] + (seed * 7 + 3 * place) % 5 / 100)
            jobs.append(recorded_job(values, "FINISHED", score, {}))
        news += race.report(tmp_path)
    news += race.report(tmp_path)
    assert [line.partition(",")[0] for line in news] == [f"Round {number}" for number in range(1, len(race.rounds) + 1)]
    assert "1 of 3 beaten" in news[0]
    rows, _ = race.arrange(rank(jobs, direction), direction)
    records = Table("val_accuracy", direction, rows, raced=True).records
    assert {(record["dropped"], record["beaten"]) for record in records if record["a"] == "2"} == {(1, True)}
    [written] = [line for line in race_csv(tmp_path) if line["a"] == "2"]
    assert float(written["difference"]) == pytest.approx(sign * -0.8, abs=0.02)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracking.uri", "http://theirs"),
        ("direction", "minimize"),
        ("code", "theirs.py"),
        ("hydra.sweep.dir", "/tmp/theirs"),
        ("hydra/launcher", "joblib"),
        ("model.hidden", "8,16"),
        ("model.hidden", "${oc.env:HOME}"),
        ("model", "../theirs"),
        ("model.hidden=4 model.dropout", "0.5"),
    ],
)
def test_a_row_of_a_store_sets_no_more_than_a_preset_may_vary(key: str, value: str) -> None:
    rows = [{"model.hidden": hidden} | {key: value} for hidden in ("8", "16")]
    with pytest.raises(InputError, match=r"hydra\.sweeper\.from_sweep=abc: .*: a sweep in a store may not set this"):
        check_rows(rows, "abc", [])


def race_csv(folder: Path) -> list[dict[str, str]]:
    """Return the newest race below a folder, a line a combination and round."""
    newest = max(folder.rglob("race.csv"), key=lambda path: path.stat().st_mtime)
    return list(csv.DictReader(newest.read_text().splitlines()))


def decisions(folder: Path) -> list[tuple[str, str, str]]:
    return [(line["round"], line["model.hidden"], line["outcome"]) for line in race_csv(folder)]


@pytest.fixture(scope="session")
def race_folder(shared_folder: SharedFolder) -> Path:
    """A folder in which a race ran from start to end."""
    return shared_folder("race", in_process, "-m", *THREE)


@pytest.mark.slow
def test_race_drops_beaten_rows_and_names_them(race_folder: Path, tmp_path: Path) -> None:
    parent, jobs = sweep_in(race_folder)
    assert parent.info.status == "FINISHED"
    assert decisions(race_folder)[2] == ("1", "2", "beaten")
    assert {hidden for number, hidden, _ in decisions(race_folder) if number == "2"} == {"24", "32"}
    assert len(jobs) == 9 + 4
    assert sorted(job.data.params["seed"] for job in jobs) == sorted([*"000111222", *"3344"])
    recorded = Path(store(race_folder).download_artifacts(parent.info.run_id, "race.csv", str(tmp_path)))
    assert list(csv.DictReader(recorded.read_text().splitlines())) == race_csv(race_folder)
    lines = (race_folder / "stdout").read_text().splitlines()
    swept = "model.hidden=2,24,32"
    assert lines[0] == f"A race of 3, 3 seeds each at first, at most 13 jobs: {swept}"
    assert "Round 1, 3 seeds each: 1 of 3 beaten; hidden=" in "\n".join(lines)
    [beaten] = [line for line in lines if "round 1" in line]
    assert beaten.split()[:2] == ["3", "2"]
    [ending] = [line for line in lines if line.startswith("13 jobs in 2 rounds; 5 seeds of all 3 combinations")]
    assert "would take 15" in ending
    assert "1 of the 2 others may be better, by " in "\n".join(lines)


@pytest.mark.slow
def test_a_race_that_is_killed_goes_on_to_the_same_end(race_folder: Path, tmp_path: Path) -> None:
    process = start("-m", *THREE, cwd=tmp_path)
    wait_for_line(process, "5 of 9 done")
    process.kill()
    process.communicate(timeout=300)
    done = in_process("-m", *THREE, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert race_csv(tmp_path) == race_csv(race_folder)
    parent, jobs = sweep_in(tmp_path)
    assert parent.info.status == "FINISHED"
    finished = [job.data.tags["mnist_exp.swept"] for job in jobs if job.info.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 13
    more = in_process("-m", *THREE[:-1], "hydra.sweeper.max_jobs=17", "resume=true", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "13 of its jobs finished before" in more.stdout
    assert decisions(tmp_path)[: len(decisions(race_folder))] == decisions(race_folder)
    assert [job.info.status for job in sweep_in(tmp_path)[1]].count("FINISHED") == 17


@pytest.mark.slow
def test_the_best_rows_of_a_sweep_race_on_other_seeds(tmp_path: Path) -> None:
    sweep = ("-m", "model.hidden=2,24,32", "seed=0,1", *THREE[2:-1])
    assert in_process(*sweep, cwd=tmp_path).returncode == 0
    parent, _ = sweep_in(tmp_path)
    of = f"hydra.sweeper.from_sweep={parent.info.run_id}"
    race = ("-m", "sweep=race", of, "hydra.sweeper.n_best=2", *THREE[2:-1])
    done = in_process(*race, "training.epochs=1", "hydra.sweeper.max_jobs=6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"training.epochs is 1; in {parent.info.run_id} it was 2" in done.stdout.splitlines()
    ran = race_csv(tmp_path)
    assert {line["model.hidden"] for line in ran} == {"24", "32"}
    client = store(tmp_path)
    newest = client.search_runs([parent.info.experiment_id], order_by=["attributes.start_time DESC"], max_results=6)
    assert {run.data.params["seed"] for run in newest} == {"2", "3", "4"}
    none = in_process("-m", "sweep=race", "hydra.sweeper.from_sweep=abc", cwd=tmp_path)
    assert none.stderr.startswith("hydra.sweeper.from_sweep=abc: no such run in sqlite:///mlflow.db; ")
    other = in_process(*race, "objective=val_loss", cwd=tmp_path)
    assert (other.returncode, other.stderr.strip()) == (
        1,
        f"objective=val_loss: {of} was ranked by val_accuracy; type objective=val_accuracy",
    )
    elsewhere = in_process(*race, "tracking.experiment=other", cwd=tmp_path)
    assert elsewhere.stderr.strip() == f"{of}: is in another experiment; type tracking.experiment=mnist_exp"
    typed = in_process(*race, "model.hidden=8", cwd=tmp_path)
    assert "model.hidden: varies among the best rows of" in typed.stderr
    client.set_tag(newest[0].info.run_id, "mlflow.parentRunId", parent.info.run_id)
    client.set_tag(newest[0].info.run_id, "mnist_exp.swept", '{"model.hidden": "${oc.env:HOME}"}')
    client.log_metric(newest[0].info.run_id, "objective", 2.0)
    hostile = in_process(*race, cwd=tmp_path)
    assert hostile.returncode == 1
    assert "a sweep in a store may not set this" in hostile.stderr


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["seed=1"], "seed=1: a race chooses the seeds; hydra.sweeper.initial_seeds=3 is how many each has"),
        (["model.hidden=16"], "sweep=race: needs at least two combinations"),
        (["model=mlp", "hydra.sweeper.from_sweep=abc"], "tracking.uri=sqlite:///mlflow.db: no such store"),
        (["model=mlp", "hydra.sweeper.from_sweep=abc", "tracking=none"], "tracking=none: has no store to read"),
        (["hydra.sweeper.initial_seeds=1"], "hydra.sweeper.initial_seeds=1: must be a whole number, at least 2"),
        (["hydra.sweeper.max_jobs=5"], "hydra.sweeper.max_jobs=5: must be at least 6: 3 seeds of each of 2"),
        (["hydra.sweeper.indifference=-1"], "hydra.sweeper.indifference=-1: must be a number, at least 0"),
        (
            ["hydra.sweeper.from_sweep=abc"],
            "model.hidden=16,32: the combinations are those of hydra.sweeper.from_sweep; leave out one",
        ),
        (
            ["hydra.sweeper.seeds=3"],
            "hydra.sweeper.seeds=3: hydra.sweeper has no such key; did you mean hydra.sweeper.initial_seeds=3?",
        ),
        (
            ["max_jobs=9"],
            "max_jobs=9: the configuration has no such key; did you mean -m sweep=race hydra.sweeper.max_jobs=9?",
        ),
    ],
)
def test_race_refuses_unsupported_settings_at_once(tmp_path: Path, typed: list[str], message: str) -> None:
    hidden = [] if typed[0].startswith("model") else ["model.hidden=16,32"]
    done = in_process("-m", "sweep=race", *hidden, *typed, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "multirun").exists()


@pytest.mark.release
def test_a_stack_decides_as_single_jobs_do(tmp_path: Path) -> None:
    for launcher in ("basic", "stacked"):
        folder = tmp_path / launcher
        folder.mkdir()
        two = ("model.hidden=2,24", "hydra.sweeper.max_jobs=8", "backend=jax", f"hydra/launcher={launcher}")
        done = command("-m", THREE[0], *THREE[2:-1], *two, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert decisions(tmp_path / "basic") == decisions(tmp_path / "stacked")
    assert all("trained_together" in facts(job) for job in sweep_in(tmp_path / "stacked")[1])
