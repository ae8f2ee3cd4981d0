"""Races that are replayed on known scores: `python -m tests.sweeps.race_replays` prints the table of the guide.

The real bank, `bank.csv`, has 960 runs of this project: 24 combinations (4 widths, 2 activations, 3 learning rates) by
40 seeds, trained on 10,000 of the first 20,000 training images for 5 epochs, validated on the 10,000 held out. The hard
one has means that are 0.001 apart, with the differences from the mean that the best eight of the real ones have. In the
third the combinations are permuted within each seed, anew for each race, so that all of them are the same.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_exp.sweeps.race import Race, Round

RACES = 500
SEEDS_OF_A_GRID = 20
INDIFFERENCE = 0.004  # as in conf/sweep/race.yaml

Bank = npt.NDArray[np.float64]  # (combinations, seeds)


@dataclass(frozen=True)
class Replayed:
    """What came of many races: shares of them, the median of what was left, and the jobs as a share of a grid's."""

    best_kept: float
    ended: float
    left: float
    jobs: float
    something_beaten: float


def real_bank() -> Bank:
    with (Path(__file__).parent / "bank.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows: dict[tuple[str, ...], list[float]] = {}
    for line in lines:
        key = tuple(line[name] for name in ("model.hidden", "model.activation", "optimizer.learning_rate"))
        rows.setdefault(key, []).append(float(line["val_accuracy"]))
    return np.array(list(rows.values()))


def hard_bank(real: Bank) -> Bank:
    best = real[np.argsort(-real.mean(axis=1))[:8]]
    apart = best - best.mean(axis=1, keepdims=True)
    return np.array([0.94 - 0.001 * place + apart[place % 8] for place in range(len(real))])


def replay(bank: Bank, races: int, *, permuted: bool = False) -> Replayed:
    """Run races of which each draws its seeds anew from those of a bank."""
    rng = np.random.default_rng(0)
    means, count = bank.mean(axis=1), len(bank)
    values = [{"place": str(place)} for place in range(count)]
    race = Race([[]] * count, values, seeds=3, max_jobs=SEEDS_OF_A_GRID * count, indifference=INDIFFERENCE)
    ends: list[Round] = []
    for _ in range(races):
        scores = rng.permuted(bank, axis=0) if permuted else bank
        drawn = scores[:, rng.integers(0, bank.shape[1], race.max_jobs)]

        def launch(jobs: Sequence[tuple[int, int]], drawn: Bank = drawn) -> list[float]:
            return [float(drawn[job]) for job in jobs]

        *_, last = race.play("maximize", launch)
        ends.append(last)
    kept = [means[list(last.left)].max() >= means.max() - INDIFFERENCE for last in ends]
    return Replayed(
        best_kept=float(np.mean(kept)),
        ended=float(np.mean([last.end in ("decided", "indifferent") for last in ends])),
        left=float(np.median([len(last.left) for last in ends])),
        jobs=float(np.mean([last.jobs for last in ends])) / race.max_jobs,
        something_beaten=float(np.mean([len(last.left) < count for last in ends])),
    )


def main() -> None:
    real = real_bank()
    replays = {
        "960 real runs": replay(real, RACES),
        "neighbours 0.001 apart": replay(hard_bank(real), RACES),
        "all the same": replay(real, RACES, permuted=True),
    }
    print(f"{RACES} races each | a best one kept | ended by decision or indifference | left | jobs of a grid's")
    for name, one in replays.items():
        kept = f"{one.best_kept:.1%}" if name != "all the same" else f"something beaten in {one.something_beaten:.1%}"
        print(f"{name} | {kept} | {one.ended:.1%} | {one.left:.0f} | {one.jobs:.1%}")


if __name__ == "__main__":
    main()
