"""Repeat a run and compare what it logs: `python -m mnist_exp.rerun`."""

import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from mnist_exp import commands
from mnist_exp.config.composition import compose, recompose
from mnist_exp.config.overrides import Override, is_tracking_override
from mnist_exp.config.presets import parse_values
from mnist_exp.config.schema import require_store
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment
from mnist_exp.text import printable, say, truncate
from mnist_exp.tracking import store
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.reading import find_run, points, read_config
from mnist_exp.tracking.records import Record, parse_map

_EXAMPLES = """\
  python -m mnist_exp.rerun RUN_ID
  python -m mnist_exp.rerun RUN_ID seed=1
  python -m mnist_exp.rerun RUN_ID tracking.uri=sqlite:///other.db
"""

_Values = dict[tuple[str, int], float]
_Differing = dict[tuple[str, int], tuple[float | None, float | None]]

_COMPARED = ("machine", "threads", "trained_together")  # beside what can change a result


def main() -> None:
    """Repeat a run.

    Exit with 1 after bad input, or if a metric differs though nothing was overridden.
    """
    about = "Repeat a run as MLflow recorded it, and compare every metric of the two."
    parser = commands.parser("rerun", about, _EXAMPLES)
    parser.add_argument("run_id", help="id of the run to repeat; its first characters are enough")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="what to change, as for a run; tracking.uri=ADDRESS for another store"
    )
    given = parser.parse_intermixed_args()
    with commands.exit_on_errors():
        identical = rerun(given.run_id, given.overrides)
    overridden = any(
        not is_tracking_override(text) and not Override.parse(text).is_below("code") for text in given.overrides
    )
    sys.exit(0 if identical or overridden else 1)


def rerun(run_id: str, overrides: Sequence[str] = ()) -> bool:
    """Repeat a run in its store, and print and return whether all metrics are equal.

    The time, `fit_seconds`, does not count. A configuration from a store may be a stranger's: it is checked as a preset
    is, and does not say where the new run writes.

    Args:
        run_id: of the run to repeat; its first characters are enough.
        overrides: the keys to change, and `tracking.uri=ADDRESS` for another store than the default.

    Raises:
        InputError: if there is no such run, or its configuration or an override cannot be used.
    """
    settings = require_store(compose([text for text in overrides if is_tracking_override(text)]).config.tracking)
    with store.store_errors(settings.uri):
        client = store.connect_existing(settings.uri)
        before = find_run(client, settings.uri, run_id)
        run_id = before.run_id
        if before.is_sweep:
            best = before.fact("best_run")
            named = f", such as the best, {best}" if best else ""
            raise InputError(f"{run_id}: is a sweep; type the id of a job{named}")
        config = parse_values(read_config(client, run_id), f"{run_id}: its config.yaml")
        then = points(before, client)
        name = client.get_experiment(before.tracking["experiment_id"]).name
    _check_code(before, overrides)
    _use_threads(before.fact("threads"))
    try:
        experiment = _restore_names(recompose(config, overrides), before, name, overrides)
    except (ValueError, OverflowError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise InputError(f"{run_id} cannot be repeated: {error}") from error
    from mnist_exp.runner import run_experiment  # imports Keras

    result = run_experiment(experiment)
    after = Folder(result.output).read()
    now = points(after)
    if stopped := before.fact("pruned"):
        say(f"{run_id} was pruned after epoch {stopped}, which a repeat is not; only its epochs are compared")
        then = {(name, epoch): value for (name, epoch), value in then.items() if epoch}
        now = {key: value for key, value in now.items() if key in then}
    if not then:
        say(f"{run_id} is {before.status}, and logged nothing to compare")
        return False
    differing = _differing_values(then, now)
    if before.status != "FINISHED":
        say(f"{run_id} is {before.status}; only what it logged is compared")
    print(_verdict(run_id, differing, then | now))
    if causes := _causes(before, after):
        print("\n".join(["What differs between the two runs:", *causes]))
    elif differing and before.status == "FINISHED":
        print("Both runs have the same configuration, data, packages, machine, threads and code.")
    return not differing


def _check_code(before: Record, overrides: Sequence[str]) -> None:
    """Raise InputError if the run used own code and no `code=FILE` is typed.

    A record never chooses code to run.
    """
    label = before.fact("own_code")
    if label and not any(Override.parse(text).key == "code" for text in overrides):
        name, _, digest = label.rpartition(" ")
        name = name if re.fullmatch(r"[\w-][\w. -]*\.py", name) else "FILE.py"  # a record can say anything
        raise InputError(
            f"code: the run was trained with {name} (digest {digest}), which rerun does not run by itself; the run has "
            f"it as the artifact code/{name}; read it, save it, and add code={name}"
        )


def _use_threads(recorded: str) -> None:
    """Compute with as many threads as the run did.

    TensorFlow rounds a convolution by their number.
    """
    if re.fullmatch(r"[1-9][0-9]{0,3}", recorded) and int(recorded) <= (os.cpu_count() or 1):
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", recorded)


def _restore_names(experiment: Experiment, before: Record, name: str, overrides: Sequence[str]) -> Experiment:
    """Return the experiment with the run's name, in its MLflow experiment by default."""
    settings = require_store(experiment.config.tracking)
    typed = [
        text
        for text in experiment.overrides
        if text != "experiment=recorded" and not Override.parse(text).is_below("code")
    ]
    settings = replace(settings, run_name=settings.run_name or " ".join([printable(before.name), *typed]))
    if not any(Override.parse(text).key == "tracking.experiment" for text in overrides):
        settings = replace(settings, experiment=name)
    config = replace(experiment.config, tracking=settings)
    recorded = truncate(before.fact("overrides"), 1000)
    return replace(experiment, config=config, overrides=tuple(filter(None, [recorded, *typed])), repeats=before.run_id)


def _differing_values(then: _Values, now: _Values) -> _Differing:
    """Return the values that differ, then and now, with None for a missing one."""
    pairs = {key: (then.get(key), now.get(key)) for key in sorted(then.keys() | now.keys())}
    both_nan = {key for key, pair in pairs.items() if all(math.isnan(value or 0) for value in pair)}
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new and key not in both_nan}


def _verdict(run_id: str, differing: _Differing, compared: _Values) -> str:
    if not differing:
        metrics = {name for name, _ in compared}
        return f"Identical to {run_id}: all {len(compared)} values of {len(metrics)} metrics"
    lines = [f"Not identical to {run_id}: {len(differing)} of {len(compared)} values differ; the last of each metric:"]
    last = {name: (step, pair) for (name, step), pair in differing.items()}
    for name, (step, pair) in last.items():
        then, now = ("none" if value is None else f"{value:.8g}" for value in pair)
        lines.append(f"  {printable(name)}{f', epoch {step}' if step else ''}: {then} then, {now} now")
    return "\n".join(lines)


def _causes(before: Record, after: Record) -> list[str]:
    """Return a line for each difference that can change a result, changes first."""
    then, now = _facts(before), _facts(after)
    files = [parse_map(run.fact("code_files")) for run in (before, after)]
    if all(files):  # a job of a sweep has none
        then, now = then | files[0], now | files[1]
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    keys.sort(key=lambda key: not (key in then and key in now))
    return [printable(f"  {key}: {then.get(key, 'none')} then, {now.get(key, 'none')} now") for key in keys]


def _facts(run: Record) -> dict[str, str]:
    """Return a run's configuration, packages, code, data and machine."""
    packages = [package.rpartition(" ")[::2] for package in run.fact("packages").split(", ") if package]
    tags = {name: run.fact(name) for name in ("code", "own_code") if run.fact(name)}
    machine = {name: run.fact(name) or "not recorded" for name in _COMPARED}
    data = {"data": run.digest[:12]} if run.digest else {}
    return {**run.parameters, **dict(packages), **tags, **data, **machine}


if __name__ == "__main__":
    main()
