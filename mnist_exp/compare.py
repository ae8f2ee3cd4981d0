"""Rank the runs of an experiment: `python -m mnist_exp.compare`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from mnist_exp import commands
from mnist_exp.config.files import replacing
from mnist_exp.config.schema import MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.experiment import Runs
from mnist_exp.text import say
from mnist_exp.tracking.names import short_ids
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mnist_exp.sweeps.charts import Curves
    from mnist_exp.sweeps.table import Table

_EXAMPLES = """\
  python -m mnist_exp.compare --last 10
  python -m mnist_exp.compare SWEEP_ID RUN_ID
  python -m mnist_exp.compare model.hidden=16,32 'val_accuracy>0.8'
  python -m mnist_exp.compare status=FAILED
  python -m mnist_exp.compare --sort test_loss --plot losses.svg
  python -m mnist_exp.compare SWEEP_ID --format latex > table.tex
  python -m mnist_exp.compare tracking.uri=sqlite:///other.db
"""

_MAX_CURVES = 200  # after so many runs no row is drawn
_MAX_IDS = 6  # ids of runs left out in a line
_MAX_LINKED_RUNS = 20  # a link has room for them


def main() -> None:
    """Print a ranking of runs and draw their curves.

    Exit with 1 and one message after bad input.
    """
    about = "Rank the runs of an MLflow experiment by their objective, and draw their curves."
    parser = commands.parser("compare", about, _EXAMPLES)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WHICH",
        help="ids of runs and sweeps, or their first characters; KEY=VALUE or KEY=VALUE,VALUE for parameters, tags and "
        "status; 'METRIC>NUMBER'. Where the runs are: tracking.experiment=NAME tracking.uri=ADDRESS",
    )
    parser.add_argument("--sort", metavar="METRIC", help="list the runs by a metric instead of ranking them")
    parser.add_argument("--last", metavar="N", help="only the newest N runs")
    parser.add_argument("--like", metavar="ID", help="show the runs that are measured as this one, not as the newest")
    parser.add_argument("--columns", metavar="NAMES", help="columns, such as model.hidden,test_loss,seconds")
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json", "markdown", "latex"),
        default="table",
        help="what to print; csv and json have a line for each run with all values in full; default: %(default)s",
    )
    parser.add_argument("--plot", type=Path, help="where to draw the curves; default: comparison.png beside a table")
    given = parser.parse_intermixed_args()
    plot = given.plot or (Path("comparison.png") if given.format == "table" else None)
    with commands.exit_on_errors():
        columns = tuple(filter(None, (given.columns or "").split(",")))
        compare(given.words, given.sort, given.last, given.like or "", columns, given.format, plot)


def compare(
    words: Sequence[str],
    sort: str | None = None,
    last: object = None,
    like: str = "",
    columns: Sequence[str] = (),
    form: str = "table",
    plot: Path | None = None,
) -> None:
    """Print finished runs by objective, then the others, and draw their curves.

    The table has the runs that measure the same as the newest one, or as `like`; a line counts each other kind. Among
    runs of the same experiment, seed included, only the newest counts.

    Args:
        words: ids of runs and conditions, such as `model.hidden=16`; all runs if empty.
        sort: the metric that orders all chosen runs in one table.
        last: the number of newest runs.
        like: the id of a run; runs that measure the same are compared.
        columns: the names of columns, instead of those that fit the screen.
        form: "table", "csv", "json", "markdown" or "latex".
        plot: the file for the curves; None for no figure.

    Raises:
        InputError: if there is no such store, run, metric or column.
    """
    if plot is not None:
        commands.check_plot(plot)
    tables, repeated, curves, link = _read(words, sort, last, like, columns, draw=plot is not None)
    from mnist_exp.sweeps.past import about_others
    from mnist_exp.sweeps.table import format_tables

    others = about_others(tables)
    print(format_tables(tables, form, others))
    beside = []
    if form in {"csv", "json"}:
        beside += [text for table in tables for text in (table.title, *table.sentences)]
    if repeated:
        named = ", ".join([*short_ids(repeated).values()][:_MAX_IDS])
        more = ", ..." if len(repeated) > _MAX_IDS else ""
        beside.append(
            f"Left out, since a newer run has the same configuration and code: {len(repeated)} ({named}{more})"
        )
    if plot is not None and curves:
        from mnist_exp.figures import write
        from mnist_exp.sweeps.charts import validation_curves

        with replacing(plot) as new:
            write(validation_curves(curves, tables[0].metric), new)
        left_out = f", of the first {len(curves)} rows" if len(curves) < len(tables[0].rows) else ""
        beside.append(f"Curves in {plot}{left_out}")
    if form == "table":
        beside += link
    for text in beside:
        say(text, sys.stdout if form == "table" else sys.stderr)


def past_runs(words: Sequence[str], last: object = None) -> Runs:
    """Return the chosen runs as `compare` ranks them, by its arguments and errors."""
    tables, *_ = _read(words, None, last, "", (), draw=False)
    records = [{"objective": table.objective, **record} for table in tables for record in table.records]
    return Runs(records, "\n".join(table.verdict for table in tables if table.verdict))


def _read(
    words: Sequence[str], sort: str | None, last: object, like: str, columns: Sequence[str], *, draw: bool
) -> tuple[list["Table"], list[str], list["Curves"], list[str]]:
    """Return tables of runs, ids of repeated runs, the first one's curves, and a link."""
    if last is not None and (not str(last).isdecimal() or int(str(last)) < 1):
        raise InputError(f"--last {last}: must be a whole number, at least 1")
    from mnist_exp.sweeps.choice import Words, find_runs
    from mnist_exp.sweeps.past import drop_repeats, make_tables, sorted_table
    from mnist_exp.tracking import reading, store

    chosen = Words.parse(words)
    with store.store_errors(chosen.tracking.uri):
        client = store.connect_existing(chosen.tracking.uri)
        liked = reading.find_run(client, chosen.tracking.uri, like).run_id if like else ""
        found = find_runs(client, chosen, None if last is None else int(str(last)))
        kept = drop_repeats(found.runs)
        repeated = sorted({run.run_id for run in found.runs} - {run.run_id for run in kept})
        found = replace(found, runs=kept, others=drop_repeats(found.others))
        tables = [sorted_table(found, sort, columns)] if sort else make_tables(found, columns)
        tables.sort(key=lambda table: liked not in table.ids)
        if liked and liked not in tables[0].ids:
            raise InputError(f"--like {like}: is not among the runs that were chosen")
        link = _link(chosen.tracking, tables[0], kept)
        return tables, repeated, _curves(client, tables[0]) if draw else [], link


def _link(tracking: MLflowTracking, table: "Table", runs: Sequence[Record]) -> list[str]:
    """Return lines with a link to the runs of a table, or to its first run."""
    from mnist_exp.tracking.store import add_link

    ids = [job.run_id for job in table.jobs]
    shown = ids[:_MAX_LINKED_RUNS]
    text = (
        f"The first {_MAX_LINKED_RUNS} of these runs, side by side"
        if len(ids) > _MAX_LINKED_RUNS
        else "These runs, side by side"
    )
    experiments = sorted({run.tracking["experiment_id"] for run in runs if run.run_id in shown})
    query = {"workflowType": "machine_learning"}
    if len(experiments) == 1:
        page = f"#/experiments/{experiments[0]}/runs"
        query |= {"compareRunsMode": "CHART", "startTime": "ALL", "orderByKey": "metrics.`objective`"}
        query["searchFilter"] = f"attributes.run_id IN ({','.join(map(repr, shown))})"
    else:
        page = "#/compare-runs"
        query |= {"runs": json.dumps(shown), "experiments": json.dumps(experiments)}
    return add_link(text, tracking, f"{page}?{urlencode(query)}")


def _curves(client: "MlflowClient", table: "Table") -> list["Curves"]:
    from mnist_exp.tracking.reading import curve

    curves: list[Curves] = []
    for line in (line for line in table.lines if line.row):
        if sum(len(jobs) for _, _, jobs in curves) < _MAX_CURVES:
            measured = [curve(client, job.run_id, table.metric) for job in line.jobs]
            curves.append(
                (f"{line.place}  {table.ids[line.jobs[0].run_id]}", table.varied.label(line.values), measured)
            )
    return curves


if __name__ == "__main__":
    main()
