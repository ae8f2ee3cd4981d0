"""Rank the runs of an experiment: `python -m mnist_exp.compare`. Imports nothing heavy before it reads the store."""

import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import Override
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError, printable
from mnist_exp.experiment import Runs
from mnist_exp.tracking.job import short_ids
from mnist_exp.tracking.tracker import stored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_EXAMPLES = """\
  python -m mnist_exp.compare --last 10
  python -m mnist_exp.compare SWEEP_ID RUN_ID
  python -m mnist_exp.compare --filter 'params.`model.hidden` = "64" AND metrics.test_accuracy > 0.9'
  python -m mnist_exp.compare --sort 'metrics.test_loss ASC' --plot losses.svg
  python -m mnist_exp.compare SWEEP_ID --format latex > table.tex
  python -m mnist_exp.compare tracking.experiment=mine tracking.uri=sqlite:///other.db
"""

_CURVES = 200  # runs, from which on no row is drawn
_NAMED = 6  # the most that are named of those that are left out


def main() -> None:
    """Print a ranking of runs and draw their curves; exit with 1 and one message after bad input."""
    about = "Rank the runs of an experiment in MLflow by their objective, and draw their curves."
    parser = commands.parser("compare", about, _EXAMPLES)
    parser.add_argument(
        "given",
        nargs="*",
        metavar="ID|OVERRIDE",
        help="only these runs, and the jobs of these sweeps; the first characters of an id are enough. Where runs are: "
        "tracking.experiment=NAME tracking.uri=ADDRESS",
    )
    parser.add_argument("--filter", default="", help="only runs that fulfil a condition in MLflow's search syntax")
    parser.add_argument("--sort", help="list the runs in MLflow's order_by instead of ranking them")
    parser.add_argument("--last", type=int, metavar="N", help="only the newest N runs")
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json", "markdown", "latex"),
        default="table",
        help="what to print; csv and json have a line for each run with all values in full; default: %(default)s",
    )
    parser.add_argument("--plot", type=Path, help="where to draw the curves; default: comparison.png beside a table")
    given = parser.parse_intermixed_args()
    overrides = [text for text in given.given if "=" in text or text.startswith("~")]
    ids = [text for text in given.given if text not in overrides]
    plot = given.plot or (Path("comparison.png") if given.format == "table" else None)
    with commands.exit_on_errors():
        compare(ids, overrides, given.filter, given.sort, given.last, given.format, plot)


def compare(
    ids: Sequence[str],
    overrides: Sequence[str],
    condition: str,
    sort: str | None,
    last: int | None,
    form: str,
    plot: Path | None,
) -> None:
    """Print finished runs by their objective, the others after them, and write the curves of the finished to `plot`.

    Runs of several objectives are ranked one objective after the other. Of runs of the same experiment, seed included,
    only the newest counts.

    Args:
        ids: of runs and sweeps, also shortened; none for all runs of the experiment.
        overrides: which store and experiment, by `tracking.uri` and `tracking.experiment`.
        condition: in MLflow's search syntax; empty for all runs.
        sort: MLflow's `order_by`, for a line a run in that order; None for a ranking.
        last: how many, the newest; None for all.
        form: one of `table`, `csv`, `json`, `markdown`, `latex`.
        plot: a picture to write; None for none.

    Raises:
        InputError: if there is no such store or run, MLflow refuses the condition or order, no run fulfils it, or an
            override is not used.
    """
    tracking = _where_runs_are(ids, overrides)
    if last is not None and last < 1:
        raise InputError(f"--last {last}: must be a whole number, at least 1")
    if plot is not None:
        commands.check_plot(plot)
    from mnist_exp.sweeps.comparison import as_text, newest_of_each, ranked_groups
    from mnist_exp.tracking import store
    from mnist_exp.tracking.reading import curve

    with store.store_errors(tracking.uri):
        client = store.connect_existing(tracking.uri)
        found = _find_runs(client, tracking, ids, condition, sort, last)
        runs = newest_of_each(found)
        kept = {run.info.run_id for run in runs}
        groups = ranked_groups(runs, sort)
        rows = [row for group in groups for row in group.rows]
        metrics = {group.metric for group in groups}
        metric = metrics.pop() if len(metrics) == 1 else "val_loss"
        curves = []
        if plot is not None:
            above = accumulate((len(ids) for _, _, ids in rows), initial=0)  # runs, in the rows before
            drawn = [row for row, count in zip(rows, above, strict=False) if count < _CURVES]
            curves = [(place, label, [curve(client, one, metric) for one in ids]) for place, label, ids in drawn]
    print(as_text(groups, form))
    beside = sys.stdout if form == "table" else sys.stderr
    if form in {"csv", "json"}:
        for line in (line for group in groups for line in (group.title, *group.notes)):
            print(printable(line), file=beside)
    if repeated := [run.info.run_id for run in found if run.info.run_id not in kept]:
        named = ", ".join([*short_ids(repeated).values()][:_NAMED]) + ", ..." * (len(repeated) > _NAMED)
        print(
            f"Left out, since a newer run has the same configuration and code: {len(repeated)} ({named})", file=beside
        )
    if plot is not None and curves:
        from mnist_exp.figures import write
        from mnist_exp.sweeps.charts import validation_curves

        write(validation_curves(curves, metric), plot)
        left_out = f", of the first {len(curves)} rows" if len(curves) < len(rows) else ""
        print(f"Curves in {plot}{left_out}", file=beside)


def past_runs(condition: str, overrides: Sequence[str], last: int | None) -> Runs:
    """Return the runs of an experiment as `compare` ranks them; the arguments and errors are its own."""
    if last is not None and last < 1:
        raise InputError(f"last={last}: must be a whole number, at least 1")
    tracking = _where_runs_are((), overrides)
    from mnist_exp.sweeps.comparison import newest_of_each, ranked_groups
    from mnist_exp.tracking import store

    with store.store_errors(tracking.uri):
        client = store.connect_existing(tracking.uri)
        groups = ranked_groups(newest_of_each(_find_runs(client, tracking, (), condition, None, last)), None)
    records = [record for group in groups for record in group.records]
    return Runs(records, "\n".join(group.verdict for group in groups if group.verdict))


def _where_runs_are(ids: Sequence[str], overrides: Sequence[str]) -> MLflowTracking:
    for text in overrides:
        if Override.of(text).key not in ("tracking", "tracking.uri", "tracking.experiment"):
            raise InputError(
                f"{text}: is not used here; tracking.uri and tracking.experiment say where runs are, --filter which: "
                "see --help"
            )
        if ids and Override.of(text).key == "tracking.experiment":
            raise InputError(f"{text}: is not used with ids, which are looked up in all experiments; leave it out")
    return stored(compose(overrides).config.tracking)


def _find_runs(
    client: "MlflowClient",
    tracking: MLflowTracking,
    ids: Sequence[str],
    condition: str,
    sort: str | None,
    last: int | None,
) -> list["Run"]:
    from mlflow.exceptions import MlflowException

    try:
        if ids:
            found = _named_runs(client, tracking.uri, ids, condition, sort)
        else:
            found = _runs_of_experiment(client, tracking.experiment, condition, sort, last)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        typed = " ".join(f"{flag} {text!r}" for flag, text in (("--filter", condition), ("--sort", sort)) if text)
        raise InputError(f"{typed}: {str(error).splitlines()[0]}; --help shows examples") from error
    newest = sorted(found, key=lambda run: run.info.start_time, reverse=True)[:last]
    if not newest:
        where = " ".join(ids) or f"tracking.experiment={tracking.experiment}"
        raise InputError(f"{where}: has no such run; --help shows how to filter")
    wanted = {run.info.run_id for run in newest}
    return newest if sort is None else [run for run in found if run.info.run_id in wanted]


def _runs_of_experiment(
    client: "MlflowClient", name: str, condition: str, sort: str | None, last: int | None
) -> list["Run"]:
    """Return the runs of an experiment that fulfil a condition, in an order; without one, the newest `last`."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        names = ", ".join(experiment.name for experiment in client.search_experiments())
        raise InputError(f"tracking.experiment={name}: no such experiment; the store has {names}")
    return list(islice(_search(client, experiment.experiment_id, condition, sort), last if sort is None else None))


def _named_runs(client: "MlflowClient", uri: str, ids: Sequence[str], condition: str, sort: str | None) -> list["Run"]:
    """Return the runs and the jobs of the sweeps that are named, if they fulfil a condition; in an order, if they are
    in one experiment."""
    from mnist_exp.tracking.reading import find_run, queries_of

    named = [find_run(client, uri, run_id) for run_id in ids]
    found: dict[str, Run] = {}
    for run in named:
        for query in queries_of(run):
            both = f"{condition} AND {query}" if condition else query
            found |= {one.info.run_id: one for one in _search(client, run.info.experiment_id, both, sort)}
    if sort is None:
        return list(found.values())
    ordered = (_search(client, one, condition, sort) for one in dict.fromkeys(run.info.experiment_id for run in named))
    return [run for runs in ordered for run in runs if run.info.run_id in found]


def _search(client: "MlflowClient", experiment_id: str, query: str, sort: str | None) -> Iterator["Run"]:
    """Yield the runs, but no sweeps, that fulfil a query; the newest first, or in an order."""
    from mnist_exp.tracking.reading import search

    found = search(client, experiment_id, query, sort or "attributes.start_time DESC")
    return (run for run in found if "mnist_exp.sweep" not in run.data.tags)


if __name__ == "__main__":
    main()
