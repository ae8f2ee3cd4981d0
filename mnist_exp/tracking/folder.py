"""Keep the record of a run or a sweep in its folder, which a store mirrors.

`run.json` is its record, `metrics.jsonl` has a line for each epoch and the end, `config.yaml` runs
it again, and `run.log` is the log of this package.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from mnist_exp.config import files
from mnist_exp.config.own_code import CodeFile
from mnist_exp.errors import InputError
from mnist_exp.tracking.records import STAGES, Record, now

_DATA = ("name", "digest", "source_type", "source", "schema", "profile")  # MLflow's, of which the last two may lack
_MAX_METRICS_BYTES = 100_000_000  # an epoch takes 200 or so


def relative_path(path: Path) -> str:
    """Return an absolute path as one would type it in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


_PROCESS_TAGS = ("mnist_exp.host", "mnist_exp.process", "mnist_exp.machine")
_ELSEWHERE = ("output", "run_id")  # fields of a record that `run.json` does not have


@dataclass(frozen=True)
class Mirrored:
    """A folder's mirror in a store.

    Attributes:
        run_id: of the run there; "" if no run is known.
        complete: the status, stage and end with which all of the folder was sent; "" before that.
        registered: how its model was just registered, as a line; "" unless that was asked for. `mlflow.json` has none.
    """

    run_id: str = ""
    complete: str = ""
    registered: str = ""


class Line(TypedDict):
    """A line of `metrics.jsonl`.

    `step` is the epoch, from 1, or 0 for the end. `time` is as in `Record`.
    """

    step: int
    time: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Folder:
    """The files of a run or sweep, which one process writes and any may read."""

    path: Path

    def read(self) -> Record:
        """Return the record.

        Raises:
            NoFileError: if there is none.
            InputError: if it is damaged, or of another program.
        """
        path = self.path / "run.json"
        content = files.read_json(path, self.path) | {"output": str(self.path), "run_id": ""}
        if content.keys() >= {"lock", "boot"}:  # version 0.2.0, in which what is missing after an end is not made
            del content["lock"], content["boot"]
            content["stage"] = "completed" if content.get("status") == "FINISHED" else "begun"
        try:
            record = Record(**content)
        except TypeError:  # other fields
            record = None
        if record is None or not _is_valid(record):
            raise InputError(f"{path}: is damaged, or of another program")
        mirrors = self.mirrors()
        known = mirrors.get(record.tracking.get("uri", "")) or next(iter(mirrors.values()), Mirrored())
        return replace(record, run_id=known.run_id)

    def write(self, record: Record) -> None:
        """Replace `run.json` in one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._replace("run.json", {key: value for key, value in asdict(record).items() if key not in _ELSEWHERE})

    def _replace(self, name: str, content: Mapping[str, Any]) -> None:
        files.write_text(self.path / name, json.dumps(content, indent=1))

    def begin(self, record: Record, code: CodeFile | None = None, patch: str = "") -> None:
        """Remove another run's files, and write those of a new run.

        Args:
            record: of the new run.
            code: the user's file.
            patch: the difference of the checkout from its commit; "" for none.
        """
        with suppress(InputError):
            before = self.read()
            if before.status != "FINISHED" and before.job == record.job != ("", {}):
                replaces = f"{before.fact('replaces')} {before.id}".strip()
                record = replace(record, tags=record.tags | {"mnist_exp.replaces": replaces})
            files.remove_files(self.path, before.own_files() - {"run.log"})  # this run's log is open already
        self.write(record)
        if patch:
            files.write_text(self.path / "code.patch", patch)
        if code is not None:
            (self.path / "code").mkdir(exist_ok=True)
            files.write_text(self.path / "code" / Path(code.path).name, code.text)

    def reopen(self, today: Record) -> Record:
        """Reopen this folder's run in the process of `today`, and return its own record."""
        before = self.read()
        tags = before.tags | {key: today.tags[key] for key in _PROCESS_TAGS if key in today.tags}
        again = replace(before, tags=tags, status="RUNNING", end=None, attempt=today.attempt)
        files.remove_files(self.path, ())  # what was not finished
        try:
            self.read_metrics()
        except InputError:  # a checkpoint has the lines
            files.write_text(self.path / files.METRICS, "")
        self.write(again)
        return again

    def change(self, **values: Any) -> None:
        """Change fields of the record, and add `tags` to its own."""
        record = self.read()
        if "tags" in values:
            values["tags"] = record.tags | values["tags"]
        self.write(replace(record, **values))

    def end(self, status: str, **values: Any) -> None:
        """Record the last status and the time, and `values` as `change` does."""
        self.change(status=status, end=now(), **values)

    def mirrors(self) -> dict[str, Mirrored]:
        """Return the mirrors by store address, from `mlflow.json`.

        Only the mirror writes it.
        """
        try:
            found = {
                store: Mirrored(**fields)
                for store, fields in files.read_json(self.path / "mlflow.json", self.path).items()
            }
        except (InputError, TypeError):  # missing, damaged, or of another program
            return {}
        texts = [text for mirrored in found.values() for text in asdict(mirrored).values()]
        return found if all(isinstance(text, str) for text in texts) else {}

    def write_mirrored(self, store: str, mirrored: Mirrored) -> None:
        """Replace a store's entry in `mlflow.json`."""
        found = self.mirrors() | {store: mirrored}
        content = {
            store: {"run_id": mirrored.run_id, "complete": mirrored.complete} for store, mirrored in found.items()
        }
        self._replace("mlflow.json", content)

    def has_model(self) -> bool:
        """Return whether a model in MLflow's format waits to be sent."""
        return files.is_file(self.path / "model" / "MLmodel", self.path)

    @property
    def top(self) -> Path:
        """Return the folder to lock for mirroring or closing: for a job, its sweep's."""
        with suppress(InputError):
            if Folder(self.path.parent).read().id == self.read().fact("parent"):
                return self.path.parent
        return self.path

    def is_there(self) -> bool:
        """Return whether there is a record."""
        return files.is_file(self.path / "run.json", self.path)

    def has_weights(self) -> bool:
        """Return whether a run and its model can be read here."""
        return self.is_there() and files.is_file(self.path / "model.keras", self.path)

    def measure(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to `metrics.jsonl`, with `step` as in `Line`.

        The end has another line only if its scores changed, as those of a sweep do that goes on; `fit_seconds` always
        does.
        """
        path, line = self.path / files.METRICS, Line(step=step, time=now(), metrics=dict(metrics))
        if step == 0:
            lines = self.read_metrics()
            if not (lines and _scores(lines[-1]) == _scores(line)):
                files.write_text(path, "".join(map(_text, [*lines, line])))
            return
        size = path.stat().st_size if path.exists() else 0
        try:
            with open(path, "a", opener=files.no_link) as file:
                file.write(_text(line))
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)  # remove what a full disk took
            raise

    def read_metrics(self) -> list[Line]:
        """Return the lines of `metrics.jsonl`.

        Raises:
            InputError: if it is damaged.
        """
        path = self.path / files.METRICS
        try:
            with files.open_file(path, folder=self.path, most=_MAX_METRICS_BYTES) as file:
                whole = file.read().rpartition(b"\n")[0]  # the last line may be incomplete
        except files.NoFileError:
            return []
        try:
            lines: list[Line] = [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError):
            lines = [Line(step=-1, time=0, metrics={})]
        if not all(map(_is_valid_line, lines)):
            raise InputError(f"{path}: is damaged")
        return lines

    def history(self) -> dict[str, list[float]]:
        """Return each metric's values, one an epoch."""
        history: dict[str, list[float]] = {}
        for line in self.read_metrics():
            if line["step"] > 0:
                for name, value in line["metrics"].items():
                    history.setdefault(name, []).append(value)
        return history


def _is_valid(record: Record) -> bool:
    """Return whether a record has values of the right types."""
    data = dict.fromkeys(_DATA, "") if record.data is None else record.data
    maps = [record.tags, record.tracking, record.parameters, data]
    return (
        all(isinstance(texts, dict) and all(isinstance(value, str) for value in texts.values()) for texts in maps)
        and set(_DATA[:4]) <= data.keys() <= set(_DATA)
        and all(isinstance(text, str) for text in (record.name, record.best, record.attempt))
        and re.fullmatch("[0-9a-f]{32}", str(record.id)) is not None
        and record.status in ("RUNNING", "FINISHED", "FAILED", "KILLED")
        and record.stage in STAGES
        and _is_count(record.start)
        and all(number is None or _is_count(number) for number in (record.end, record.kept_epoch))
        and _are_numbers(record.scores)
    )


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"


def _scores(line: Line) -> str:
    """Return the last scores as a text, without times.

    NaN equals NaN in it.
    """
    return json.dumps([line["step"], line["metrics"] | {"fit_seconds": 0.0}], sort_keys=True)


def _is_valid_line(line: object) -> bool:
    if not isinstance(line, dict) or line.keys() != {"step", "time", "metrics"}:
        return False
    return _is_count(line["step"]) and _is_count(line["time"]) and _are_numbers(line["metrics"])


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(type(value) in (int, float) for value in values.values())


def read_reused(path: Path) -> Record:
    """Return the run that a `reused.json` counts as a job, as its own folder has it.

    Raises:
        InputError: if one of the two is missing or damaged.
    """
    content = files.read_json(path, path.parent)
    output, values = content.get("output"), content.get("values")
    if not (isinstance(output, str) and isinstance(values, dict)):
        raise InputError(f"{path}: is damaged, or of another program")
    folder = Folder(Path(os.path.normpath(path.parent / output)))
    return folder.read().with_values({str(key): str(value) for key, value in values.items()})
