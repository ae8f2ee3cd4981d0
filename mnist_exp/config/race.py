"""What a race decides between: every combination of what is typed, or the best rows of an earlier sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from hydra.types import RunMode

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.composition import check_composed, compose_values
from mnist_exp.config.conversion import convert
from mnist_exp.config.hydra_api import parser_of_conf
from mnist_exp.config.overrides import SHARED_BY_JOBS, Override, flatten, values_of
from mnist_exp.config.presets import may_vary
from mnist_exp.config.schema import Config, RaceSettings
from mnist_exp.errors import InputError
from mnist_exp.experiment import BestRows, RacePlan, of_the_result

# Finds the best rows of a sweep in the store of a configuration: by the sweep's id, and how many.
FindBestRows = Callable[[Config, str, int], BestRows]

_SEEDS_OF_A_GRID = 20  # as many jobs as a grid with them has may be spent, where `max_jobs` does not say


def plan_race(
    sweeper: Mapping[str, Any],
    varied: Mapping[Override, Sequence[str]],
    fixed: Sequence[str],
    code: CodeFile | None,
    find_best_rows: FindBestRows,
) -> RacePlan:
    """Return what a race decides between, and by which rules.

    Args:
        sweeper: Hydra's settings of it, as `conf/sweep/race.yaml` has them.
        varied: what has several values, and these.
        fixed: what was typed with one value.
        code: the file of the user's own.
        find_best_rows: for `of`.

    Raises:
        InputError: for a seed, fewer than two combinations, too few jobs for the first round, or an earlier sweep that
            cannot be used.
    """
    given = {key: value for key, value in sweeper.items() if key not in ("_target_", "params")}
    if given.get("of") is not None:
        # As typed: of digits only, an id is a number to Hydra, and with an e in it one of 10 to that power.
        typed = values_of(["hydra.sweeper.of"], fixed).get("hydra.sweeper.of", "").strip("'\"")
        given["of"] = typed or str(given["of"])
    settings: RaceSettings = convert(RaceSettings, given, "hydra.sweeper")
    for override in [*varied, *map(Override.of, fixed)]:
        if override.key == "seed":
            raise InputError(
                f"{override.text}: a race chooses the seeds; hydra.sweeper.seeds=3 is how many each has at first"
            )
    seen: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    if settings.of is None:
        combinations = [list(zip(varied, samples, strict=True)) for samples in product(*varied.values())]
        values: list[Mapping[str, str]] = [{one.key: value for one, value in chosen} for chosen in combinations]
        own = [[one.set_to(value) for one, value in chosen] for chosen in combinations]
    elif varied:
        text = next(iter(varied)).text
        raise InputError(f"{text}: the combinations are those of hydra.sweeper.of; leave out one of the two")
    else:
        best = find_best_rows(_composed(fixed, code), settings.of, settings.top)
        _check_rows(best.values, settings.of, [Override.of(text).key for text in fixed])
        values, seen = list(best.values), best.seeds
        own = [[f"{key}={value}" for key, value in row.items()] for row in values]
        notes = _unlike(best, _composed([*fixed, *own[0]], code), settings.of)
    if len(values) < 2:
        found = "has one row only" if settings.of else "needs at least two combinations, such as model.hidden=16,32"
        raise InputError(f"{f'hydra.sweeper.of={settings.of}' if settings.of else 'sweep=race'}: {found}")
    shared = [text for text in fixed if not Override.of(text).is_below("hydra")]
    overrides = [[*shared, *combination] for combination in own]
    max_jobs = settings.max_jobs or max(_SEEDS_OF_A_GRID, settings.seeds) * len(values)
    if max_jobs < (first := settings.seeds * len(values)):
        raise InputError(
            f"hydra.sweeper.max_jobs={max_jobs}: must be at least {first}: {settings.seeds} seeds of each of "
            f"{len(values)} combinations"
        )
    return RacePlan(overrides, values, settings.seeds, max_jobs, settings.indifference, seen, notes)


def _composed(overrides: Sequence[str], code: CodeFile | None) -> Config:
    return check_composed(compose_values(overrides, RunMode.RUN), code)


def _check_rows(rows: Sequence[Mapping[str, str]], of: str, typed: Sequence[str]) -> None:
    """Check that the rows of a store set nothing that a preset may not vary, and nothing that is typed too."""
    said, parser = f"hydra.sweeper.of={of}", parser_of_conf()
    for key, value in ((key, value) for row in rows for key, value in row.items()):
        if key in typed:
            raise InputError(f"{key}: varies among the best rows of {said}; leave it out")
        own = Override.of(f"{key}={value}")
        shared = own.is_below(*SHARED_BY_JOBS)
        if not may_vary(key, value) or shared or parser.parse_override(own.text).is_sweep_override():
            raise InputError(f"{said}: {key}={value}: a sweep in a store may not set this; type the values yourself")


def _unlike(best: BestRows, config: Config, of: str) -> tuple[str, ...]:
    """Return in what the configuration differs from that of the earlier sweep, a line a key, ten at most."""
    varied = {"seed", *(key for row in best.values for key in row)}
    before, now = _flat(best.configuration, varied), _flat(asdict(config), varied)
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    more = [f"and {len(keys) - 10} keys more differ"] if len(keys) > 10 else []
    lines = [f"{key} is {now.get(key, 'not set')}; in {of} it was {before.get(key, 'not set')}" for key in keys[:10]]
    return (*lines, *more)


def _flat(values: Mapping[str, Any], without: set[str]) -> dict[str, str]:
    """Return what can change a result, keys joined by dots, without some keys and what is below them."""
    flat = flatten(of_the_result(values))
    return {key: value for key, value in flat.items() if not any(f"{key}.".startswith(f"{one}.") for one in without)}
