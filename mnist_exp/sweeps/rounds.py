"""Play a race's rounds: which combinations run, are dropped, are taken back."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mnist_exp.sweeps.statistics import LEVEL, Comparison, compare_with_first

MAX_ROUNDS = 10
_ROUND_LEVEL = LEVEL / MAX_ROUNDS  # all rounds together err in at most 5 % of races

# Runs jobs, given by the places of their combination and seed, from 0, and returns their objectives: None for one that
# failed. Returns None instead of a list to stop the race.
Launch = Callable[[Sequence[tuple[int, int]]], Sequence[float | None] | None]


@dataclass(frozen=True)
class Round:
    """The state of a race after a round, with combinations as places.

    Attributes:
        number: from 1.
        jobs: how many have run so far.
        seeds: how many each combination has run.
        left: may be the best, the leader first.
        back: of these, taken back in this round, since the leader no longer beats them.
        dropped: the round that dropped each other one.
        failed: of these, dropped since a job failed.
        means: of all but the failed.
        comparisons: with the leader.
        end: `decided`, `indifferent`, `spent`, `rounds` or `failed`; None if the race goes on.
    """

    number: int
    jobs: int
    seeds: Mapping[int, int]
    left: tuple[int, ...]
    back: tuple[int, ...]
    dropped: Mapping[int, int]
    failed: frozenset[int]
    means: Mapping[int, float]
    comparisons: Mapping[int, Comparison]
    end: str | None

    @property
    def ran(self) -> list[int]:
        """The combinations that had jobs in this round, in the order of their objectives."""
        most = max(self.seeds.values())
        places = dict.fromkeys([*self.left, *self.dropped])
        return [
            place for place in places if self.seeds[place] == most and self.dropped.get(place) in (None, self.number)
        ]


def play(
    combinations: int, seeds: int, max_jobs: int, indifference: float, direction: str, launch: Launch
) -> Iterator[Round]:
    """Yield the rounds of a race, each as soon as its jobs have ended.

    A combination is dropped if the leader beats it seed by seed, and as if the two shared no seeds. The second question
    is asked of all that were dropped in each round, by all seeds of both: a row that the leader no longer beats is
    taken back, and runs the seeds that it lacks.

    Args:
        combinations: how many there are.
        seeds: how many each runs in the first round.
        max_jobs: of the whole race.
        indifference: the largest difference in the objective that does not matter.
        direction: `maximize` or `minimize`.
        launch: runs jobs. One that fails drops its combination.
    """
    sign = 1 if direction == "maximize" else -1
    left = list(range(combinations))
    scores: list[dict[str, float]] = [{} for _ in left]
    had, dropped, failed = dict.fromkeys(left, 0), dict[int, int](), set[int]()
    jobs, target = 0, seeds
    for number in range(1, MAX_ROUNDS + 1):
        launched = [(place, seed) for place in left for seed in range(had[place], target)]
        if (objectives := launch(launched)) is None:
            return
        for (place, seed), objective in zip(launched, objectives, strict=True):
            if objective is None or not math.isfinite(objective):
                failed.add(place)
            else:
                scores[place][str(seed)] = objective
        jobs, had = jobs + len(launched), had | dict.fromkeys(left, target)
        means = {place: fmean(row.values()) for place, row in enumerate(scores) if place not in failed}
        ranked = sorted(means, key=lambda place: -sign * means[place])
        ran = [place for place in ranked if place in left] or ranked  # all come back if all that were left failed
        comparisons = _compare(scores, ran, ranked, direction)
        back = [place for place in ranked if place not in ran and not comparisons[place].is_beaten]
        left = [place for place in ran if place == ran[0] or not comparisons[place].is_beaten] + back
        dropped = {place: dropped.get(place, number) for place in [*ranked, *failed] if place not in left}
        lacking = sum(target - had[place] for place in left)
        new = min(max(2, target // 2), (max_jobs - jobs - lacking) // max(len(left), 1))
        end = None
        if len(left) < 2:
            end = "decided" if left else "failed"
        elif max(comparisons[place].at_best for place in left[1:]) <= indifference:
            end = "indifferent"
        elif new < 1 or number == MAX_ROUNDS:
            end = "spent" if new < 1 else "rounds"
        yield Round(number, jobs, had, tuple(left), tuple(back), dropped, frozenset(failed), means, comparisons, end)
        if end is not None:
            return
        target += new


def _compare(
    scores: Sequence[Mapping[str, float]], ran: Sequence[int], ranked: Sequence[int], direction: str
) -> dict[int, Comparison]:
    """Compare the combinations in `ranked` with the leader on the same seeds.

    Pairs say most, but a few of them miss that a combination fails now and then. So a row that they call beaten is
    compared once more as if it shared no seeds.
    """
    found: dict[int, Comparison | None] = {}
    if ran:
        paired = compare_with_first([scores[place] for place in ran], direction, _ROUND_LEVEL, len(scores))
        found = dict(zip(ran[1:], paired, strict=True))
        for place in ranked:
            if place != ran[0] and ((one := found.get(place)) is None or one.is_beaten):
                own = {f"own {seed}": score for seed, score in scores[place].items()}
                [found[place]] = compare_with_first([scores[ran[0]], own], direction, _ROUND_LEVEL, len(scores))
    return {place: ended for place, ended in found.items() if ended is not None}
