"""Mirror a folder as a run of MLflow, idempotently."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.config.files import MODEL_FILES, NEW_MODEL, copy_files, is_file, read_text, remove_files
from mnist_exp.errors import InputError
from mnist_exp.experiment import package_version
from mnist_exp.learning.datasets import Data
from mnist_exp.learning.metadata import write_metadata
from mnist_exp.tracking import locks, store, views
from mnist_exp.tracking.folder import Folder, Measured, Mirrored
from mnist_exp.tracking.kept_models import model_of_run
from mnist_exp.tracking.names import job_name, typed_value
from mnist_exp.tracking.reading import PROFILE, stored_run
from mnist_exp.tracking.records import DESCRIPTION, REUSED, Record, map_in
from mnist_exp.tracking.registry import registered

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_IN_A_BATCH, _PARAMETERS_IN_A_BATCH = 800, 100  # the most that MLflow takes, with tags 1,000 in all
_IN_EACH_LINE = {"loss", "objective"}  # the one in epochs, the other at the end; sent last, when the line is complete
# The tags of this project's that a person reads on a run's page, beside its folder.
_READ = tuple(f"mnist_exp.{name}" for name in ("overrides", "packages", "signature", "swept", "sweep", "varied"))
_LONGEST_NAME = 250  # that all of MLflow's databases take
_LONGEST_DESCRIPTION = 8000  # characters, the most that MLflow takes
_RANKING = "### Ranking of the jobs"
_OURS = re.compile(rf"^(?:\*\*Result:\*\*|{_RANKING}).*", re.MULTILINE | re.DOTALL)  # the end of a description
_MOST_NAMED = 60  # runs, for which a tag has room


@dataclass
class Sent:
    """What the store is known to have of a folder, given by the id of its record.

    `lines` has those of `metrics.jsonl`, by step and loss or objective. `registered` says how the model was registered,
    if it was to be.
    """

    folder: str
    run_id: str
    artifacts: str | None
    status: str
    tags: dict[str, str]
    parameters: bool = False
    data: bool = False
    lines: set[tuple[int, float | None]] = field(default_factory=set)
    registered: str = ""


class BusyError(Exception):
    """Another process works in the folder."""


def mirror(
    client: "MlflowClient", experiment_id: str, folder: Folder, sent: Sent | None = None, *, register: str | None = None
) -> Sent:
    """Send the tags, parameters, data and metrics that a run lacks; if it ended, its files, model and status too.

    `sent` is what an earlier call returned; without it, the folder's run is searched in the store, and created if it is
    missing; one that had all and was deleted there stays deleted. A run that goes on is RUNNING again. `register` is
    the name for the model of a run, or of a sweep's best job.

    Raises:
        InputError: if the store keeps the run's artifacts where it may not, or has a later state of the run.
        BusyError: if another process works in the folder.
        OSError: if the folder is gone.
    """
    with locks.held(folder.top) as is_mine:
        record = folder.read()
        if is_mine is False or (is_mine is None and record.status == "RUNNING"):
            raise BusyError(f"another process works in {folder.path}")
        address, before = store.recorded_address(client.tracking_uri), folder.mirrored()
        known = before.run_id if before is not None and store.recorded_address(before.store) == address else ""
        if sent is None or sent.folder != record.id:  # another run may have taken the folder
            found = _find_run(client, experiment_id, record, known)
            if found is None and before is not None and before.complete and _was_deleted(client, known):
                return Sent(record.id, known, None, record.status, {})
            sent = found or _create_run(client, experiment_id, record)
            has_all = before is not None and before.complete == _completion(record, sent.tags) != ""
            if has_all and (sent.run_id, sent.status) == (known, record.status) and not folder.has_model():
                return sent
            if sent.status == "FINISHED" and record.status in {"KILLED", "FAILED"}:
                raise InputError(f"{folder.path}: is an older copy; run {sent.run_id} has FINISHED since")
        if sent.run_id != known:
            _note(folder, Mirrored(address, sent.run_id))
        if record.status == "RUNNING" and sent.status != "RUNNING":
            client.update_run(sent.run_id, status="RUNNING")
            sent.status = "RUNNING"
        _send_values(client, folder, record, sent)
        if record.status != "RUNNING":
            _send_end(client, experiment_id, folder, record, sent)
            if record.is_sweep:
                show_sweep(client, experiment_id, folder, record, sent.run_id)
            sent.registered = registered(client, register, record, sent.run_id, sent.tags.get("mnist_exp.best_run"))
            _note(folder, Mirrored(address, sent.run_id, _completion(record, sent.tags)))
        return sent


def _note(folder: Folder, mirrored: Mirrored) -> None:
    with suppress(OSError):  # of a folder that may only be read; the run is found by its tag, too
        folder.write_mirrored(mirrored)


def _send_end(client: "MlflowClient", experiment_id: str, folder: Folder, record: Record, sent: Sent) -> None:
    with TemporaryDirectory() as copies:
        copy_files(folder.path, record.sent_files(), Path(copies))
        store.repository(client.tracking_uri, sent.artifacts).log_artifacts(copies)
    if record.status == "FINISHED":
        _send_model(client, experiment_id, folder, sent.run_id)
    client.set_terminated(sent.run_id, record.status, record.end)
    sent.status = record.status


def _completion(record: Record, tags: Mapping[str, str]) -> str:
    """Return the text by which `mlflow.json` says that the store has all of a record, its best job's id included."""
    has_all = record.status != "RUNNING" and (not record.best or "mnist_exp.best_run" in tags)
    return f"{record.status} {record.stage} {record.end}" if has_all else ""


def _find_run(client: "MlflowClient", experiment_id: str, record: Record, known: str) -> Sent | None:
    """Return the run of a folder, which may be `known` by its id; delete the empty ones that a server has beside it.

    It makes several where a request is repeated whose answer was lost.
    """
    queries = [f"tags.mnist_exp.folder = '{record.id}'"]
    if store.sqlite_path(client.tracking_uri) is not None and re.fullmatch("[0-9a-f]{32}", known):
        queries.insert(0, f"attributes.run_id = '{known}'")  # which is faster
    for query in queries:
        found = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"])
        same = [run for run in found if run.data.tags.get("mnist_exp.folder") == record.id]
        if same:
            chosen = max(same, key=lambda run: (run.info.run_id == known, len(run.data.metrics)))
            for run in same:
                if run is not chosen and not run.data.metrics:
                    client.delete_run(run.info.run_id)
            return _known_run(client, chosen)
    return None


def _was_deleted(client: "MlflowClient", run_id: str) -> bool:
    run = stored_run(client, run_id) if run_id else None  # None also in a new store at the same address
    return run is not None and str(run.info.lifecycle_stage) == "deleted"


def _create_run(client: "MlflowClient", experiment_id: str, record: Record) -> Sent:
    """Create the run of a new folder.

    Raises:
        InputError: if the store would keep the run's artifacts where it may not; the run has then FAILED.
    """
    run = client.create_run(experiment_id, record.start, _stored(client, record), record.name[:_LONGEST_NAME])
    try:
        store.repository(client.tracking_uri, run.info.artifact_uri)
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    is_server = store.sqlite_path(client.tracking_uri) is None
    return (is_server and _find_run(client, experiment_id, record, "")) or _known_run(client, run)


def _known_run(client: "MlflowClient", run: "Run") -> Sent:
    tags, info, names = dict(run.data.tags), run.info, _IN_EACH_LINE & run.data.metrics.keys()
    # An epoch that is trained again has another time, and MLflow would take its values for others.
    points = [point for name in names for point in client.get_metric_history(info.run_id, name)]
    lines: set[tuple[int, float | None]] = {(point.step, point.value) for point in points}
    return Sent(tags["mnist_exp.folder"], info.run_id, info.artifact_uri, info.status, tags, lines=lines)


def _line(line: Measured) -> tuple[int, float | None]:
    return line.step, line.metrics.get("loss" if line.step else "objective")


def _send_values(client: "MlflowClient", folder: Folder, record: Record, sent: Sent) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    if record.data is not None and not sent.data:
        used = DatasetInput(
            Dataset(**record.data),
            [InputTag("mlflow.data.context", "training"), InputTag(PROFILE, record.data.get("profile", ""))],
        )
        try:
            client.log_inputs(sent.run_id, [used])
        except MlflowException as error:
            # MLflow refuses one of two jobs that add a dataset at once.
            if not re.search("unique|duplicate", str(error), re.IGNORECASE):
                raise
            client.log_inputs(sent.run_id, [used])
        sent.data = True
    wanted = _tags(client, folder, record, sent)
    tags = [RunTag(key, value) for key, value in wanted.items() if sent.tags.get(key) != value]
    parameters = [] if sent.parameters else [Param(key, value) for key, value in record.parameters.items()]
    is_sweep = record.is_sweep  # whose scores may be again what they were before others
    lines = [line for line in folder.measured() if is_sweep or _line(line) not in sent.lines]
    metrics: list[Metric] = [
        Metric(key, value, line.time, line.step)
        for line in lines
        for key, value in sorted(line.metrics.items(), key=lambda item: item[0] in _IN_EACH_LINE)
    ]
    while tags or parameters or metrics:
        client.log_batch(
            sent.run_id,
            metrics[:_METRICS_IN_A_BATCH],
            parameters[:_PARAMETERS_IN_A_BATCH],
            tags[:_PARAMETERS_IN_A_BATCH],
        )
        del metrics[:_METRICS_IN_A_BATCH], parameters[:_PARAMETERS_IN_A_BATCH], tags[:_PARAMETERS_IN_A_BATCH]
    sent.tags.update(wanted)
    sent.parameters = True
    sent.lines.update(map(_line, lines))


def _run_in(client: "MlflowClient", folder: Path, known: str = "") -> str:
    """Return the id of the run that mirrors a folder in this store, or "".

    Folders that were copied without their store name a run that this one does not have, unless it is `known`.
    """
    mirrored = Folder(folder).mirrored()
    if mirrored is None or store.recorded_address(mirrored.store) != store.recorded_address(client.tracking_uri):
        return ""
    has_run = mirrored.run_id == known or stored_run(client, mirrored.run_id) is not None
    return mirrored.run_id if has_run else ""


def _stored(client: "MlflowClient", record: Record) -> dict[str, str]:
    """Return the tags of a record as a store has them: those that a person reads, and the rest in one."""
    rest = {key for key in record.tags if key.startswith("mnist_exp.") and not key.startswith((REUSED, *_READ))}
    tags = {key: value for key, value in record.tags.items() if key not in rest}
    database, output = store.sqlite_path(client.tracking_uri), record.output
    if database is not None and Path(output).is_relative_to(database.parent):
        output = str(Path(output).relative_to(database.parent))  # it stays true when the project is moved
    more = json.dumps({key.removeprefix("mnist_exp."): record.tags[key] for key in sorted(rest)})
    own = {"mnist_exp.folder": record.id, "mnist_exp.output": output, "mnist_exp.record": more}
    return tags | own


def _tags(client: "MlflowClient", folder: Folder, record: Record, sent: Sent) -> dict[str, str]:
    """Return the tags that the run is to have; what the user may have changed in the store stays."""
    stored = _stored(client, record).items()
    tags = {key: value for key, value in stored if key.startswith("mnist_exp.") or key not in sent.tags}
    if "mlflow.parentRunId" in record.tags and (
        parent := _run_in(client, folder.path.parent, sent.tags.get("mlflow.parentRunId", ""))
    ):
        tags["mlflow.parentRunId"] = parent  # in another store, it has another id
    if record.best and (best := _run_in(client, folder.path / record.best, sent.tags.get("mnist_exp.best_run", ""))):
        tags["mnist_exp.best_run"] = best
    ranking = folder.path / "ranking.md"
    if record.status != "RUNNING" and is_file(ranking, folder.path):
        written = client.get_run(sent.run_id).data.tags.get(DESCRIPTION, "")
        verdict, _, table = read_text(ranking, folder=folder.path).partition("\n\n")
        begun = f"{_OURS.sub('', written).rstrip()}\n\n**Result:** {verdict}\n\n{_RANKING}\n\n".lstrip()
        if table and len(text := begun + table) <= _LONGEST_DESCRIPTION:
            tags[DESCRIPTION] = text
    return tags


def show_all(client: "MlflowClient", experiment_id: str) -> None:
    """Bring the saved view of all runs up to date; after an outage, the next command does."""
    with suppress(Exception):  # a store raises anything
        if store.opens_views(client.tracking_uri):
            views.save_all(client, experiment_id)


def show_sweep(client: "MlflowClient", experiment_id: str, folder: Folder, record: Record, run_id: str) -> bool:
    """Write the saved view of a sweep that has jobs; return whether the store has it."""
    from mlflow.exceptions import MlflowException

    try:
        view = _view_of(client, folder, record, run_id) if store.opens_views(client.tracking_uri) else None
        if view is None or not views.save(client, experiment_id, views.key_of(run_id), view):
            return False
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return False  # this user may not change the experiment
    except (OSError, ValueError, TypeError):  # a damaged folder
        return False
    show_all(client, experiment_id)
    return True


def _view_of(client: "MlflowClient", folder: Folder, record: Record, run_id: str) -> views.View | None:
    """Return the view of a sweep, or None before it has jobs."""
    jobs: dict[Path, Record] = {}
    for path in folder.path.glob("*/run.json"):
        with suppress(InputError):  # damaged
            job = Folder(path.parent).read()
            if job.parameters and job.fact("parent") == record.id:
                jobs[path.parent] = job
    if not jobs:
        return None
    typed = list(map_in(record.fact("varied")))
    recorded = {key for job in jobs.values() for key in job.parameters}
    keys = [name for key in typed for name in (key, f"{key}.kind") if name in recorded]  # a group is known by its kind
    rows = [key for key in keys if key != "seed"]
    values = {key: [typed_value(job.parameters.get(key, "")) for job in jobs.values()] for key in rows}
    ids = [tag.removeprefix(REUSED) for tag in record.tags if re.fullmatch(f"{REUSED}[0-9a-f]+", tag)]
    ids += [found for path in jobs if ids and (found := _run_in(client, path))]
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    if 0 < len(ids) <= _MOST_NAMED:
        query = f"attributes.run_id IN ({', '.join(map(repr, ids))})"
    metric = record.parameters.get("objective", "val_accuracy").replace("test_", "val_", 1)
    return views.View(
        f"{_leader(folder, typed) or f'{len(jobs)} jobs'} ({run_id[:8]})",
        query,
        keys,
        [key for key in rows if {type(value) for value in values[key]} <= {int, float} and len(set(values[key])) > 1],
        rows if "seed" in keys else [],
        [*dict.fromkeys([metric, "val_loss", "loss"])][:2],
        ascending=record.parameters.get("direction") == "minimize",
    )


def _leader(folder: Folder, keys: Sequence[str]) -> str:
    """Return which row of a sweep leads, and of how many; nothing before the sweep is ranked."""
    path = folder.path / "ranking.csv"
    lines = read_text(path, folder=folder.path).splitlines() if is_file(path, folder.path) else []
    ranked = [row for row in csv.DictReader(lines) if row.get("rank")]
    values = {key: value for key in keys if key != "seed" and ranked and (value := ranked[0].get(key))}
    rows = len({row["rank"] for row in ranked})
    return f"{job_name(values, values)} leads, {rows} rows" if values and rows > 1 else ""


def save_model(model: "keras.Model", data: Data, folder: Folder) -> None:
    """Write a model, which takes raw images, in MLflow's format for `mirror`."""
    import mlflow.keras
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = data.x_test[:2]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    path, new = folder.path / "model", folder.path / NEW_MODEL
    for left in (path, new):
        remove_files(left, MODEL_FILES)
    new.mkdir()  # MLflow 3.17.2 makes it only after it writes the example
    mlflow.keras.save_model(
        model,
        str(new),
        mlflow_model=Model(metadata=data.metadata() or None),
        signature=signature,
        input_example=example,
        pip_requirements=[f"{name}=={package_version(name)}" for name in ("keras", "tensorflow", "numpy")],
    )
    write_metadata(new / "data" / "model.keras", data.metadata())
    new.rename(path)  # whole, even if this is interrupted


def _send_model(client: "MlflowClient", experiment_id: str, folder: Folder, run_id: str) -> None:
    """Send the model that `save_model` wrote, unless the run has one, and remove this second copy of the weights."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if not folder.has_model():
        return
    begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        logged = begun[0] if begun else client.create_logged_model(experiment_id, "model", run_id)
        artifacts = store.repository(client.tracking_uri, logged.artifact_location)
        with TemporaryDirectory() as copies:
            copy_files(folder.path / "model", MODEL_FILES, Path(copies))
            description = Model.load(copies)
            description.artifact_path, description.run_id = logged.artifact_location, run_id
            description.model_id = description.model_uuid = logged.model_id
            description.save(str(Path(copies, "MLmodel")))
            artifacts.log_artifacts(copies)
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    kept = model_of_run(client, run_id)
    for other in begun:  # of a request whose answer was lost
        if other.model_id != kept:
            client.delete_logged_model(other.model_id)
    remove_files(folder.path / "model", MODEL_FILES)
