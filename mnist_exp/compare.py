"""Rank the runs of an experiment: `python -m mnist_exp.compare`. Nothing heavy is imported before the store is read."""

import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.files import replaced
from mnist_exp.config.overrides import Override
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Runs
from mnist_exp.text import say
from mnist_exp.tracking.names import short_ids
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mnist_exp.sweeps.charts import Curves
    from mnist_exp.sweeps.past import Found
    from mnist_exp.sweeps.table import Table

_EXAMPLES = """\
  python -m mnist_exp.compare --last 10
  python -m mnist_exp.compare SWEEP_ID RUN_ID
  python -m mnist_exp.compare --filter 'params.`model.hidden` = "64"'
  python -m mnist_exp.compare --sort 'metrics.test_loss ASC' --plot losses.svg
  python -m mnist_exp.compare SWEEP_ID --format latex > table.tex
  python -m mnist_exp.compare tracking.uri=sqlite:///other.db
"""

_CURVES = 200  # runs, after which no row is drawn
_NAMED = 6  # of the runs left out
_LINKED = 20  # runs, which a link still has room for


def main() -> None:
    """Print a ranking of runs and draw their curves; exit with 1 and one message after bad input."""
    about = "Rank the runs of an MLflow experiment by their objective, and draw their curves."
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
    """Print finished runs by their objective, then the others, and draw the curves of the finished into `plot`.

    Each objective, and each way to measure it, has a ranking. Among runs of the same experiment, seed included, only
    the newest counts. The arguments are those of `--help`, `condition` for --filter and `form` for --format.

    Raises:
        InputError: if there is no such store or run, or MLflow refuses the condition or order.
    """
    if last is not None and last < 1:
        raise InputError(f"--last {last}: must be a whole number, at least 1")
    if plot is not None:
        commands.check_plot(plot)
    tables, repeated, curves, link = _read(ids, overrides, condition, sort, last, draw=plot is not None)
    from mnist_exp.sweeps.outcome import as_text

    print(as_text(tables, form))
    beside = []
    if form in {"csv", "json"}:
        beside += [text for table in tables for text in (table.title, *table.sentences)]
    if repeated:
        named = ", ".join([*short_ids(repeated).values()][:_NAMED]) + ", ..." * (len(repeated) > _NAMED)
        beside.append(f"Left out, since a newer run has the same configuration and code: {len(repeated)} ({named})")
    if plot is not None and curves:
        from mnist_exp.figures import write
        from mnist_exp.sweeps.charts import validation_curves

        with replaced(plot) as new:
            write(validation_curves(curves, _metric(tables)), new)
        left_out = f", of the first {len(curves)} rows" * (len(curves) < sum(len(table.rows) for table in tables))
        beside.append(f"Curves in {plot}{left_out}")
    if form == "table":
        beside += link
    for text in beside:
        say(text, sys.stdout if form == "table" else sys.stderr)


def past_runs(condition: str, overrides: Sequence[str], last: int | None) -> Runs:
    """Return the runs of an experiment as `compare` ranks them; the arguments and errors are the same."""
    if last is not None and last < 1:
        raise InputError(f"last={last}: must be a whole number, at least 1")
    tables, *_ = _read((), overrides, condition, None, last, draw=False)
    records = [{"objective": table.objective, **record} for table in tables for record in table.records]
    return Runs(records, "\n".join(table.verdict for table in tables if table.verdict))


def _read(
    ids: Sequence[str], overrides: Sequence[str], condition: str, sort: str | None, last: int | None, *, draw: bool
) -> tuple[list["Table"], list[str], list["Curves"], list[str]]:
    """Return the tables of runs, the ids of those that a newer run repeats, the first rows' curves, and a link."""
    tracking = _where_runs_are(ids, overrides)
    from mlflow.exceptions import MlflowException

    from mnist_exp.sweeps.past import newest_of_each, tables_of
    from mnist_exp.tracking import store

    with store.store_errors(tracking.uri):
        client = store.connect_existing(tracking.uri)
        try:
            found = _find_runs(client, tracking, ids, condition, sort, last)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            typed = " ".join(f"{flag} {text!r}" for flag, text in (("--filter", condition), ("--sort", sort)) if text)
            raise InputError(f"{typed}: {str(error).splitlines()[0]}; --help shows examples") from error
        newest = newest_of_each(found.runs)
        tables = tables_of(replace(found, runs=newest, others=newest_of_each(found.others)), sort)
        kept = {run.run_id for run in newest}
        repeated = [run.run_id for run in found.runs if run.run_id not in kept]
        return tables, repeated, _curves(client, tables) if draw else [], _link(tracking, tables, newest)


def _link(tracking: MLflowTracking, tables: Sequence["Table"], runs: Sequence[Record]) -> list[str]:
    """Return lines with a link to the runs of the tables, or to the first of them, in MLflow's page."""
    from mnist_exp.tracking.store import linked

    ids = [job.run_id for table in tables for job in table.jobs]
    shown = ids[:_LINKED]
    text = f"The first {_LINKED} of these runs, side by side" if len(ids) > _LINKED else "These runs, side by side"
    experiments = sorted({run.tracking["experiment_id"] for run in runs if run.run_id in shown})
    query = {"workflowType": "machine_learning"}
    if len(experiments) == 1:
        page = f"#/experiments/{experiments[0]}/runs"
        query |= {"compareRunsMode": "CHART", "startTime": "ALL", "orderByKey": "metrics.`objective`"}
        query["searchFilter"] = f"attributes.run_id IN ({','.join(map(repr, shown))})"
    else:
        page = "#/compare-runs"
        query |= {"runs": json.dumps(shown), "experiments": json.dumps(experiments)}
    return linked(text, tracking, f"{page}?{urlencode(query)}")


def _where_runs_are(ids: Sequence[str], overrides: Sequence[str]) -> MLflowTracking:
    for text in overrides:
        if Override.of(text).key not in ("tracking", "tracking.uri", "tracking.experiment"):
            raise InputError(
                f"{text}: is not used here; tracking.uri and tracking.experiment say where runs are, --filter which: "
                "see --help"
            )
        if ids and Override.of(text).key == "tracking.experiment":
            raise InputError(f"{text}: is not used with ids, which are looked up in all experiments; leave it out")
    return commands.stored(compose(overrides).config.tracking)


def _find_runs(
    client: "MlflowClient",
    tracking: MLflowTracking,
    ids: Sequence[str],
    condition: str,
    sort: str | None,
    last: int | None,
) -> "Found":
    """Return the runs that fulfil a condition, without sweeps, the newest first or in the order `sort`."""
    from mnist_exp.sweeps.past import Found
    from mnist_exp.tracking.reading import search

    parents: dict[str, str] = {}
    at_once = 1000 if ids or sort or last is None else min(last + 10, 1000)  # some of them are sweeps

    def runs(experiment_id: str, query: str, sweep: str = "") -> Iterator[Record]:
        for run in search(client, experiment_id, query, sort or "attributes.start_time DESC", at_once):
            if not run.is_sweep:
                parents[run.run_id] = sweep or run.tags.get("mlflow.parentRunId", "")
                yield run

    searches = _searches(client, tracking, ids, condition)
    read = (run for one in searches for run in runs(*one))
    found = {run.run_id: run for run in (read if ids or sort else islice(read, last))}
    newest = sorted(found.values(), key=lambda run: run.start, reverse=True)[:last]
    if not newest:
        where = " ".join(ids) or f"tracking.experiment={tracking.experiment}"
        raise InputError(f"{where}: has no such run; --help shows how to filter")
    experiments = dict.fromkeys(experiment_id for experiment_id, *_ in searches)
    if sort is None:
        whole = {sweep for *_, sweep in searches if not (condition or last)} if ids or condition or last else None
        of = {run.run_id: parents[run.run_id] for run in newest}
        return _with_sweeps(client, experiments, newest, of, whole)
    if len(searches) > 1:  # only a single search orders runs
        found = {run.run_id: run for one in experiments for run in runs(one, condition)}
    wanted = {run.run_id for run in newest}
    return Found([run for run_id, run in found.items() if run_id in wanted])


def _with_sweeps(
    client: "MlflowClient",
    experiments: Iterable[str],
    runs: Sequence[Record],
    parents: Mapping[str, str],
    whole: Collection[str] | None,
) -> "Found":
    """Return runs, with the sweeps that they belong to, and what they leave out of these if somebody chose them.

    `parents`: the ids of their sweeps. `whole`: sweeps of which nothing is left out; None for runs that nobody chose.
    """
    from mnist_exp.sweeps.past import Found
    from mnist_exp.sweeps.race import is_race
    from mnist_exp.tracking.reading import queries_by_id, queries_of, search

    queries = queries_by_id(sorted({one for one in parents.values() if re.fullmatch("[0-9a-f]{32}", one)}))
    read = (run for one in experiments for query in queries for run in search(client, one, query))
    sweeps = {run.run_id: run for run in read if run.is_sweep}
    others = {
        run.run_id: run
        for sweep in sweeps.values()
        if whole is not None and sweep.run_id not in whole
        for query in queries_of(sweep)
        for run in search(client, sweep.tracking["experiment_id"], query)
        if run.run_id not in parents
    }
    races = frozenset(one for one, run in sweeps.items() if is_race(run.fact("varied")))
    of = {run: one for run, one in parents.items() if one in sweeps}
    return Found(runs, [*others.values()], of, races, are_picked=whole is not None)


def _searches(
    client: "MlflowClient", tracking: MLflowTracking, ids: Sequence[str], condition: str
) -> list[tuple[str, str, str]]:
    """Return experiments to search, each with a query, and its sweep if it is named."""
    from mnist_exp.tracking.reading import find_run, queries_of

    if ids:
        begin = f"{condition} AND " if condition else ""
        return [
            (run.tracking["experiment_id"], f"{begin}{query}", run.run_id * run.is_sweep)
            for run in [find_run(client, tracking.uri, one) for one in ids]
            for query in queries_of(run)
        ]
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is None:
        names = ", ".join(experiment.name for experiment in client.search_experiments())
        raise InputError(f"tracking.experiment={tracking.experiment}: no such experiment; the store has {names}")
    return [(experiment.experiment_id, condition, "")]


def _metric(tables: Sequence["Table"]) -> str:
    """Return the metric of the curves."""
    metrics = {table.metric for table in tables}
    return metrics.pop() if len(metrics) == 1 else "val_loss"


def _curves(client: "MlflowClient", tables: Sequence["Table"]) -> list["Curves"]:
    from mnist_exp.tracking.reading import curve

    curves: list[Curves] = []
    metric = _metric(tables)
    for table, line in ((one, line) for one in tables for line in one.lines if line.row):
        if sum(len(jobs) for _, _, jobs in curves) < _CURVES:
            place = f"{line.place}  {table.ids[line.jobs[0].run_id]}"
            measured = [curve(client, job.run_id, metric) for job in line.jobs]
            curves.append((place, table.varied.label(line.values), measured))
    return curves


if __name__ == "__main__":
    main()
