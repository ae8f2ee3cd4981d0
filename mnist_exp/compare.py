"""Rank the runs of an experiment: `python -m mnist_exp.compare`. Imports nothing heavy before it reads the store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.errors import InputError, printable
from mnist_exp.sweeps import ranking
from mnist_exp.tracking.job import Job, job_name
from mnist_exp.tracking.tracker import stored

if TYPE_CHECKING:
    from mlflow.entities import Run

_EXAMPLES = """\
  python -m mnist_exp.compare --last 10
  python -m mnist_exp.compare --filter "params.`model.hidden` = '64' AND metrics.test_accuracy > 0.9"
  python -m mnist_exp.compare --filter "tags.mlflow.parentRunId = 'ID OF A SWEEP'"
  python -m mnist_exp.compare --sort "metrics.test_loss ASC"
  python -m mnist_exp.compare tracking.experiment=mine tracking.uri=http://127.0.0.1:5000
"""


_CURVES = 200  # the most that are drawn


def main() -> None:
    """Print a ranking of runs and draw their curves; exit with 1 and one message after bad input."""
    about = "Rank the runs of an experiment in MLflow by their objective, and draw their curves."
    parser = commands.parser("compare", about, _EXAMPLES)
    parser.add_argument("overrides", nargs="*", help="where runs are: tracking.experiment=NAME tracking.uri=ADDRESS")
    parser.add_argument("--filter", default="", help="only runs that fulfil a condition in MLflow's search syntax")
    parser.add_argument("--sort", help="list the runs in MLflow's order_by instead of ranking them")
    parser.add_argument("--last", type=int, metavar="N", help="only the newest N runs")
    parser.add_argument("--plot", type=Path, default=Path("comparison.png"), help="where to draw; default: %(default)s")
    given = parser.parse_intermixed_args()
    with commands.exit_on_errors():
        compare(given.overrides, given.filter, given.sort, given.last, given.plot)


def compare(overrides: Sequence[str], condition: str, sort: str | None, last: int | None, plot: Path) -> None:
    """Print finished runs by their objective, the others after them, and write the curves of the finished to `plot`.

    Of runs of the same experiment, seed included, only the newest counts.

    Args:
        overrides: which store and experiment, by `tracking.uri` and `tracking.experiment`.
        condition: in MLflow's search syntax; empty for all runs.
        sort: MLflow's `order_by`, for a line a run in that order; None for a ranking.
        last: how many, the newest; None for all.
        plot: a picture to write.

    Raises:
        InputError: if there is no such store, MLflow refuses the condition or order, no run fulfils it, or the runs to
            be ranked have different objectives.
    """
    tracking = stored(compose(overrides).config.tracking)
    if last is not None and last < 1:
        raise InputError(f"--last {last}: must be a whole number, at least 1")
    commands.check_plot(plot)
    from mnist_exp.tracking import store
    from mnist_exp.tracking.reading import curve, recorded_job, search

    with store.store_errors(tracking.uri):
        client = store.connect_existing(tracking.uri)
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            names = [experiment.name for experiment in client.search_experiments()]
            there = f"the store has {', '.join(names)}"
            raise InputError(f"tracking.experiment={tracking.experiment}: no such experiment; {there}")
        with _refusals_explained(condition, sort):
            found = search(client, experiment.experiment_id, condition, sort or "attributes.start_time DESC")
            runs = [run for run in found if "mnist_exp.sweep" not in run.data.tags]
        if last is not None:
            newest = sorted(runs, key=lambda run: run.info.start_time, reverse=True)[:last]
            runs = [run for run in runs if run in newest]
        runs = _newest_of_each(runs)
        if not runs:
            raise InputError(f"tracking.experiment={tracking.experiment}: has no such run; --help shows how to filter")
        common, differing = _differences(runs)
        jobs = [
            replace(recorded_job(run), values={key: run.data.params.get(key, "") for key in differing}) for run in runs
        ]
        objective, direction = _objective(runs, ranked=sort is None)
        rest = ranking.unranked(jobs)
        rows = ranking.rank(jobs, direction)
        if sort is not None:
            rows = [ranking.row([job]) for job in jobs if job not in rest]
        title = f"{len(jobs)} runs, {sort or ranking.order(objective, direction)}{_on_the_test_set(runs, objective)}"
        print(printable(title))
        print(ranking.table(rows, rest, objective, common))
        if sort is None and (text := ranking.verdict(rows, common, direction)):
            print(text)
        metric = objective.replace("test_", "val_", 1) if objective != "objective" else "val_loss"
        ranked = [job for row in rows for job in row.jobs]
        curves = {_name(job, common): curve(client, job.run_id, metric) for job in ranked[:_CURVES]}
    if curves:
        from mnist_exp import figures

        figures.write(figures.validation_curves(curves, metric), plot)
        print(f"Curves in {plot}" + (f", of the first {_CURVES}" if len(ranked) > _CURVES else ""))


@contextmanager
def _refusals_explained(condition: str, sort: str | None) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        typed = " ".join(f"{flag} {text!r}" for flag, text in (("--filter", condition), ("--sort", sort)) if text)
        raise InputError(f"{typed}: {str(error).splitlines()[0]}; --help shows examples") from error


def _newest_of_each(runs: Sequence["Run"]) -> list["Run"]:
    """Keep, of runs with one signature, the newest that finished: the same experiment twice says nothing of chance."""
    best: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.info.status == "FINISHED", run.info.start_time)):
        best[run.data.tags.get("mnist_exp.signature", run.info.run_id)] = run
    return [run for run in runs if run in best.values()]


def _differences(runs: Sequence["Run"]) -> tuple[list[str], list[str]]:
    """Return the parameters that differ between the runs: those that all have, worth a column, and all of them."""
    parameters = [run.data.params for run in runs if run.data.params]
    keys = dict.fromkeys(key for one in parameters for key in one)
    differing = [key for key in keys if len({one.get(key, "") for one in parameters}) > 1]
    return [key for key in differing if all(key in one for one in parameters)], differing


def _name(job: Job, keys: Sequence[str]) -> str:
    varying = {key: job.values[key] for key in keys}
    return f"{job_name(varying, keys)} ({job.run_id[:6]})".strip()


def _on_the_test_set(runs: Sequence["Run"], objective: str) -> str:
    watched = any(run.data.params.get("dataset.validation") == "test" for run in runs)
    if objective.startswith("test_") or (objective.startswith("val_") and watched):
        return ", MEASURED ON THE TEST SET where dataset.validation=test or the objective is a test score"
    return ""


def _objective(runs: Sequence["Run"], *, ranked: bool) -> tuple[str, str]:
    """Return the one objective of all runs and its direction.

    Raises:
        InputError: if a ranking is wanted and they have several.
    """
    found = {
        (run.data.params.get("objective"), run.data.params.get("direction"))
        for run in runs
        if "objective" in run.data.params
    }
    if len(found) == 1:
        objective, direction = found.pop()
        return objective or "objective", direction or "maximize"
    if ranked and found:
        names = ", ".join(sorted(str(objective) for objective, _ in found))
        raise InputError(f"the runs have different objectives ({names}); choose with --filter, or list with --sort")
    return "objective", "maximize"


if __name__ == "__main__":
    main()
