"""The folder of a run or a sweep, which is its record; a store is a mirror of it. Imports nothing heavy.

`run.json` says what it is and how it ended, `metrics.jsonl` has a line for each step that was measured, and
`config.yaml` runs it again.
"""

import json
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mnist_exp.config.code_file import CodeFile

_TEXTS = (
    "config.yaml",
    "error.txt",
    "run.log",
    "predictions.csv",
    "ranking.csv",
    "race.csv",
    "best.yaml",
    "code.patch",
    "report.html",
)


@dataclass(frozen=True)
class Record:
    """The content of `run.json`.

    `id`: of the folder, by which its run in a store is found again. `status`: RUNNING, FINISHED, FAILED or KILLED.
    `start` and `end`: in milliseconds since 1970. `parameters`: the configuration, keys joined by dots. `data`: the
    dataset as MLflow takes it. `scores`: measured at the end, with the weights of `kept_epoch`.
    """

    name: str
    tags: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "RUNNING"
    start: int = field(default_factory=lambda: now())
    end: int | None = None
    data: dict[str, str] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    kept_epoch: int | None = None


@dataclass(frozen=True)
class Measured:
    """A line of `metrics.jsonl`: an epoch, counted from 1, or step 0 for the end; `time` as in `Record`."""

    step: int
    time: int
    metrics: dict[str, float]


class Folder:
    """The files of one run or sweep; one process writes them, others may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Record:
        """Return the record."""
        return Record(**json.loads((self.path / "run.json").read_text()))

    def write(self, record: Record) -> None:
        """Replace `run.json`, whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        new = self.path / ".run.json.new"
        new.write_text(json.dumps(asdict(record), indent=1))
        new.replace(self.path / "run.json")

    def begin(self, record: Record, code: CodeFile | None = None, patch: str = "") -> None:
        """Write the record of what starts here, and remove what another left in the folder.

        Args:
            record: what starts.
            code: the user's own, to be kept.
            patch: what differs from the project's commit.
        """
        for name in {"metrics.jsonl", *_TEXTS} - {"run.log"}:  # which is open already
            (self.path / name).unlink(missing_ok=True)
        for name in ("model", "code", "figures"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self.write(record)
        if patch:
            (self.path / "code.patch").write_text(patch, encoding="utf-8")
        if code is not None:
            (self.path / "code").mkdir()
            (self.path / "code" / Path(code.path).name).write_text(code.text, encoding="utf-8")

    def change(self, **values: Any) -> None:
        """Change fields of the record; `tags` are added."""
        record = self.read()
        if "tags" in values:
            values["tags"] = record.tags | values["tags"]
        self.write(replace(record, **values))

    def end(self, status: str, **values: Any) -> None:
        """Record the status at the end, and the time; `values` as for `change`."""
        self.change(status=status, end=now(), **values)

    def has_weights(self) -> bool:
        """Return whether this is the folder of a run that can be read here, with a model."""
        return all((self.path / name).is_file() for name in ("run.json", "model.keras"))

    def measure(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch, or of the end as step 0."""
        with (self.path / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps(asdict(Measured(step, now(), dict(metrics)))) + "\n")

    def measured(self, start: int = 0) -> tuple[list[Measured], int]:
        """Return the measured steps in order, and where in the file they end.

        Args:
            start: where an earlier call ended, in bytes; 0 for all.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return [], start
        with path.open("rb") as file:
            file.seek(start)
            whole = file.read().rpartition(b"\n")[0]  # a line may be in the making
        return [Measured(**json.loads(line)) for line in whole.splitlines()], start + len(whole) + bool(whole)

    def history(self) -> dict[str, list[float]]:
        """Return the metrics of the epochs, a value an epoch."""
        history: dict[str, list[float]] = {}
        for one in self.measured()[0]:
            if one.step > 0:
                for name, value in one.metrics.items():
                    history.setdefault(name, []).append(value)
        return history

    def files(self) -> list[Path]:
        """Return the files for a store: texts, figures and the user's own code."""
        texts = [path for name in _TEXTS if (path := self.path / name).is_file()]
        return [*texts, *sorted(self.path.glob("figures/*.png")), *sorted(self.path.glob("code/*.py"))]


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)
