"""How often importance speaks where nothing matters; `python -m tests.sweeps.importance_replays` prints it.

The objectives are drawn without regard to the values: from a normal distribution, from Student's t with two degrees of
freedom, or as the real runs of `bank.csv` in which the objectives of each seed are dealt out anew. Each seed adds
something of its own to all combinations.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt

from mnist_exp.sweeps.importance import importance
from mnist_exp.tracking.records import Record
from tests.conftest import recorded_job
from tests.sweeps.replays import real_bank

Scores = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, bool], list[Record]]


def finished(objective: float, **values: object) -> Record:
    return recorded_job({key: str(value) for key, value in values.items()}, "FINISHED", float(objective))


def grid(*lengths: int, seeds: int, gaps: int = 0) -> Draw:
    """Return how to draw a grid with as many values by key, in which some jobs failed."""

    def draw(rng: np.random.Generator, heavy: bool) -> list[Record]:
        shared, rows = noise(rng, heavy, seeds), list(product(*map(range, lengths)))
        jobs = [
            finished(shared[seed] + one, seed=seed, **{f"key{key}": value for key, value in enumerate(row)})
            for seed in range(seeds)
            for row, one in zip(rows, noise(rng, heavy, len(rows)), strict=True)
        ]
        return [jobs[place] for place in rng.permutation(len(jobs))[gaps:]]

    return draw


def search(jobs: int, keys: int) -> Draw:
    """Return how to draw a search; every third key has words."""

    def draw(rng: np.random.Generator, heavy: bool) -> list[Record]:
        return [
            finished(
                one,
                **{f"key{key}": rng.choice(["a", "b", "c"]) if key % 3 == 2 else rng.random() for key in range(keys)},
            )
            for one in noise(rng, heavy, jobs)
        ]

    return draw


def bank_jobs(scores: Scores) -> list[Record]:
    """Return the runs of the bank with these objectives, of shape (combinations, seeds)."""
    rows = product((8, 16, 24, 32), ("relu", "sigmoid"), (0.001, 0.003, 0.01))
    return [
        finished(one, hidden=hidden, activation=activation, learning_rate=rate, seed=seed)
        for (hidden, activation, rate), row in zip(rows, scores, strict=True)
        for seed, one in enumerate(row)
    ]


def of_bank(seeds: int) -> Draw:
    """Return how to draw as many seeds of the bank."""
    bank = real_bank()

    def draw(rng: np.random.Generator, _: bool) -> list[Record]:
        return bank_jobs(rng.permuted(bank[:, rng.choice(bank.shape[1], seeds, replace=False)], axis=0))

    return draw


def noise(rng: np.random.Generator, heavy: bool, count: int) -> Scores:
    return rng.standard_t(2, count) if heavy else rng.standard_normal(count)


DRAWS: dict[str, Draw] = {
    **{
        f"grid {'x'.join(map(str, shape))}, {seeds} seeds": grid(*shape, seeds=seeds)
        for shape in ((2, 2), (2, 3), (3, 3), (4, 4, 2))
        for seeds in (1, 2, 3, 5)
    },
    **{
        f"grid {'x'.join(map(str, shape))}, 3 seeds, {gaps} failed": grid(*shape, seeds=3, gaps=gaps)
        for shape, gaps in (((3, 3), 2), ((4, 4, 2), 10))
    },
    **{f"search of {jobs}, {keys} keys": search(jobs, keys) for jobs in (8, 20, 30, 60) for keys in (2, 3, 4)},
    **{f"bank, {seeds} seeds": of_bank(seeds) for seeds in (1, 3, 8)},
}


def share_that_speaks(draw: Draw, sweeps: int, heavy: bool) -> float:
    rng = np.random.default_rng(0)
    return sum(importance(draw(rng, heavy)) is not None for _ in range(sweeps)) / sweeps


def main(sweeps: int = 1000) -> None:
    for name, draw in DRAWS.items():
        shares = [share_that_speaks(draw, sweeps, heavy) for heavy in (False, True)]
        print(f"{name} | {' | '.join(f'{share:.1%}' for share in shares)}", flush=True)
    print(f"a share's standard error: {(0.05 * 0.95 / sweeps) ** 0.5:.1%}")


if __name__ == "__main__":
    main()
