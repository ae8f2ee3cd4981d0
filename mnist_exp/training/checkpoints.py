"""Save and restore an experiment after an epoch, as if nothing had stopped it.

It is one file, read without pickle: arrays, and plain values as JSON text, in which an array is named by its place.
"""

import json
import logging
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config import own_code
from mnist_exp.config.files import CHECKPOINT, METRICS, open_file, read_text, replacing, write_text
from mnist_exp.data.metadata import DAMAGED
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, identity, signature
from mnist_exp.text import say, truncate

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


class Checkpoints:
    """The checkpoints of an experiment that trains alone, in its output folder.

    `epoch`: how many epochs had ended at the checkpoint after which training goes on; 0 without one.
    """

    def __init__(
        self, experiment: Experiment, variables: Sequence[Any], callbacks: Sequence[Any], start: float
    ) -> None:
        """Read a resumed experiment's checkpoint, and restore `metrics.jsonl` up to it.

        Args:
            experiment: that trains.
            variables: its state in training, always in the same order.
            callbacks: of Keras, and the user's own.
            start: the value of `perf_counter` when training began.
        """
        self._experiment, self._variables = experiment, variables
        named = {type(callback).__name__: callback for callback in callbacks}
        self._callbacks = {name: callback for name, callback in named.items() if name in STATES or _is_own(callback)}
        self._path = experiment.output / CHECKPOINT
        self._key = signature(identity(experiment.config))
        self._interval = experiment.config.training.checkpoint_seconds
        self._start = self._written = start
        self._found = self._read() if experiment.resumes else {}
        self.epoch: int = self._found.get("epoch", 0)
        self._start -= self._found.get("seconds", 0.0)
        if experiment.resumes:
            write_text(experiment.output / METRICS, self._found.get("metrics", ""))
        if lacking := [
            name for name, callback in self._callbacks.items() if _is_own(callback) and not _has_methods(callback)
        ]:
            self._give_up(f"{' and '.join(lacking)} has no get_state and set_state")

    def seconds(self) -> float:
        """Return the wall time of training, with the time before the checkpoint."""
        return time.perf_counter() - self._start

    def restore(self) -> None:
        """Restore variables and callbacks from the checkpoint.

        It is called once Keras has told the callbacks that training begins, at which they forget their state.
        """
        found, self._found = self._found, {}
        for variable, value in zip(self._variables, found["variables"], strict=True):
            variable.assign(value)
        for name, callback in self._callbacks.items():
            _set_state(callback, found["callbacks"][name])

    def are_due(self, epoch: int) -> bool:
        """Return whether a checkpoint is due after an epoch, counted from 1.

        After the last epoch none is.
        """
        if self._interval is None or epoch >= self._experiment.config.training.epochs:
            return False
        return time.perf_counter() - self._written >= self._interval

    def write(self, epoch: int) -> None:
        """Write a checkpoint after an epoch whose metrics are recorded."""
        import numpy as np

        content: dict[str, Any] = {
            "key": self._key,
            "epoch": epoch,
            "seconds": self.seconds(),
            "callbacks": {name: _state(callback) for name, callback in self._callbacks.items()},
            "variables": [np.asarray(variable) for variable in self._variables],
        }
        try:
            if not _has_text_keys([state for name, state in content["callbacks"].items() if name not in STATES]):
                raise TypeError("a key is no text")
            content["metrics"] = read_text(self._path.with_name(METRICS), folder=self._path.parent, most=None)
            if content["metrics"].count("\n") != epoch:
                raise OSError(f"{METRICS} lacks what a full disk kept back")
            with replacing(self._path) as new:
                _save(content, new)
        except (OSError, InputError) as error:
            log.warning("no checkpoint after epoch %d: %s", epoch, error)
        except (TypeError, ValueError) as error:
            self._give_up(f"get_state of a callback must return JSON values and arrays ({error})")
        self._written = time.perf_counter()

    def _give_up(self, reason: str) -> None:
        if self._interval is None:
            return
        self._interval, code = None, self._experiment.config.code
        message = f"Note: no checkpoints are written, since in {code.path if code is not None else 'Keras'} {reason}"
        log.warning("%s", message)
        if self._experiment.prints:
            say(message)

    def _read(self) -> dict[str, Any]:
        """Return the checkpoint's content, or {} if there is none that can be used."""
        if not self._path.exists():
            return {}
        try:
            found = _load(self._path)
            if self._fits(found):
                log.info("goes on after epoch %d", found["epoch"])
                return found
            reason = "is not of this experiment with this code and these packages"
        except _UNREADABLE as error:
            reason = f"cannot be read ({truncate(str(error), 200)})"
        log.warning("%s: %s; training begins with epoch 1", self._path, reason)
        return {}

    def _fits(self, found: Mapping[str, Any]) -> bool:
        return (
            found["key"] == self._key
            and 0 < found["epoch"] < self._experiment.config.training.epochs
            and found["seconds"] >= 0
            and found["metrics"].count("\n") == found["epoch"]
            and [(variable.shape, str(variable.dtype)) for variable in found["variables"]]
            == [(tuple(variable.shape), str(variable.dtype)) for variable in self._variables]
            and found["callbacks"].keys() == self._callbacks.keys()
        )


def remove(folder: Path) -> None:
    """Remove the checkpoint in a folder, if there is one."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _is_own(callback: Any) -> bool:
    return type(callback).__name__ in own_code.own_classes("callbacks")


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


def _has_text_keys(value: Any) -> bool:
    """Return whether all keys within a value are text.

    JSON would make others text.
    """
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_text_keys(part) for key, part in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))


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


def _load(path: Path) -> dict[str, Any]:
    import numpy as np

    with open_file(path, folder=path.parent) as opened, np.load(opened, allow_pickle=False) as file:

        def placed(value: dict[str, Any]) -> Any:
            if value.keys() != {_ARRAY}:
                return value
            name, kind = value[_ARRAY]
            array = file[name]
            return array.view(kind) if array.dtype.kind == "V" else array  # the file has no name for bfloat16

        loaded: dict[str, Any] = json.loads(file["state"].tobytes(), object_hook=placed)
    return loaded
