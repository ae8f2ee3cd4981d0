"""The folder of a run or a sweep is its record, and a store mirrors it. Imports nothing heavy.

`run.json` says what it is and how it ended, `metrics.jsonl` has a line for each epoch and the end, `config.yaml` runs
it again, and `run.log` is the log of this package.
"""

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mnist_exp.config.code_file import CodeFile
from mnist_exp.config.files import OWN_FILES, TEXTS
from mnist_exp.config.redaction import SecretsFilter
from mnist_exp.errors import InputError


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def from_here(path: Path) -> str:
    """Return an absolute path as one would type it in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


_PROCESS_TAGS = ("mnist_exp.host", "mnist_exp.process", "mnist_exp.machine", "mnist_exp.output")


@dataclass(frozen=True)
class Record:
    """The content of `run.json`.

    By its `id`, the folder's run is found again in a store. `status` is RUNNING, FINISHED, FAILED or KILLED; `start`
    and `end` are in milliseconds since 1970. `parameters` is the configuration, its keys joined by dots, and `data` the
    dataset as MLflow takes it. The `scores` are those of the weights of `kept_epoch`. `tracking` has the `uri`
    and `experiment` of the store that mirrors the folder, and is empty without one. `best` is the
    path from here to the folder of a sweep's best job, and `lock` that to the lock of the process that works on it,
    taken under `boot`; `locks.py` knows them.
    """

    name: str
    tags: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "RUNNING"
    start: int = field(default_factory=now)
    end: int | None = None
    data: dict[str, str] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    kept_epoch: int | None = None
    tracking: dict[str, str] = field(default_factory=dict)
    best: str = ""
    lock: str = ""
    boot: str = ""

    def is_in(self, tracking: Mapping[str, str]) -> bool:
        """Return whether this is in the same store and MLflow experiment as what has that `tracking`, if in any."""
        return tracking.items() <= self.tracking.items()


@dataclass(frozen=True)
class Mirrored:
    """The content of `mlflow.json`, which only the mirror writes: the run in a store, given by its address.

    `complete` is the status and end with which all of the folder has been sent, or "".
    """

    store: str
    run_id: str
    complete: str = ""


@dataclass(frozen=True)
class Measured:
    """A line of `metrics.jsonl`; `step` is the epoch, from 1, or 0 for the end, and `time` is as in `Record`."""

    step: int
    time: int
    metrics: dict[str, float]


class Folder:
    """The files of a run or sweep; one process writes them, and others may read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: dict[int, dict[str, float]] | None = None  # that were measured, once this process measures

    def read(self) -> Record:
        """Return the record.

        Raises:
            OSError: if there is none.
            ValueError, TypeError: if it is damaged, or of another program.
        """
        path = self.path / "run.json"
        if path.exists() and not path.is_file():  # such as a pipe, for which one would wait
            raise TypeError(f"{path}: is no file")
        record = Record(**json.loads(path.read_text()))
        maps, texts = (record.tags, record.tracking, record.parameters, record.scores), (record.id, record.name)
        if not (
            all(isinstance(one, dict) for one in maps)
            and all(isinstance(one, str) for one in (*texts, record.status, record.best))
            and isinstance(record.end, int | None)
        ):
            raise TypeError(f"{path}: is damaged")
        return record

    def write(self, record: Record) -> None:
        """Replace `run.json` in one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._replace("run.json", record)

    def _replace(self, name: str, content: Record | Mirrored) -> None:
        new = self.path / f".{name}.new"
        new.write_text(json.dumps(asdict(content), indent=1))
        new.replace(self.path / name)

    def begin(self, record: Record, code: CodeFile | None = None, patch: str = "") -> None:
        """Remove another run's files, and write the record, the user's code and the changes since the commit."""
        for name in OWN_FILES - {"run.log"}:  # this run's log is open already
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self.write(record)
        if patch:
            (self.path / "code.patch").write_text(patch, encoding="utf-8")
        if code is not None:
            (self.path / "code").mkdir()
            (self.path / "code" / Path(code.path).name).write_text(code.text, encoding="utf-8")

    def reopen(self, today: Record) -> Record:
        """Let the run of this folder go on, in the process of the record that it would have today; return its own."""
        before = self.read()
        tags = before.tags | {key: today.tags[key] for key in _PROCESS_TAGS if key in today.tags}
        again = replace(before, tags=tags, status="RUNNING", end=None, lock=today.lock, boot=today.boot)
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

    def mirrored(self) -> Mirrored | None:
        """Return which run of a store mirrors the folder, if one does."""
        try:
            return Mirrored(**json.loads((self.path / "mlflow.json").read_text()))
        except (OSError, ValueError, TypeError):  # missing, or not ours
            return None

    def write_mirrored(self, mirrored: Mirrored) -> None:
        """Replace `mlflow.json` in one step."""
        self._replace("mlflow.json", mirrored)

    def has_weights(self) -> bool:
        """Return whether a run and its model can be read here."""
        return all((self.path / name).is_file() for name in ("run.json", "model.keras"))

    def measure(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to `metrics.jsonl`; `step` is as in `Measured`, and one that is there keeps its line.

        The end gets another line if its scores changed, as those of a sweep do that goes on; `fit_seconds` always does.

        Raises:
            InputError: if the line of an epoch has another value.
        """
        path = self.path / "metrics.jsonl"
        if self._steps is None:
            before, end = self.measured()
            self._steps = {one.step: one.metrics for one in before}
            if path.exists():
                os.truncate(path, end)  # of a line that was not written to its end
        if (then := self._steps.get(step)) is not None:
            pairs = {name: (then.get(name), metrics.get(name)) for name in sorted({*then, *metrics} - {"fit_seconds"})}
            differing = [name for name, (old, new) in pairs.items() if old != new and (old == old or new == new)]  # NaN
            if not differing:
                return
            if step:
                old, new = pairs[differing[0]]
                raise InputError(
                    f"{differing[0]} of epoch {step}: was {old} before the interruption and is {new} now, so the run "
                    "cannot go on; without resume=true it starts anew"
                )
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a") as lines:
                lines.write(json.dumps(asdict(Measured(step, now(), dict(metrics)))) + "\n")
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)  # of what a full disk took
            raise
        self._steps[step] = dict(metrics)

    def measured(self, start: int = 0) -> tuple[list[Measured], int]:
        """Return the lines of `metrics.jsonl` from byte `start` on, and the byte where they end."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return [], start
        with path.open("rb") as file:
            file.seek(start)
            whole = file.read().rpartition(b"\n")[0]  # the last line may be incomplete
        return [Measured(**json.loads(line)) for line in whole.splitlines()], start + len(whole) + bool(whole)

    def history(self) -> dict[str, list[float]]:
        """Return each metric's values, one an epoch."""
        history: dict[str, list[float]] = {}
        for one in self.measured()[0]:
            if one.step > 0:
                for name, value in one.metrics.items():
                    history.setdefault(name, []).append(value)
        return history

    def files(self) -> list[Path]:
        """Return the files that a store gets: texts, figures and the user's code."""
        texts = [path for name in TEXTS if (path := self.path / name).is_file()]
        found = [*texts, *sorted(self.path.glob("figures/*.png")), *sorted(self.path.glob("code/*.py"))]
        here = self.path.resolve()
        return [path for path in found if path.resolve().is_relative_to(here)]  # no link that leads elsewhere


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


def make_folder(output: Path) -> None:
    """Make the output folder of a run or a sweep; raise InputError if it cannot be made or written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output).close()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{output}: cannot be written ({reason}); hydra.run.dir=DIR, or hydra.sweep.dir=DIR with -m, is another "
            "output folder"
        ) from error


@contextmanager
def log_file(output: Path) -> Iterator[None]:
    """Write the log of this package to `run.log` in the output folder; without a word, neither of them stays."""
    make_folder(output)
    handler = _LogFile(output / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # A message about one of the jobs that train together names its output folder; any other is for all.
    handler.addFilter(lambda record: getattr(record, "output", output) == output)
    handler.addFilter(SecretsFilter())
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
                output.rmdir()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short, without a word: what matters is said elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing."""
