"""Describe a run or a sweep, as recorded in a folder or a store."""

import json
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mnist_exp.config import files

DESCRIPTION = "mlflow.note.content"  # the tag that a run's page shows as its description
REUSED = "mnist_exp.reused."  # begins a sweep's tags for earlier runs that count as its jobs
STAGES = ("begun", "scored", "completed")
_MAX_SCORE = 1e50  # its fourth power is a number


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Record:
    """A run or a sweep as it was recorded.

    Attributes:
        name: the text on the store's page.
        tags: the user's, and those of this project, such as `mnist_exp.host`, which `fact` returns.
        parameters: the configuration, its keys joined by dots.
        id: by which a folder's run is found again in a store.
        status: RUNNING, FINISHED, FAILED or KILLED.
        stage: the part that is whole on disk, and is written after it: "begun" (the record), "scored" (model, curves
            and scores), or "completed" (figures too, and the model in MLflow's format if a store gets it).
        start, end: in milliseconds since 1970.
        data: the dataset as MLflow takes it; None before it was read.
        scores: the metrics of the end, with the weights of `kept_epoch`.
        tracking: the `uri` and `experiment` of the store that mirrors the folder; empty without one. Of a record that
            was read from a store, the `experiment_id`.
        best: the path from here to the folder of a sweep's best job.
        attempt: the id of the last start of a sweep.
        output: the folder, where it is now, or was on `host`; `run.json` has none.
        run_id: MLflow's, or "" if no store is known to have the run; `mlflow.json` has it.
    """

    name: str
    tags: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "RUNNING"
    stage: str = "begun"
    start: int = field(default_factory=now)
    end: int | None = None
    data: dict[str, str] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    kept_epoch: int | None = None
    tracking: dict[str, str] = field(default_factory=dict)
    best: str = ""
    attempt: str = ""
    output: str = field(default="", compare=False)
    run_id: str = field(default="", compare=False)

    def fact(self, name: str) -> str:
        """Return the tag `mnist_exp.NAME`, or "" without one."""
        return self.tags.get(f"mnist_exp.{name}", "")

    @property
    def signature(self) -> str:
        """The key that equal runs or sweeps share, or "" before the data are known."""
        return self.fact("sweep") or self.fact("signature")

    @property
    def is_sweep(self) -> bool:
        """Whether it is a sweep's, whose jobs have records of their own."""
        return "mnist_exp.sweep" in self.tags

    @property
    def is_whole(self) -> bool:
        """Whether the run finished, and was not pruned."""
        return self.status == "FINISHED" and not self.fact("pruned")

    @cached_property
    def values(self) -> dict[str, str]:
        """The values that vary in the sweep of a job, by full key."""
        return parse_map(self.fact("swept"))

    @property
    def job(self) -> tuple[str, dict[str, str]]:
        """The sweep's id and the values, which all attempts of a job share, or ("", {})."""
        return self.fact("parent"), self.values

    def with_values(self, values: Mapping[str, str]) -> "Record":
        """Return the record as that of a job with these values."""
        return replace(self, tags=self.tags | {"mnist_exp.swept": json.dumps(dict(values))})

    @property
    def host(self) -> str:
        """The machine that the run was on."""
        return self.fact("host")

    @property
    def reason(self) -> str:
        """A line about a failure."""
        return self.fact("error")

    @property
    def objective(self) -> float | None:
        """The objective of a finished run."""
        return self._score("objective") if self.status == "FINISHED" else None

    @property
    def test_scores(self) -> dict[str, float]:
        """The metrics of a finished run that begin with `test_`."""
        names = [name for name in self.scores if name.startswith("test_")] if self.status == "FINISHED" else []
        return {name: usable(self.scores[name]) for name in names}

    @property
    def seconds(self) -> float | None:
        """The wall time of training."""
        return self._score("fit_seconds")

    @property
    def pruned(self) -> int | None:
        """The last epoch, from 1, of a run that was pruned."""
        epoch = self.fact("pruned") if self.status == "FINISHED" else ""
        return int(epoch) if re.fullmatch("[0-9]{1,9}", epoch) else None

    @property
    def digest(self) -> str:
        """The digest of the data, or "" before it is known."""
        return (self.data or {}).get("digest", "")

    @property
    def test_digest(self) -> str:
        """The digest of the test set, or "" where it was not recorded."""
        return parse_map((self.data or {}).get("profile", "")).get("test_digest", "")

    def images(self, part: str) -> int:
        """Return the number of `training`, `validation` or `test` images, or 0 if unknown."""
        count = parse_map((self.data or {}).get("profile", "")).get(part, "")
        return int(count) if re.fullmatch("[0-9]{1,15}", count) else 0

    def _score(self, name: str) -> float | None:
        return usable(self.scores[name]) if name in self.scores else None

    def differences(self, other: "Record") -> list[str]:
        """Return which of configuration, data, code and packages differ, or else threads."""

        def packages(record: Record) -> set[str]:
            listed = record.fact("packages").split(", ")
            return {package for package in listed if not package.startswith(("python ", "mnist_exp "))}

        def differ_in(*names: str) -> bool:
            return any(self.fact(name) != other.fact(name) for name in names)

        differ = {
            "configuration": self.parameters != other.parameters,
            "data": "" not in (self.digest, other.digest) and self.digest != other.digest,
            "code": differ_in("code", "own_code"),
            "packages": packages(self) != packages(other),
        }
        if not any(differ.values()):  # only then does another number of threads keep a run from going on
            differ = {"number of threads": differ_in("threads")}
        return [name for name, differs in differ.items() if differs]

    def own_files(self) -> frozenset[str]:
        """Return the names, relative to the folder, of files that this run may write."""
        paths = re.compile(r"training\.callbacks\.(CSVLogger\.filename|ModelCheckpoint\.filepath)")
        callbacks = [value for key, value in self.parameters.items() if paths.fullmatch(key) and "/" not in value]
        return files.RUN_FILES.union(callbacks, self.sent_files())

    def sent_files(self) -> list[str]:
        """Return the relative names of the files that a store gets: texts, figures, code."""
        code = self.fact("own_code").rpartition(" ")[0]
        return [*files.TEXTS, *files.FIGURES, *([f"code/{code}"] if re.fullmatch(r"[\w-][\w. -]*\.py", code) else [])]

    def is_in(self, tracking: Mapping[str, str]) -> bool:
        """Return whether a run has the store and MLflow experiment of `tracking`, if any."""
        return tracking.items() <= self.tracking.items()


def latest_attempts(jobs: Iterable[Record]) -> list[Record]:
    """Return the last whole job of those with the same values, or else the last."""
    tries: dict[str, list[Record]] = {}
    for job in jobs:
        tries.setdefault(json.dumps(job.values), []).append(job)
    return [max(reversed(same), key=lambda job: job.is_whole) for same in tries.values()]


def parse_place(name: str) -> list[int]:
    """Return the place of a job's numbered folder in its sweep, and of the try."""
    return [int(number) for number in re.findall("[0-9]{1,9}", name)]


def parse_map(text: str) -> dict[str, str]:
    """Return the map in a JSON text as texts, or {} for any other text."""
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def usable(number: float) -> float:
    """Return a number, or zero or infinity if its square or inverse is not a number.

    >>> usable(0.25), usable(-1e308), usable(5e-324)
    (0.25, -inf, 0.0)
    """
    if abs(number) > _MAX_SCORE:
        return math.copysign(math.inf, number)
    return 0.0 if abs(number) < 1 / _MAX_SCORE else number
