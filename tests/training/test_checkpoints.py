"""Training that was interrupted goes on after its checkpoint, and ends as if it had not been, to the last bit."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.keras_names import ALLOWED
from mnist_exp.errors import InputError
from mnist_exp.experiment import Child
from mnist_exp.runner import run_experiment
from mnist_exp.tracking.folder import Folder
from mnist_exp.training import checkpoints
from mnist_exp.training.engine import choose_engine
from mnist_exp.training.split import load_data

from ..conftest import OnJax, installed

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from mnist_exp.training.training import TrainingResult

needs_jax = pytest.mark.skipif(not installed("jax"), reason="needs pip install -e '.[jax]'")
BACKENDS = ["tensorflow", pytest.param("jax", marks=needs_jax)]

FEW = ("dataset.limit=500", "dataset.validation=100", "training.epochs=7", "training.batch_size=50")
EACH_EPOCH = "training.checkpoint_seconds=1e-9"
# Layers with a random state or with weights that are not trained.
LAYERS = (
    "preprocessing=image",
    "model=layers",
    "model.layers=[{RandomZoom:{height_factor:0.1}},{Conv2D:{filters:2,kernel_size:5,strides:3}},BatchNormalization,ReLU,"
    "Flatten,{Dense:{units:8,dtype:bfloat16}},{Dropout:{rate:0.5}}]",
    "preprocessing.augment=[{RandomRotation:{factor:0.1}},{RandomContrast:{factor:0.5}}]",
)
# The loss rises after an epoch or two, so that patience runs when the run is interrupted.
CALLBACKS = (
    "optimizer.learning_rate=0.1",
    "model.activation=relu",
    "training.callbacks={EarlyStopping:{monitor:val_loss,patience:4,restore_best_weights:true},"
    "ReduceLROnPlateau:{monitor:loss,patience:2,min_delta:0.2,cooldown:1},CSVLogger:{filename:epochs.csv},"
    "ModelCheckpoint:{filepath:'best.weights.h5',save_weights_only:true,save_best_only:true}}",
)
AVERAGED = (
    "optimizer.use_ema=true",
    "optimizer.ema_momentum=0.9",
    "optimizer.learning_rate={CosineDecay:{initial_learning_rate:0.05,decay_steps:50}}",
)
SWAPPED = ("optimizer.use_ema=true", "optimizer.ema_momentum=0.9")
OWN = """
import keras
import numpy as np

@keras.saving.register_keras_serializable()
class Noise(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(7)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if not training:
            return x
        self.calls.assign_add(1.0)
        unseeded = keras.random.normal(keras.ops.shape(x)) if keras.backend.backend() == "tensorflow" else 0.0
        return x + unseeded + self.calls * keras.random.normal(keras.ops.shape(x), seed=self.seeds)

    def get_config(self):
        return super().get_config()

@keras.saving.register_keras_serializable()
class Slower(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs, self.losses = 0, np.zeros(0)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        self.losses = np.append(self.losses, logs["loss"])
        self.model.optimizer.learning_rate = 0.01 * float(self.losses.mean()) / self.epochs

    def get_state(self):
        return {"epochs": self.epochs, "all": [self.losses]}

    def set_state(self, state):
        self.epochs, [self.losses] = state["epochs"], state["all"]

    def get_config(self):
        return {}
"""
OWN_CODE = (
    "code=mine.py",
    "model=layers",
    "model.layers=[Flatten,Noise,{Dense:{units:8,activation:relu}}]",
    "training.callbacks={Slower:{}}",
)


def train(folder: str, overrides: Sequence[str], *, resumes: bool = False, interrupt: int = 0) -> dict[str, Any]:
    """Train an experiment in a folder, up to an epoch in which it is interrupted.

    Returns:
        The epochs that ended, and what it gave, as plain values.
    """
    composed = compose(["tracking=none", *FEW, *overrides])
    experiment = replace(composed, output=Path(folder), child=Child("", {}), resumes=resumes)
    experiment.output.mkdir(parents=True, exist_ok=True)
    epochs: list[int] = []

    def on_epoch(epoch: int, metrics: Mapping[int, Mapping[str, float]]) -> Collection[int]:
        Folder(experiment.output).measure(epoch, metrics[0])
        if epoch == interrupt:
            raise KeyboardInterrupt
        epochs.append(epoch)
        return ()

    config, given = experiment.config, list[Any]()
    engine = choose_engine(config.backend)
    with suppress(KeyboardInterrupt):
        given = [as_plain(result) for result in engine.train([experiment], load_data(config.dataset), on_epoch)]
    return {"epochs": epochs, "given": given}


def as_plain(given: "TrainingResult | InputError") -> Any:
    """The history, kept epoch, scores and weights of what was trained, or the text of an error."""
    if isinstance(given, InputError):
        return str(given)
    scores = {name: value for name, value in given.scores.items() if name != "fit_seconds"}
    return given.history, given.kept_epoch, scores, [array.tobytes() for array in given.model.get_weights()]


def trained(on_jax: OnJax, backend: str, folder: str, *overrides: str, **how: Any) -> dict[str, Any]:
    """What `train` returns, with a backend."""
    typed = (f"backend={backend}", *overrides)
    result: dict[str, Any] = on_jax(train, folder, typed, **how) if backend == "jax" else train(folder, typed, **how)
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "overrides", [LAYERS, CALLBACKS, AVERAGED, OWN_CODE], ids=["layers", "callbacks", "ema", "own"]
)
def test_an_interrupted_run_goes_on_bit_by_bit(on_jax: OnJax, backend: str, overrides: Sequence[str]) -> None:
    interrupt_twice(on_jax, backend, overrides)


def test_swapped_weights_go_on_bit_by_bit(on_jax: OnJax) -> None:
    swap = "training.callbacks={SwapEMAWeights:{swap_on_epoch:true},TerminateOnNaN:{}}"
    interrupt_twice(on_jax, "tensorflow", (*SWAPPED, swap))


def interrupt_twice(on_jax: OnJax, backend: str, overrides: Sequence[str]) -> None:
    """Compare a run that was interrupted in epochs 4 and 5 with the same one without an interruption."""
    Path("mine.py").write_text(OWN)
    whole = trained(on_jax, backend, "whole", *overrides, "training.checkpoint_seconds=null")
    one, other = Path("whole"), Path("parts")
    assert not (one / "checkpoint.npz").exists()
    for resumes, interrupt, epochs in ((False, 4, [1, 2, 3]), (True, 5, [4])):
        given = trained(on_jax, backend, "parts", *overrides, EACH_EPOCH, resumes=resumes, interrupt=interrupt)
        assert given["epochs"] == epochs
    first = Folder(other).read_metrics()[:4]  # the last line of which was measured twice
    last = trained(on_jax, backend, "parts", *overrides, EACH_EPOCH, resumes=True)
    assert [*range(1, 5), *last["epochs"]] == whole["epochs"]
    assert last["given"] == whole["given"]
    assert Folder(one).history() == Folder(other).history()
    assert Folder(other).read_metrics()[:4] == first
    if (one / "epochs.csv").exists():
        assert (one / "epochs.csv").read_bytes() == (other / "epochs.csv").read_bytes()
        assert len((one / "epochs.csv").read_bytes().splitlines()) == 1 + len(Folder(one).history()["loss"])


def short(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:2]))


def unreadable(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"val", b"\xff\n"))


@pytest.mark.parametrize("spoil", [Path.unlink, unreadable])
def test_lost_metrics_come_back_from_the_checkpoint(spoil: Callable[[Path], None]) -> None:
    train("parts", (EACH_EPOCH,), interrupt=6)
    before = Folder(Path("parts")).read_metrics()[:5]
    spoil(Path("parts/metrics.jsonl"))
    assert train("parts", (EACH_EPOCH,), resumes=True)["epochs"] == [6, 7]
    after = Folder(Path("parts")).read_metrics()
    assert after[:5] == before
    assert [line["step"] for line in after] == [*range(1, 8)]


def test_no_checkpoint_while_metrics_are_kept_back(caplog: pytest.LogCaptureFixture) -> None:
    train("parts", (EACH_EPOCH,), interrupt=4)
    short(Path("parts/metrics.jsonl"))
    experiment = replace(compose(["tracking=none", *FEW, EACH_EPOCH]), output=Path("parts"))
    choose_engine("tensorflow").train([experiment], load_data(experiment.config.dataset), lambda *_: ())
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == 5  # after epoch 2 the file has two lines


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.savez(path, state=np.array([print], dtype=object))


def of_another_form(path: Path) -> None:
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **{name: array if name == "state" else array[None] for name, array in arrays.items()})


def of_another_run(path: Path) -> None:
    train("other", ("seed=1", EACH_EPOCH), interrupt=4)
    Path("other/checkpoint.npz").replace(path)


@pytest.mark.parametrize("spoil", [changed, pickled, of_another_form, of_another_run])
def test_an_invalid_checkpoint_is_named_and_training_restarts(
    spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    train("parts", (EACH_EPOCH,), interrupt=4)
    path = Path("parts/checkpoint.npz")
    spoil(path)
    caplog.clear()
    again = train("parts", (EACH_EPOCH, "training.checkpoint_seconds=null"), resumes=True)
    [message] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(f"{path}: ")
    assert message.endswith("; training begins with epoch 1")
    assert "\n" not in message
    assert again["epochs"] == [line["step"] for line in Folder(Path("parts")).read_metrics()] == [*range(1, 8)]


def test_the_state_of_each_callback_of_keras_is_known() -> None:
    from mnist_exp.config.keras_backend import keras

    assert checkpoints.STATES.keys() == ALLOWED["callbacks"] - {"TerminateOnNaN"} | {"History"}
    for name, attributes in checkpoints.STATES.items():
        path = {"CSVLogger": ["a.csv"], "ModelCheckpoint": ["a.keras"]}.get(name, [])
        callback = getattr(keras.callbacks, name)(*path)
        callback.on_train_begin()
        assert name == "CSVLogger" or set(attributes) <= vars(callback).keys()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("set_state", "restore", "Slower has no get_state and set_state"),
        ("[self.losses]}", "{1}}", "get_state of a callback must return JSON values and arrays (not <class 'set'>)"),
        ("[self.losses]}", "{1: 2}}", "get_state of a callback must return JSON values and arrays (a key is no text)"),
        (
            "[self.losses]}",
            "np.array([{}])}",
            "get_state of a callback must return JSON values and arrays (an array of objects)",
        ),
    ],
)
def test_a_callback_whose_state_cannot_be_saved_is_named_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    Path("mine.py").write_text(OWN.replace(old, new))
    experiment = compose(["tracking=none", *FEW, *OWN_CODE, EACH_EPOCH])
    experiment.output.mkdir(parents=True)
    config = experiment.config
    (experiment.output / "metrics.jsonl").write_text("\n")
    choose_engine(config.backend).train([experiment], load_data(config.dataset), lambda *_: ())
    message = f"Note: no checkpoints are written, since in mine.py {said}"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [message]
    assert capsys.readouterr().out.splitlines().count(message) == 1
    assert [path.name for path in experiment.output.iterdir()] == ["metrics.jsonl"]


def test_the_time_before_the_interruption_counts() -> None:
    train("parts", (EACH_EPOCH,), interrupt=4)
    path = Path("parts/checkpoint.npz")
    with np.load(path) as content:
        arrays = dict(content)
    state = json.loads(arrays["state"].tobytes()) | {"seconds": 5000.0}
    np.savez(path, **(arrays | {"state": np.frombuffer(json.dumps(state).encode(), "uint8")}))
    experiment = replace(compose(["tracking=none", *FEW]), output=Path("parts"), resumes=True)
    experiment = replace(experiment, config=compose(["tracking=none", *FEW, EACH_EPOCH]).config)
    [trained] = choose_engine("tensorflow").train([experiment], load_data(experiment.config.dataset), lambda *_: ())
    assert not isinstance(trained, InputError)
    assert 5000 < trained.scores["fit_seconds"] < trained.seconds


def test_a_checkpoint_stays_until_its_run_ends_or_is_replaced() -> None:
    experiment = compose(["tracking=none", *FEW, EACH_EPOCH])
    path = experiment.output / "checkpoint.npz"

    def on_epoch(epoch: int, _metrics: object) -> Collection[int]:
        assert path.exists() == (epoch > 1)
        if epoch == 3 and interrupts:
            raise KeyboardInterrupt
        return ()

    for interrupts in (True, False):
        with pytest.raises(KeyboardInterrupt) if interrupts else nullcontext():
            run_experiment(experiment, on_epoch=on_epoch)
        assert path.exists() == interrupts
