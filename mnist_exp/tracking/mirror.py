"""Mirror folders to runs of MLflow, as often as needed.

Only this module writes runs to a store.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mnist_exp.config.files import copy_files, is_file, read_text
from mnist_exp.errors import InputError
from mnist_exp.tracking import locks
from mnist_exp.tracking.folder import Folder, Line, Mirrored
from mnist_exp.tracking.logged_models import register, send_model
from mnist_exp.tracking.reading import PROFILE, find_mirror_run, get_run, read_runs, record_of
from mnist_exp.tracking.records import DESCRIPTION, REUSED, Record
from mnist_exp.tracking.store import Store, read_mirrored, repository, shorten_address, sqlite_path
from mnist_exp.tracking.views import show_sweep

if TYPE_CHECKING:
    from mlflow.entities import Run

_METRICS_IN_A_BATCH, _PARAMETERS_IN_A_BATCH = 800, 100  # the most that MLflow takes, with tags 1,000 in all
_IN_EACH_LINE = {"loss", "objective"}  # the one in epochs, the other at the end; sent last, when the line is complete
# The tags of this project's that a person reads on a run's page, beside its folder.
_READ = tuple(f"mnist_exp.{name}" for name in ("overrides", "packages", "signature", "swept", "sweep", "varied"))
_MAX_NAME_CHARS = 250  # all of MLflow's databases take so many
_MAX_DESCRIPTION_CHARS = 8000  # the most that MLflow takes
_RANKING = "### Ranking of the jobs"
_OURS = re.compile(rf"^(?:\*\*Result:\*\*|{_RANKING}).*", re.MULTILINE | re.DOTALL)  # the end of a description


class BusyError(Exception):
    """Another process works in the folder."""


def mirror(folder: Folder, store: Store) -> Mirrored:
    """Bring the run of a folder in a store to the folder's state.

    A run that goes on gets its values, an ended one all.
    It may be called again after any interruption. The run is found by the id of the folder's record, and created if it
    is missing; one that had all and was deleted in the store stays deleted. A run that goes on is RUNNING again. The
    model of a run, or of a sweep's best job, is registered if the store's settings have a name for it.

    Raises:
        InputError: if the store keeps the run's artifacts where it may not, or has a later state of the run.
        BusyError: if another process works in the folder.
        OSError: if the folder is gone.
    """
    with locks.held(folder.top) as is_mine:
        record, known = folder.read(), read_mirrored(folder, store.settings.uri)
        if is_mine is False or (is_mine is None and record.status == "RUNNING"):
            raise BusyError(f"another process works in {folder.path}")
        run = _find_run(store, record, known.run_id)
        if run is None and known.complete and _was_deleted(store, record, known.run_id):
            return known
        run = run or _create_run(store, record)
        complete = f"{record.status} {record.stage} {record.end}"
        has_all = (known.run_id, known.complete, run.info.status) == (run.info.run_id, complete, record.status)
        if has_all and not folder.has_model():
            return Mirrored(known.run_id, known.complete)
        is_older = (record.end or 0) < (run.info.end_time or 0)
        if run.info.status == "FINISHED" and record.status in {"KILLED", "FAILED"} and is_older:
            raise InputError(f"{folder.path}: is an older copy; run {run.info.run_id} has FINISHED since")
        if run.info.run_id != known.run_id:
            known = _note(folder, store, Mirrored(run.info.run_id))
        best = _best(store, folder, record, run)
        if record.status == "RUNNING" != run.info.status:
            store.client.update_run(run.info.run_id, status="RUNNING")
        _send_values(store, folder, record, run, best)
        if record.status == "RUNNING":
            return known
        _send_end(store, folder, record, run)
        outcome = register(store, record, run.info.run_id, best)
        return _note(folder, store, Mirrored(run.info.run_id, complete, outcome))


def _note(folder: Folder, store: Store, mirrored: Mirrored) -> Mirrored:
    with suppress(OSError):  # a read-only folder: the run is found by its tag, too
        folder.write_mirrored(shorten_address(store.settings.uri), mirrored)
    return mirrored


def _find_run(store: Store, record: Record, known: str) -> "Run | None":
    """Return the run of a record, `known` or found, and delete its empty duplicates.

    A server makes several where a request is repeated whose answer was lost.
    """
    same = read_runs(store, record.id)
    chosen = max(same, key=lambda run: (run.info.run_id == known, len(run.data.metrics)), default=None)
    for run in same:
        if run is not chosen and not run.data.metrics:
            store.client.delete_run(run.info.run_id)
    return chosen


def _was_deleted(store: Store, record: Record, run_id: str) -> bool:
    run = get_run(store.client, run_id)  # None in a new store at the same address
    is_own = run is not None and run.data.tags.get("mnist_exp.folder") == record.id
    return run is not None and is_own and str(run.info.lifecycle_stage) == "deleted"


def _create_run(store: Store, record: Record) -> "Run":
    """Create the run of a new folder, and delete the earlier tries that it replaces.

    Raises:
        InputError: if the store would keep the run's artifacts where it may not; the run has then FAILED.
    """
    for earlier in re.findall(r"\b[0-9a-f]{32}\b", record.fact("replaces")):
        for run in read_runs(store, earlier):
            if run.info.status != "FINISHED":
                store.client.delete_run(run.info.run_id)
    tags = _make_tags(store, record, best="")
    run = store.client.create_run(store.experiment_id, record.start, tags, record.name[:_MAX_NAME_CHARS])
    try:
        repository(store.client.tracking_uri, run.info.artifact_uri)
    except BaseException:
        store.client.set_terminated(run.info.run_id, "FAILED")
        raise
    is_server = sqlite_path(store.client.tracking_uri) is None
    return (is_server and _find_run(store, record, "")) or run


def _best(store: Store, folder: Folder, record: Record, run: "Run") -> str:
    """Return the run id of a sweep's best job, mirrored first, or ""."""
    known = record_of(run, store.client).fact("best_run")
    if not record.best:
        return known
    best = Folder(folder.path / record.best)
    with suppress(InputError, OSError):  # its folder is gone
        return find_mirror_run(store, best, known) or mirror(best, store).run_id
    return ""


def _send_values(store: Store, folder: Folder, record: Record, run: "Run", best: str) -> None:
    """Send the data, tags, parameters and metrics that a run lacks."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    client, run_id = store.client, run.info.run_id
    if record.data is not None and not (run.inputs and run.inputs.dataset_inputs):
        used = DatasetInput(
            Dataset(**record.data),
            [InputTag("mlflow.data.context", "training"), InputTag(PROFILE, record.data.get("profile", ""))],
        )
        try:
            client.log_inputs(run_id, [used])
        except MlflowException as error:
            # MLflow refuses one of two jobs that add a dataset at once.
            if not re.search("unique|duplicate", str(error), re.IGNORECASE):
                raise
            client.log_inputs(run_id, [used])
    wanted, has = _tags(store, folder, record, run, best).items(), run.data
    tags = [RunTag(key, value) for key, value in wanted if has.tags.get(key) != value]
    parameters = [Param(key, value) for key, value in record.parameters.items() if key not in has.params]
    sent = set() if record.is_sweep else _sent_lines(store, run)  # a sweep's scores may be what they were before others
    metrics: list[Metric] = [
        Metric(key, value, line["time"], line["step"])
        for line in folder.read_metrics()
        if _mark(line) not in sent
        for key, value in sorted(line["metrics"].items(), key=lambda item: item[0] in _IN_EACH_LINE)
    ]
    while tags or parameters or metrics:
        client.log_batch(
            run_id,
            metrics[:_METRICS_IN_A_BATCH],
            parameters[:_PARAMETERS_IN_A_BATCH],
            tags[:_PARAMETERS_IN_A_BATCH],
        )
        del metrics[:_METRICS_IN_A_BATCH], parameters[:_PARAMETERS_IN_A_BATCH], tags[:_PARAMETERS_IN_A_BATCH]


def _sent_lines(store: Store, run: "Run") -> set[tuple[int, float | None]]:
    """Return the marks of the lines that a run has.

    MLflow would add those of an epoch that is trained again.
    """
    names = _IN_EACH_LINE & run.data.metrics.keys()
    points = [point for name in names for point in store.client.get_metric_history(run.info.run_id, name)]
    return {(point.step, point.value) for point in points}


def _mark(line: Line) -> tuple[int, float | None]:
    """Return a line's identity, times aside: step, and loss or objective."""
    return line["step"], line["metrics"].get("loss" if line["step"] else "objective")


def _make_tags(store: Store, record: Record, best: str) -> dict[str, str]:
    """Return the tags of a record in a store: six for people, and one for the rest."""
    rest = {key for key in record.tags if key.startswith("mnist_exp.") and not key.startswith((REUSED, *_READ))}
    tags = {key: value for key, value in record.tags.items() if key not in rest}
    database, output = sqlite_path(store.client.tracking_uri), record.output
    if database is not None and Path(output).is_relative_to(database.parent):
        output = str(Path(output).relative_to(database.parent))  # it stays true when the project is moved
    more = {key.removeprefix("mnist_exp."): record.tags[key] for key in sorted(rest)}
    more |= {"best_run": best} if best else {}
    return tags | {
        "mnist_exp.folder": record.id,
        "mnist_exp.output": output,
        "mnist_exp.record": json.dumps(more),
    }


def _tags(store: Store, folder: Folder, record: Record, run: "Run", best: str) -> dict[str, str]:
    """Return the tags that the run lacks, except those that a user may edit."""
    has = run.data.tags
    stored = _make_tags(store, record, best).items()
    tags = {key: value for key, value in stored if key.startswith("mnist_exp.") or key not in has}
    if "mlflow.parentRunId" in record.tags and (
        parent := find_mirror_run(store, Folder(folder.path.parent), has.get("mlflow.parentRunId", ""))
    ):
        tags["mlflow.parentRunId"] = parent  # in another store, it has another id
    ranking = folder.path / "ranking.md"
    if record.status != "RUNNING" and is_file(ranking, folder.path):
        verdict, _, table = read_text(ranking, folder=folder.path).partition("\n\n")
        begun = f"{_OURS.sub('', has.get(DESCRIPTION, '')).rstrip()}\n\n**Result:** {verdict}\n\n{_RANKING}\n\n"
        if table and len(text := begun.lstrip() + table) <= _MAX_DESCRIPTION_CHARS:
            tags[DESCRIPTION] = text
    return tags


def _send_end(store: Store, folder: Folder, record: Record, run: "Run") -> None:
    """Send the files, model and status of an ended run, and save a sweep's view."""
    run_id = run.info.run_id
    with TemporaryDirectory() as copies:
        copy_files(folder.path, record.sent_files(), Path(copies))
        repository(store.client.tracking_uri, run.info.artifact_uri).log_artifacts(copies)
    if record.status == "FINISHED":
        send_model(store, folder, run_id)
    store.client.set_terminated(run_id, record.status, record.end)
    if record.is_sweep:
        show_sweep(store, folder, record, run_id)
