"""A checkpoint lets training go on after an epoch as if nothing had stopped it. Imports nothing heavy.

It is one file, read without pickle: arrays, and plain values as JSON text, in which an array is named by its place.
"""

import json
import logging
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config import code_file
from mnist_exp.config.files import CHECKPOINT, open_file, replaced
from mnist_exp.errors import printable
from mnist_exp.experiment import Experiment, identity, of_the_result, signature
from mnist_exp.learning.metadata import DAMAGED

if TYPE_CHECKING:
    import numpy.typing as npt

log = logging.getLogger(__name__)

# The attributes of Keras's callbacks that change from epoch to epoch. `CSVLogger` has its file instead, and what
# `ReduceLROnPlateau` changes is a variable.
STATES = {
    "CSVLogger": ("lines",),
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "History": ("history", "epoch"),
    "ModelCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
}
_ARRAY = "mnist_exp.array"
_UNREADABLE = (ValueError, AttributeError, IndexError, *DAMAGED)


@dataclass(frozen=True)
class Job:
    """What changes while a model trains: its variables, in an order that stays, and its callbacks."""

    variables: Sequence[Any]
    callbacks: Sequence[Any]

    def states(self) -> dict[str, Any]:
        """Return the states of the callbacks that have one."""
        return {name: _state(callback) for name, callback in self.with_state().items()}

    def with_state(self) -> dict[str, Any]:
        """Return the callbacks whose state is kept, by name."""
        named = {type(callback).__name__: callback for callback in self.callbacks}
        return {name: callback for name, callback in named.items() if name in STATES or _is_own(callback)}


class Checkpoints:
    """The checkpoints of experiments that train together, in the output folder of the first.

    `epoch`: how many epochs had ended at the checkpoint that training goes on after; 0 without one.
    """

    def __init__(self, experiments: Sequence[Experiment], jobs: Sequence[Job], start: float) -> None:
        """Read the checkpoint if the experiments resume; `start` is the value of `perf_counter` when training began."""
        self._first, self._jobs = experiments[0], jobs
        self._path = self._first.output / CHECKPOINT
        self._interval = self._first.config.training.checkpoint_seconds
        self._start = self._written = start
        self._folders = [Path(os.path.relpath(one.output, self._first.output)).as_posix() for one in experiments]
        self._configs = [one.config for one in experiments]
        self._found = self._read() if self._first.resumes else {}
        self.epoch: int = self._found.get("epoch", 0)
        self._start -= self._found.get("seconds", 0.0)
        if lacking := [name for name, one in jobs[0].with_state().items() if _is_own(one) and not _has_methods(one)]:
            self._give_up(f"callback {' and '.join(lacking)}: must have the methods get_state and set_state")

    def seconds(self) -> float:
        """Return the wall time of training, of what was before the checkpoint too."""
        return time.perf_counter() - self._start

    def restore(self) -> Any:
        """Give variables and callbacks what the checkpoint has, and return the engine's part.

        It is called once Keras has told the callbacks that training begins, at which they forget their state.
        """
        found, self._found = self._found, {}
        for place, (job, states) in enumerate(zip(self._jobs, found["callbacks"], strict=True)):
            for variable, values in zip(job.variables, found["variables"], strict=True):
                variable.assign(values[place])
            for name, callback in job.with_state().items():
                _set_state(callback, states[name])
        return found["engine"]

    def are_due(self, epoch: int) -> bool:
        """Return whether it is time for a checkpoint after an epoch, counted from 1; after the last it never is."""
        if self._interval is None or epoch >= self._first.config.training.epochs:
            return False
        return time.perf_counter() - self._written >= self._interval

    def write(self, epoch: int, engine: Any = None) -> None:
        """Write a checkpoint after an epoch; `engine` are plain values, such as the jobs that have ended."""
        import numpy as np

        start = time.perf_counter()
        stacks = zip(*(job.variables for job in self._jobs), strict=True)
        content: dict[str, Any] = {
            "key": self._key(),
            "jobs": self._folders,
            "epoch": epoch,
            "seconds": self.seconds(),
            "engine": engine,
            "callbacks": [job.states() for job in self._jobs],
            "variables": [np.stack([np.asarray(variable) for variable in same]) for same in stacks],
        }
        try:
            _check_keys([states[name] for states in content["callbacks"] for name in states.keys() - STATES.keys()])
            with replaced(self._path) as new:
                _save(content, new)
        except OSError as error:
            log.warning("no checkpoint after epoch %d: %s", epoch, error)
        except (TypeError, ValueError) as error:
            self._give_up(f"callback: get_state must return JSON values and arrays ({error})")
        else:
            size, seconds = self._path.stat().st_size, time.perf_counter() - start
            log.debug("checkpoint after epoch %d: %d bytes in %.3f sec", epoch, size, seconds)
        self._written = time.perf_counter()

    def _give_up(self, reason: str) -> None:
        if self._interval is None:
            return
        self._interval, code = None, self._first.config.code
        message = f"No checkpoints: {code.path if code is not None else 'Keras'}, {reason}"
        log.warning("%s", message)
        if self._first.prints:
            print(printable(message))

    def _key(self) -> str:
        """Return a text that differs from that of any other experiments."""
        return signature([identity(self._configs[0]), *(of_the_result(asdict(one)) for one in self._configs[1:])])

    def _read(self) -> dict[str, Any]:
        """Return what the checkpoint has, nothing if there is none that can be used."""
        if not self._path.exists():
            return {}
        try:
            found = _load(self._path)
            if self._fits(found):
                log.info("goes on after epoch %d", found["epoch"])
                return found
            reason = "is not of these jobs with this code and these packages"
        except _UNREADABLE as error:
            reason = f"cannot be read ({printable(str(error))[:200]})"
        log.warning("%s: %s; training begins with epoch 1", self._path, reason)
        return {}

    def _fits(self, found: Mapping[str, Any]) -> bool:
        if found["key"] != self._key() or found["jobs"] != self._folders:
            return False
        stacks = list(zip(*(job.variables for job in self._jobs), strict=True))
        return (
            0 < found["epoch"] < self._first.config.training.epochs
            and found["seconds"] >= 0
            and [(one.shape, str(one.dtype)) for one in found["variables"]]
            == [((len(same), *same[0].shape), str(same[0].dtype)) for same in stacks]
            and [states.keys() for states in found["callbacks"]] == [job.with_state().keys() for job in self._jobs]
        )


def stack_of(folder: Path) -> list[str]:
    """Return the folders, relative to this one, of the jobs whose checkpoint lies in it; none if it has none."""
    try:
        jobs = _load(folder / CHECKPOINT, arrays=False)["jobs"]
    except _UNREADABLE:
        return []
    return jobs if isinstance(jobs, list) and all(isinstance(job, str) for job in jobs) else []


def remove(folder: Path) -> None:
    """Remove the checkpoint in a folder, if there is one."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _is_own(callback: Any) -> bool:
    return type(callback).__name__ in code_file.own_classes("callbacks")


def _has_methods(callback: Any) -> bool:
    return all(callable(getattr(callback, name, None)) for name in ("get_state", "set_state"))


def _state(callback: Any) -> Any:
    import numpy as np

    if _is_own(callback):
        return callback.get_state()
    names = STATES[type(callback).__name__]
    if names == STATES["CSVLogger"]:
        return {"lines": np.fromfile(callback.filename, "uint8")}
    return {name: getattr(callback, name) for name in names}


def _set_state(callback: Any, state: Any) -> None:
    if _is_own(callback):
        callback.set_state(state)
    elif (names := STATES[type(callback).__name__]) == STATES["CSVLogger"]:
        state["lines"].tofile(callback.filename)
        callback.append = True
        callback.on_train_begin()  # opens the file again, at its end
    else:
        for name in names:
            setattr(callback, name, state[name])


def _check_keys(states: list[Any]) -> None:
    """Raise TypeError for a key that JSON would turn into text."""
    waiting = list(states)
    while waiting:
        match waiting.pop():
            case dict() as values:
                if odd := [key for key in values if not isinstance(key, str)]:
                    raise TypeError(f"the key {odd[0]!r} is no text")
                waiting += values.values()
            case list() | tuple() as values:
                waiting += values


def _save(content: Mapping[str, Any], path: Path) -> None:
    import numpy as np

    arrays: list[npt.NDArray[Any]] = []

    def place(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not hasattr(value, "__array__"):
            raise TypeError(f"not {type(value)}")
        arrays.append(np.asarray(value))
        if arrays[-1].dtype.hasobject:
            raise TypeError("an array of objects")
        return {_ARRAY: [str(len(arrays) - 1), arrays[-1].dtype.name]}

    text = np.frombuffer(json.dumps(content, default=place).encode(), "uint8")
    with zipfile.ZipFile(path, "w") as members:
        for name, array in [("state", text), *((str(index), array) for index, array in enumerate(arrays))]:
            with members.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _load(path: Path, *, arrays: bool = True) -> dict[str, Any]:
    import numpy as np

    with open_file(path, folder=path.parent) as opened, np.load(opened, allow_pickle=False) as file:

        def placed(value: dict[str, Any]) -> Any:
            if not arrays or value.keys() != {_ARRAY}:
                return value
            name, kind = value[_ARRAY]
            array = file[name]
            return array.view(kind) if array.dtype.kind == "V" else array  # the file has no name for bfloat16

        loaded: dict[str, Any] = json.loads(file["state"].tobytes(), object_hook=placed)
    return loaded
