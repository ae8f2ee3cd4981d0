"""The folder of a run or a sweep is its record, and a store mirrors it. Imports nothing heavy.

`run.json` says what it is and how it ended, `metrics.jsonl` has a line for each epoch and the end, `config.yaml` runs
it again, and `run.log` is the log of this package.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypedDict

from mnist_exp.config import files
from mnist_exp.config.own_code import CodeFile
from mnist_exp.errors import InputError
from mnist_exp.text import make_printable
from mnist_exp.tracking import locks
from mnist_exp.tracking.records import STAGES, Record, now

_DATA = ("name", "digest", "source_type", "source", "schema", "profile")  # MLflow's, of which the last two may lack
_ANOTHER_FOLDER = "choose another folder with hydra.run.dir=DIR, or hydra.sweep.dir=DIR with -m"
_SECONDS_FOR_OTHERS = 1.0  # who asks whether a folder is free holds its lock for a moment
_LARGEST_METRICS = 100_000_000  # bytes; an epoch has 200 or so


def from_here(path: Path) -> str:
    """Return an absolute path as one would type it in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


_PROCESS_TAGS = ("mnist_exp.host", "mnist_exp.process", "mnist_exp.machine")
_ELSEWHERE = ("output", "run_id")  # fields of a record that `run.json` does not have


@dataclass(frozen=True)
class Mirrored:
    """What a store has of a folder.

    Attributes:
        run_id: of the run there; "" if no run is known.
        complete: the status, stage and end with which all of the folder was sent; "" before that.
        registered: how its model was just registered, as a line; "" unless that was asked for. `mlflow.json` has none.
    """

    run_id: str = ""
    complete: str = ""
    registered: str = ""


class Line(TypedDict):
    """A line of `metrics.jsonl`: `step` is the epoch, from 1, or 0 for the end; `time` is as in `Record`."""

    step: int
    time: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Folder:
    """The files of a run or sweep; one process writes them, and others may read."""

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
        """Remove another run's files, and write the record, the user's code and the changes since the commit."""
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
        """Let the run of this folder go on, in the process of the record that it would have today; return its own."""
        before = self.read()
        tags = before.tags | {key: today.tags[key] for key in _PROCESS_TAGS if key in today.tags}
        again = replace(before, tags=tags, status="RUNNING", end=None, attempt=today.attempt)
        files.remove_files(self.path, ())  # what was not finished
        try:
            self.measured()
        except InputError:  # a checkpoint has the lines
            files.write_text(self.path / files.METRICS, "")
        self.write(again)
        return again

    def change(self, **values: Any) -> None:
        """Change fields of the record; `tags` are added to those that it has."""
        record = self.read()
        if "tags" in values:
            values["tags"] = record.tags | values["tags"]
        self.write(replace(record, **values))

    def end(self, status: str, **values: Any) -> None:
        """Record the last status and the time; `values` are as for `change`."""
        self.change(status=status, end=now(), **values)

    def mirrors(self) -> dict[str, Mirrored]:
        """Return what stores have of this folder, by their addresses; only the mirror writes it, to `mlflow.json`."""
        try:
            found = {
                store: Mirrored(**one) for store, one in files.read_json(self.path / "mlflow.json", self.path).items()
            }
        except (InputError, TypeError):  # missing, damaged, or of another program
            return {}
        texts = [text for one in found.values() for text in asdict(one).values()]
        return found if all(isinstance(text, str) for text in texts) else {}

    def write_mirrored(self, store: str, mirrored: Mirrored) -> None:
        """Replace what `mlflow.json` says of a store."""
        found = self.mirrors() | {store: mirrored}
        content = {store: {"run_id": one.run_id, "complete": one.complete} for store, one in found.items()}
        self._replace("mlflow.json", content)

    def has_model(self) -> bool:
        """Return whether a model in MLflow's format waits to be sent."""
        return files.is_file(self.path / "model" / "MLmodel", self.path)

    @property
    def top(self) -> Path:
        """The folder whose lock lets one mirror or close the run: for a job, that of its sweep."""
        with suppress(InputError):
            if Folder(self.path.parent).read().id == self.read().fact("parent"):
                return self.path.parent
        return self.path

    def is_left(self, sweep: str | None = None) -> bool:
        """Return whether nobody works on the run, or whether this process may as it works on its sweep.

        `sweep` is the id of the sweep of which this process is to run a job, if it is; another process has its lock.
        """
        if not locks.is_free(self.path):
            return False
        above = self.top
        is_mine = above == self.path or locks.is_held_here(above) or Folder(above).read().id == sweep
        return is_mine or locks.is_free(above)

    def is_there(self) -> bool:
        """Return whether there is a record."""
        return files.is_file(self.path / "run.json", self.path)

    def has_weights(self) -> bool:
        """Return whether a run and its model can be read here."""
        return self.is_there() and files.is_file(self.path / "model.keras", self.path)

    def measure(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to `metrics.jsonl`; `step` is as in `Line`.

        The end has another line only if its scores changed, as those of a sweep do that goes on; `fit_seconds` always
        does.
        """
        path, line = self.path / files.METRICS, Line(step=step, time=now(), metrics=dict(metrics))
        if step == 0:
            lines = self.measured()
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

    def measured(self) -> list[Line]:
        """Return the lines of `metrics.jsonl`.

        Raises:
            InputError: if it is damaged.
        """
        path = self.path / files.METRICS
        try:
            with files.open_file(path, folder=self.path, most=_LARGEST_METRICS) as file:
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
        for line in self.measured():
            if line["step"] > 0:
                for name, value in line["metrics"].items():
                    history.setdefault(name, []).append(value)
        return history


def _is_valid(record: Record) -> bool:
    """Return whether a record has values of the right types."""
    data = dict.fromkeys(_DATA, "") if record.data is None else record.data
    maps = [record.tags, record.tracking, record.parameters, data]
    return (
        all(isinstance(one, dict) and all(isinstance(value, str) for value in one.values()) for one in maps)
        and set(_DATA[:4]) <= data.keys() <= set(_DATA)
        and all(isinstance(one, str) for one in (record.name, record.best, record.attempt))
        and re.fullmatch("[0-9a-f]{32}", str(record.id)) is not None
        and record.status in ("RUNNING", "FINISHED", "FAILED", "KILLED")
        and record.stage in STAGES
        and _is_count(record.start)
        and all(one is None or _is_count(one) for one in (record.end, record.kept_epoch))
        and _are_numbers(record.scores)
    )


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"


def _scores(line: Line) -> str:
    """Return the scores of the end as a text, in which NaN equals NaN; the time does not count."""
    return json.dumps([line["step"], line["metrics"] | {"fit_seconds": 0.0}], sort_keys=True)


def _is_valid_line(line: object) -> bool:
    if not isinstance(line, dict) or line.keys() != {"step", "time", "metrics"}:
        return False
    return _is_count(line["step"]) and _is_count(line["time"]) and _are_numbers(line["metrics"])


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(type(value) in (int, float) for value in values.values())


@contextmanager
def package_logs() -> Iterator[None]:
    """Let this package log from DEBUG on, to its own handlers alone, such as that of `log_file`."""
    package = logging.getLogger("mnist_exp")
    level, propagate = package.level, package.propagate
    package.setLevel(logging.DEBUG)
    package.propagate = False
    try:
        yield
    finally:
        package.setLevel(level)
        package.propagate = propagate


def foreign(output: Path) -> str:
    """Return why no run may write to a folder; "" if it is new, is empty, or has a run.

    What comes before a record does not count. A folder with a link is nobody's, since a run could write through it.
    """
    if os.path.islink(output):  # noqa: PTH114, a name of any length
        return "is a link"
    try:
        entries = list(os.scandir(output))
    except (OSError, ValueError):  # it is new, or cannot be read, which comes up when it is written
        return ""
    if others := {entry.name for entry in entries} - {name.rstrip("/") for name in files.BEFORE_A_RECORD}:
        try:
            Folder(output).read()
        except files.NoFileError:
            return f"has files that no run wrote, such as {min(others)}"
        except InputError as error:
            return f"has a record that cannot be used ({error})"
    odd = (one.name for one in entries if not (one.is_file(follow_symlinks=False) or one.is_dir(follow_symlinks=False)))
    return next((f"has a link or a pipe, {name}" for name in odd), "")


def make_folder(output: Path) -> None:
    """Make the output folder of a run or a sweep.

    Raises:
        InputError: if it is not one's own, or cannot be made or written.
    """
    reason = foreign(output)
    if not reason:
        try:
            output.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=output).close()
        except (OSError, ValueError) as error:  # ValueError: a name with a null character
            reason = f"cannot be written ({error.strerror if isinstance(error, OSError) else error})"
    if reason:
        raise InputError(f"{output}: {reason}; {_ANOTHER_FOLDER}")


def no_locks(folder: Folder) -> str:
    """Return the message on a run that may still run, in a folder whose lock cannot be asked."""
    host = folder.read().host
    return f"{folder.path}: cannot be locked here, and its run may go on, on {host}; once that has ended, remove it"


@contextmanager
def working(output: Path) -> Iterator[None]:
    """Make the output folder of a run or a sweep, and hold its lock; it does not stay without a record.

    A job in its sweep's process needs no lock of its own.

    Raises:
        InputError: as `make_folder` does, or if somebody works there, or may on a file system without locks.
    """
    make_folder(output)
    if locks.is_held_here(output.parent):
        yield
        return
    folder = Folder(output)
    with locks.held(output, _SECONDS_FOR_OTHERS) as found:
        if found is False:
            raise InputError(f"{output}: a run still writes here; {_ANOTHER_FOLDER}")
        if found is None and folder.is_there() and folder.read().status == "RUNNING":
            raise InputError(no_locks(folder))
        try:
            yield
        finally:
            if not folder.is_there():
                with suppress(OSError):
                    (output / locks.LOCK).unlink(missing_ok=True)
                    output.rmdir()


@contextmanager
def log_file(output: Path) -> Iterator[None]:
    """Write the log of this package to `run.log` in the output folder; it does not stay without a word."""
    try:
        handler = _LogFile(output / "run.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{output / 'run.log'}: cannot be written ({error.strerror})") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # A message about one of the jobs that train together names its output folder; any other is for all.
    handler.addFilter(lambda record: getattr(record, "output", output) == output)
    handler.addFilter(make_printable)
    package = logging.getLogger("mnist_exp")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        with suppress(OSError):
            handler.close()
            if not (written := output / "run.log").stat().st_size:  # of a run that its store refused
                written.unlink()


class _LogFile(logging.FileHandler):
    """A log that follows no link, and that a full disk cuts short without a word: what matters is said elsewhere."""

    def _open(self) -> IO[str]:  # type: ignore[override]
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=files.no_link)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing."""
