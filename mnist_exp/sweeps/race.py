"""Race combinations: all run a few seeds, then those that may still be the best."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice, product
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar, Self

from mnist_exp.config.files import write_text
from mnist_exp.config.overrides import Override, pick_values
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError
from mnist_exp.sweeps.comparable import check_comparable
from mnist_exp.sweeps.formats import as_csv, pluralize
from mnist_exp.sweeps.kind import MAX_JOBS, Kind, SweepOverrides
from mnist_exp.sweeps.ranking import Row, combination
from mnist_exp.sweeps.rounds import MAX_ROUNDS, Launch, Round, play
from mnist_exp.sweeps.verdict import judge, word
from mnist_exp.text import printable
from mnist_exp.tracking.names import job_name, show_value
from mnist_exp.tracking.records import Record, parse_map

_OPEN = "as the race goes"  # the seeds that vary
_MEAN_SEEDS = 20  # a combination's, unless `max_jobs` is given


@dataclass
class Race(Kind):
    """A race between combinations.

    Attributes:
        overrides, values: of each combination; the values by full key.
        seeds: how many each combination runs in the first round.
        indifference: the largest difference in the objective that does not matter.
        seen: seeds that the race may not use.
        notes: lines to show at its start.
        reported: how many of the `rounds` were shown.
    """

    swept: dict[str, str] = field(init=False)
    jobs: int = field(init=False)
    overrides: Sequence[Sequence[str]]
    values: Sequence[Mapping[str, str]]
    seeds: int
    max_jobs: int
    indifference: float
    seen: frozenset[int] = frozenset()
    notes: Sequence[str] = ()
    rounds: list[Round] = field(default_factory=list)
    reported: int = 0
    is_open: ClassVar[bool] = True

    def __post_init__(self) -> None:
        listed = {key: ",".join(dict.fromkeys(row[key] for row in self.values)) for key in self.values[0]}
        self.planned = self.seeds
        self.swept, self.jobs = listed | {"seed": _OPEN}, self.seeds * len(self.values)

    @property
    def has_lists(self) -> bool:
        return not self.seen  # seen rows come from another sweep

    @classmethod
    def from_overrides(cls, typed: SweepOverrides) -> Self:
        """Return the race between all combinations of overrides, or a sweep's best rows.

        Raises:
            InputError: for a seed, fewer than two combinations, too few jobs for the first round, or an earlier sweep
                that cannot be used.
        """
        settings, key = typed.settings, "hydra.sweeper.from_sweep"
        of = None
        if settings.from_sweep is not None:  # Hydra reads an id such as 1e5 as a power of 10
            of = pick_values([key], typed.fixed).get(key, "").strip("'\"") or str(settings.from_sweep)
        seeds = settings.initial_seeds
        for override in [*typed.varied, *map(Override.parse, typed.fixed)]:
            if override.key == "seed":
                how = "hydra.sweeper.initial_seeds=3 is how many each has"
                raise InputError(f"{override.text}: a race chooses the seeds; {how}")
        if of is None:
            typed.count(seeds)
            seen, notes = frozenset[int](), list[str]()
            rows = [dict(zip(typed.varied, samples, strict=True)) for samples in product(*typed.varied.values())]
            too_few = "sweep=race: needs at least two combinations, such as model.hidden=16,32"
        elif typed.varied:
            text = next(iter(typed.varied)).text
            raise InputError(f"{text}: the combinations are those of {key}; leave out one of the two")
        else:
            from mnist_exp.sweeps.best_rows import best_rows  # reads the store

            rows, seen, notes = best_rows(typed, of, settings.n_best)
            too_few = f"{key}={of}: has one row only"
        if len(rows) < 2:
            raise InputError(too_few)
        max_jobs = settings.max_jobs or min(max(_MEAN_SEEDS, seeds) * len(rows), MAX_JOBS)
        if max_jobs < (first := seeds * len(rows)):
            needed = f"{first}: {seeds} seeds of each of {len(rows)} combinations"
            raise InputError(f"hydra.sweeper.max_jobs={max_jobs}: must be at least {needed}")
        values = [{override.key: value for override, value in row.items()} for row in rows]
        return cls(typed.jobs(rows), values, seeds, max_jobs, settings.indifference, seen, notes)

    def list_checks(self, typed: SweepOverrides) -> Sequence[Sequence[str]]:
        return super().list_checks(typed) if typed.varied else self.overrides

    def check(self, configs: Sequence[Config]) -> None:
        check_comparable(configs)
        if (prune := configs[0].prune) is not None:
            why = "which itself drops what is beaten, and compares whole runs"
            raise InputError(f"prune={prune.kind}: leave it out of a race, {why}")

    def opening(self) -> str:
        values = {key: dict.fromkeys(show_value(row[key]) for row in self.values) for key in self.values[0]}
        varied = " ".join(f"{key}={','.join(shown)}" for key, shown in values.items())
        rules = f"A race of {len(self.values)}, {self.seeds} seeds each at first, at most {self.max_jobs} jobs"
        return "\n".join(map(printable, [f"{rules}: {varied}", *self.notes]))

    def signature(self) -> list[object]:
        """Return the combinations and rules.

        `max_jobs` is left out, since a resumed race may have more.
        """
        return ["race", self.values, self.seeds, self.indifference, sorted(self.seen)]

    def propose(self, ended: Sequence[Record], direction: str) -> Sequence[Sequence[str]] | None:
        """Replay all rounds on the jobs that ended, and return the jobs of the next round."""
        known = {(combination(job.values), job.values["seed"]): job.objective for job in ended}
        due: list[list[str]] = []

        def look_up(jobs: Sequence[tuple[int, int]]) -> list[float | None] | None:
            seeds = self._seeds(max(number for _, number in jobs) + 1)
            keys = [(combination(self.values[place]), str(seeds[number])) for place, number in jobs]
            if known.keys() >= set(keys):
                return [known[key] for key in keys]
            due.extend([*self.overrides[place], f"seed={seeds[number]}"] for place, number in jobs)
            return None

        self.rounds = list(self.play(direction, look_up))
        return due or None

    def report(self, folder: Path) -> list[str]:
        """Write the rounds to `race.csv`, and return a line for each new one."""
        new, self.reported = self.rounds[self.reported :], len(self.rounds)
        if new:
            write_text(folder / "race.csv", as_csv([line for ended in self.rounds for line in self._lines(ended)]))
        return list(map(self._news, new))

    def play(self, direction: str, launch: Launch) -> Iterator[Round]:
        """Yield the rounds of this race, by `rounds.play`."""
        return play(len(self.values), self.seeds, self.max_jobs, self.indifference, direction, launch)

    def arrange(self, rows: list[Row], direction: str) -> tuple[list[Row], list[str]]:
        """Return rows in the race, dropped ones (latest first), failed ones, and the end."""
        if not self.rounds:
            return super().arrange(rows, direction)
        last, arranged = self.rounds[-1], dict[int, Row]()
        places = {combination(values): place for place, values in enumerate(self.values)}
        for row in rows:
            place = places[combination(row.values)]
            arranged[place] = replace(
                _select_seeds(row, self._seeds(last.seeds[place])),
                dropped=last.dropped.get(place),
                failed=place in last.failed,
                comparison=last.comparisons.get(place),
            )

        def order(place: int) -> tuple[bool, float, int]:
            row = arranged[place]
            return row.failed, -(row.dropped or math.inf), last.left.index(place) if place in last.left else 0

        return [arranged[place] for place in sorted(arranged, key=order)], [self._ending()]

    def verdict(self, rows: Sequence[Row], images: str, run_id: str) -> str:
        rounds, indifference = len(self.rounds), self.indifference if self.rounds else 0.0
        single = "the race was not over"
        return word(judge(rows, indifference), self.label, images=images, rounds=rounds, single=single)

    def count_unfinished(self, jobs: Sequence[Record], launched: int) -> int:
        """Return how many jobs did not finish.

        An earlier race with a larger `max_jobs` launched more.
        """
        return sum(job.status != "FINISHED" for job in jobs)

    def _seeds(self, number: int) -> list[int]:
        return list(islice((seed for seed in count() if seed not in self.seen), number))

    def _ending(self) -> str:
        last, rows = self.rounds[-1], len(self.values)
        why = {
            "decided": "",
            "indifferent": f" None of those left is better than the first by more than {self.indifference:g}.",
            "spent": f" hydra.sweeper.max_jobs={self.max_jobs} is spent; a larger one with resume=true goes on.",
            "rounds": f" A race has {MAX_ROUNDS} rounds at most.",
            "failed": " All combinations failed.",
            None: " It was not over.",
        }[last.end]
        seeds = max(last.seeds.values())
        grid = f"{seeds} seeds of all {rows} combinations would take {seeds * rows}"
        return f"{last.jobs} jobs in {pluralize(last.number, 'round')}; {grid}.{why}"

    def _lines(self, ended: Round) -> Iterator[dict[str, object]]:
        outcomes = dict.fromkeys(ended.dropped, "beaten") | dict.fromkeys(ended.failed, "failed")
        outcomes |= dict.fromkeys(ended.left[:1], "leads") | dict.fromkeys(ended.left[1:], "left")
        outcomes |= dict.fromkeys(ended.back, "taken back")
        for place in dict.fromkeys([*ended.ran, *ended.back]):
            comparison = ended.comparisons.get(place)
            line = {
                "round": ended.number,
                **self.values[place],
                "seeds": ended.seeds[place],
                "mean": ended.means.get(place),
            }
            apart = {name: getattr(comparison, name, None) for name in ("difference", "at_best")}
            yield line | apart | {"outcome": outcomes[place]}

    def _news(self, ended: Round) -> str:
        new = [place for place, number in ended.dropped.items() if number == ended.number]
        beaten, failed = len([place for place in new if place not in ended.failed]), len(ended.failed.intersection(new))
        leads = f"{job_name(self.values[ended.left[0]], self.values[0])} leads" if ended.left else "none is left"
        more = f", {failed} failed" if failed else ""
        more += f", {len(ended.back)} taken back" if ended.back else ""
        seeds = max(ended.seeds.values())
        return f"Round {ended.number}, {seeds} seeds each: {beaten} of {len(ended.ran)} beaten{more}; {leads}"


def is_race(varied: str) -> bool:
    """Return whether a sweep is a race, given the tag with its varied values."""
    return parse_map(varied).get("seed") == _OPEN


def _select_seeds(row: Row, seeds: Sequence[int]) -> Row:
    """Return a row with the jobs of these seeds alone.

    Jobs of an unfinished round count as missing.
    """
    jobs = tuple(job for job in row.jobs if job.values.get("seed") in set(map(str, seeds)))
    if not jobs or len(jobs) == len(row.jobs):
        return row
    objectives = [job.objective or 0.0 for job in jobs]
    deviation = stdev(objectives) if len(jobs) > 1 else None
    missing = row.missing + len(row.jobs) - len(jobs)
    return replace(row, jobs=jobs, mean=fmean(objectives), deviation=deviation, missing=missing)
