"""A race: every combination runs a few seeds, then only those that may still be the best, until that is decided."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from mnist_exp.experiment import RacePlan
from mnist_exp.sweeps.formats import as_csv, counted
from mnist_exp.sweeps.jobs import Stage
from mnist_exp.sweeps.ranking import Rounds, Row, combination, interval_of
from mnist_exp.sweeps.statistics import LEVEL, Comparison, compare_with_first
from mnist_exp.tracking.job import job_name

ROUNDS = 10  # at most: each is tested at a tenth of 5 %, so that all of them together err in at most 5 %
_LEVEL_OF_A_ROUND = LEVEL / ROUNDS


@dataclass(frozen=True)
class Round:
    """How a race stands after a round; combinations are given by their place in the plan.

    `number`: from 1. `seeds`: that each of those left has run. `jobs`: of the race so far. `left`: what may be the
    best, the leader first. `beaten` and `failed`: dropped in this round. `means`: of the objective, of all that ran in
    it. `comparisons`: of these with the leader. `end`: why the race ends here: `decided`, `indifferent`, `spent`,
    `rounds` or `failed`; None where it goes on.
    """

    number: int
    seeds: int
    jobs: int
    left: tuple[int, ...]
    beaten: tuple[int, ...]
    failed: tuple[int, ...]
    means: Mapping[int, float]
    comparisons: Mapping[int, Comparison]
    end: str | None


def play(
    plan: RacePlan, direction: str, launch: Callable[[Sequence[tuple[int, int]]], Sequence[float | None]]
) -> Iterator[Round]:
    """Run a race; return its rounds, each as soon as its jobs have ended.

    Args:
        plan: the combinations and the rules.
        direction: `maximize` or `minimize`.
        launch: runs jobs, given as the places of a combination and of a seed, both from 0; it returns their objectives,
            None for a job that failed, whose combination is dropped.
    """
    left = list(range(len(plan.values)))
    scores: list[dict[str, float]] = [{} for _ in left]
    jobs = seeds = 0
    new = plan.seeds
    for number in range(1, ROUNDS + 1):
        launched = [(place, seed) for place in left for seed in range(seeds, seeds + new)]
        failed = set()
        for (place, seed), objective in zip(launched, launch(launched), strict=True):
            if objective is None or not math.isfinite(objective):
                failed.add(place)
            else:
                scores[place][str(seed)] = objective
        jobs, seeds = jobs + len(launched), seeds + new
        means = {place: fmean(scores[place].values()) for place in left if place not in failed}
        ran = sorted(means, key=lambda place: means[place], reverse=direction == "maximize")
        found = _compared([scores[place] for place in ran], _LEVEL_OF_A_ROUND, plan.pairs)
        comparisons = dict(zip(ran[1:], found, strict=True))
        left = [place for place in ran if place == ran[0] or comparisons[place].is_open]
        new = min(max(2, seeds // 2), (plan.max_jobs - jobs) // max(len(left), 1))
        end = _end([scores[place] for place in left], plan.indifference, direction)
        if end is None and (new < 1 or number == ROUNDS):
            end = "spent" if new < 1 else "rounds"
        beaten = tuple(place for place in ran if place not in left)
        yield Round(number, seeds, jobs, tuple(left), beaten, tuple(sorted(failed)), means, comparisons, end)
        if end is not None:
            return


def _end(left: Sequence[Mapping[str, float]], indifference: float, direction: str) -> str | None:
    """Return why no more seeds are needed, if so: one is left, or none left is worse than the leader by more than
    `indifference`, one-sided and corrected for those left."""
    if len(left) < 2:
        return "decided" if left else "failed"
    found = _compared(left, 2 * _LEVEL_OF_A_ROUND, len(left) - 1)
    most = max(-one.low if direction == "maximize" else one.high for one in found)
    return "indifferent" if most <= indifference else None


def _compared(rows: Sequence[Mapping[str, float]], level: float, pairs: int) -> list[Comparison]:
    return [one for one in compare_with_first(rows, level, pairs) if one is not None]  # each has two seeds or more


@dataclass
class Race:
    """A race of a sweep, as far as it has come; its rounds are in `race.csv` in the sweep's folder too."""

    plan: RacePlan
    direction: str
    folder: Path
    stage: Stage
    rounds: list[Round] = field(default_factory=list)

    def run(self, launch: Callable[[Sequence[Sequence[str]]], Sequence[float | None]]) -> None:
        """Run the race; `launch`: runs jobs, each given by its overrides, and returns their objectives."""

        def launch_jobs(jobs: Sequence[tuple[int, int]]) -> Sequence[float | None]:
            self.stage.jobs = len(jobs) + (self.rounds[-1].jobs if self.rounds else 0)
            overrides, seed = self.plan.overrides, self.plan.seed
            return launch([[*overrides[place], f"seed={seed(number)}"] for place, number in jobs])

        for one in play(self.plan, self.direction, launch_jobs):
            self.rounds.append(one)
            (self.folder / "race.csv").write_text(as_csv([line for done in self.rounds for line in self._lines(done)]))
            self.stage.news.append(self._news(one))

    def standing(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of a ranking as the race has them: the ones left, then the beaten, then those that failed.

        Args:
            rows: best first.

        Returns:
            All of them; of the beaten, those of the latest round first.
        """
        dropped = {}
        for one in self.rounds:
            for place in (*one.beaten, *one.failed):
                dropped[combination(self.plan.values[place])] = one.number, place in one.failed
        stood = []
        for row in rows:
            number, failed = dropped.get(combination(row.values), (None, False))
            stood.append(replace(row, dropped=number, failed=failed))
        return sorted(stood, key=lambda row: (row.failed, -math.inf if row.dropped is None else -row.dropped))

    def correction(self) -> Rounds:
        """Return what intervals are corrected for, once a round was run."""
        return Rounds(_LEVEL_OF_A_ROUND, ROUNDS, self.plan.pairs, self.rounds[-1].number)

    def ending(self) -> str:
        """Return how far the race came, and why it ended, in words."""
        last, count = self.rounds[-1], len(self.plan.values)
        why = {
            "decided": "",
            "indifferent": f" None of those left is worse than the first by more than {self.plan.indifference:g}.",
            "spent": f" hydra.sweeper.max_jobs={self.plan.max_jobs} is spent; a larger one with resume=true goes on.",
            "rounds": f" A race has {ROUNDS} rounds at most.",
            "failed": " All combinations failed.",
            None: " It was not over.",
        }[last.end]
        grid = f"{last.seeds} seeds of all {count} combinations would take {last.seeds * count}"
        return f"{last.jobs} jobs in {counted(last.number, 'round')}; {grid}.{why}"

    def _lines(self, one: Round) -> Iterator[dict[str, object]]:
        """Yield a line of race.csv for each combination of a round: its mean, how it compares with the leader, and its
        outcome."""
        outcomes = dict.fromkeys(one.left[:1], "leads") | dict.fromkeys(one.left[1:], "left")
        outcomes |= dict.fromkeys(one.beaten, "beaten") | dict.fromkeys(one.failed, "failed")
        for place, outcome in outcomes.items():
            yield {
                "round": one.number,
                **self.plan.values[place],
                "seeds": one.seeds,
                "mean": one.means.get(place),
                **interval_of(one.comparisons.get(place)),
                "outcome": outcome,
            }

    def _news(self, one: Round) -> str:
        ran = len(one.left) + len(one.beaten) + len(one.failed)
        values = self.plan.values
        leads = f"{job_name(values[one.left[0]], values[0])} leads" if one.left else "none is left"
        failed = f", {len(one.failed)} failed" if one.failed else ""
        return f"Round {one.number}, {one.seeds} seeds each: {len(one.beaten)} of {ran} beaten{failed}; {leads}"
