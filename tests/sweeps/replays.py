"""Sweeps and races replayed on known scores: `python -m tests.sweeps.replays` prints the tables of the guide.

The real bank, `bank.csv`, has 960 runs of this project: 24 combinations (4 widths, 2 activations, 3 learning rates) by
40 seeds, trained on 10,000 of the first 20,000 training images for 5 epochs, validated on the 10,000 held out. A second
one has means that are 0.001 apart, with the differences from the mean that the best eight of the real ones have. In the
third each combination of the real one lacks its mean, so that all are equally good, and vary as they do. The fourth is
of normal numbers, one combination ten times as noisy as the others. The fifth, `skewed_bank.csv`, has 240 real runs:
learning rates of 0.003, 0.01, 0.012 and 0.1 by 60 seeds, of which the last fails in three.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_exp.sweeps.race import Race
from mnist_exp.sweeps.rounds import Round
from mnist_exp.sweeps.statistics import compare_with_first

SWEEPS, RACES = 1000, 500
STANDS = 4000  # replays of each of several equally good rows
SEEDS_OF_A_GRID = 20
INDIFFERENCE = 0.004  # the value of conf/sweep/race.yaml

Scores = npt.NDArray[np.float64]  # (combinations, seeds)


@dataclass(frozen=True)
class Told:
    """What came of many sweeps.

    `told`: the share of beaten rows among those that are worse than the truly best by more than the indifference.
    `best_beaten`: in what share of sweeps the truly best row is called beaten; the largest, where several are best.
    """

    told: float
    best_beaten: float


@dataclass(frozen=True)
class Raced:
    """What came of many races.

    `best_kept`: the share that kept a row within the indifference of the best. `best_leads`: the share with such a row
    as leader. `dropped`: the largest share in which one and the same row was dropped. `best_dropped`: the share that
    dropped the best. `ended`: the share that ended by decision or indifference. `left`: the median of how many were
    left. `jobs`: as a share of a grid's.
    """

    best_kept: float
    best_leads: float
    dropped: float
    best_dropped: float
    ended: float
    left: float
    jobs: float


def _read(name: str) -> Scores:
    """Return the scores in a file that has a line for each combination: its name, then a score for each seed."""
    with (Path(__file__).parent / name).open() as file:
        return np.array([list(map(float, line[1:])) for line in csv.reader(file)])


def real_bank() -> Scores:
    return _read("bank.csv")


def skewed_bank() -> Scores:
    return _read("skewed_bank.csv")


def hard_bank() -> Scores:
    real = real_bank()
    apart = equal_means(real[np.argsort(-real.mean(axis=1))[:8]])
    return np.array([0.94 - 0.001 * place + apart[place % 8] for place in range(len(real))])


def equal_means(bank: Scores) -> Scores:
    return np.array([row - row.mean() for row in bank])


def noisy_bank(deviations: Sequence[float] = (10, *[1] * 23), seeds: int = 4000) -> Scores:
    return equal_means(np.random.default_rng(0).normal(0, 0.01, (seeds, len(deviations))).T * np.vstack(deviations))


def beaten(scores: Sequence[dict[str, float]], direction: str = "maximize") -> list[int]:
    """Return the places of the rows that are called beaten, given their scores by seed."""
    means = [float(np.mean(list(row.values()))) for row in scores]
    order = sorted(range(len(scores)), key=lambda place: means[place], reverse=direction == "maximize")
    found = compare_with_first([scores[place] for place in order], direction)
    return [
        place
        for place, comparison in zip(order[1:], found, strict=True)
        if comparison is not None and comparison.is_beaten
    ]


def replay_sweeps(bank: Scores, rows: int, seeds: int, sweeps: int) -> Told:
    """Rank sweeps of which each draws its rows and its seeds from those of a bank."""
    rng, means = np.random.default_rng(0), bank.mean(axis=1)
    due = told = 0
    best, lost = np.zeros(len(bank)), np.zeros(len(bank))
    for _ in range(sweeps):
        drawn = rng.choice(len(bank), rows, replace=False)
        scores = bank[drawn][:, rng.choice(bank.shape[1], seeds, replace=False)]
        behind = means[drawn].max() - means[drawn]
        found = beaten([dict(zip(map(str, range(seeds)), row, strict=True)) for row in scores.tolist()])
        due += int((behind > INDIFFERENCE).sum())
        told += int((behind[found] > INDIFFERENCE).sum())
        best[drawn[behind < 1e-9]] += 1
        lost[drawn[found][behind[found] < 1e-9]] += 1
    several = best.sum() > sweeps
    share = (lost / np.maximum(best, 1)).max() if several else lost.sum() / sweeps
    return Told(told / due if due else 0.0, float(share))


def replay_races(bank: Scores, races: int) -> Raced:
    """Run races of which each draws its seeds anew from those of a bank."""
    rng = np.random.default_rng(0)
    means, count = bank.mean(axis=1), len(bank)
    values = [{"place": str(place)} for place in range(count)]
    race = Race([[]] * count, values, seeds=3, max_jobs=SEEDS_OF_A_GRID * count, indifference=INDIFFERENCE)
    ends: list[Round] = []
    for _ in range(races):
        drawn = bank[:, rng.integers(0, bank.shape[1], race.max_jobs)]

        def launch(jobs: Sequence[tuple[int, int]], drawn: Scores = drawn) -> list[float]:
            return [float(drawn[job]) for job in jobs]

        *_, last = race.play("maximize", launch)
        ends.append(last)
    kept = np.array([[place in last.left for place in range(count)] for last in ends])
    is_best = means >= means.max() - INDIFFERENCE
    return Raced(
        best_kept=float(kept[:, is_best].any(axis=1).mean()),
        best_leads=float(np.mean([is_best[last.left[0]] for last in ends])),
        dropped=float(1 - kept.mean(axis=0).min()),
        best_dropped=float(1 - kept[:, means.argmax()].mean()),
        ended=float(np.mean([last.end in ("decided", "indifferent") for last in ends])),
        left=float(np.median([len(last.left) for last in ends])),
        jobs=float(np.mean([last.jobs for last in ends])) / race.max_jobs,
    )


def lines_of_sweeps() -> Iterator[str]:
    real, hard = real_bank(), hard_bank()
    yield "| rows, seeds | told: real runs | 0.001 apart | best called beaten: real runs | 0.001 apart | equal means |"
    yield "|---|---|---|---|---|---|"
    for rows in (6, 24):
        for seeds in (3, 5, 8):
            one, near = (replay_sweeps(bank, rows, seeds, SWEEPS) for bank in (real, hard))
            equal = replay_sweeps(equal_means(real), rows, seeds, STANDS * len(real) // rows)
            shares = [one.told, near.told, one.best_beaten, near.best_beaten, equal.best_beaten]
            told, wrong = [f"{share:.0%}" for share in shares[:2]], [f"{share:.1%}" for share in shares[2:]]
            yield " | ".join([f"| {rows}, {seeds}", *told, *wrong]).replace("%", " %") + " |"


def lines_of_races() -> Iterator[str]:
    yield "| replayed on | a best one is kept | a best one leads | it ends | left, median | jobs of a grid's |"
    yield "|---|---|---|---|---|---|"
    real = real_bank()
    banks = {"960 real runs": real, "neighbours 0.001 apart": hard_bank(), "4 rows, one fails at times": skewed_bank()}
    banks |= {"equal means": equal_means(real), "equal means, one ten times as noisy": noisy_bank()}
    for name, bank in banks.items():
        one = replay_races(bank, RACES)
        kept = f"{one.best_kept:.1%} | {one.best_leads:.1%}"
        if "equal" in name:
            kept = f"each dropped in at most {one.dropped:.1%} |"
        if "fails" in name:
            kept = f"the best one is dropped in {one.best_dropped:.1%} |"
        line = f"| {name} | {kept} | {one.ended:.1%} | {one.left:.0f} | {one.jobs:.1%} |"
        yield line.replace("%", " %")


def main() -> None:
    for lines in (lines_of_sweeps(), lines_of_races()):
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
