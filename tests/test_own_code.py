"""A file of one's own, named by `code=`: trained, swept, resumed, predicted with and repeated, on both backends."""

import json
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from mnist_exp import InputError, run
from mnist_exp.config.code_file import read_code
from mnist_exp.training.saved_models import load

from .conftest import Command, artifacts, facts, in_process, runs_in, store, sweep_in

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[1] / "docs" / "own-code.md"
QUICK = ("dataset.limit=1000", "dataset.validation=200", "training.epochs=2", "training.batch_size=100")
EXAMPLE = ("code=mine.py", "dataset=noisy", "model=layers", "model.layers=[Flatten,Gain]", "training.loss=Forgiving")


@pytest.fixture(autouse=True)
def example(tmp_path: Path) -> Path:
    """The file that docs/own-code.md shows: a dataset, a layer and a loss."""
    found = re.search(r"```python mine\.py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    assert len(found[1].splitlines()) <= 40
    file = tmp_path / "mine.py"
    file.write_text(found[1])
    return file


def test_it_is_trained_swept_resumed_predicted_with_and_repeated(tmp_path: Path, example: Path) -> None:
    sweep = ("-m", *EXAMPLE, *QUICK, "dataset.amount=0.1,0.3", "resume=true")
    first = in_process(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    parent, jobs = sweep_in(tmp_path)
    best = facts(parent)["best_run"]
    for one in (parent, *jobs):
        assert one.info.status == "FINISHED"
        assert facts(one)["own_code"] == read_code(str(example)).label
        assert "code/mine.py" in artifacts(store(tmp_path), one.info.run_id)
    assert "2 of 2 finished before" in in_process(*sweep, cwd=tmp_path).stdout

    (tmp_path / "seven.png").symlink_to(GUIDE.with_name("seven.png"))
    refused = in_process(best, "seven.png", cwd=tmp_path, module="mnist_exp.predict")
    assert refused.returncode == 1
    assert f"has layers of {read_code(str(example)).label}; name that file" in refused.stderr
    predicted = in_process(best, "seven.png", "--code", "mine.py", cwd=tmp_path, module="mnist_exp.predict")
    assert re.match(r"seven\.png  \d  0\.\d{3}\n", predicted.stdout), predicted.stderr

    refused = in_process(best, cwd=tmp_path, module="mnist_exp.rerun")
    assert refused.returncode == 1
    assert "the run was trained with mine.py" in refused.stderr
    repeated = in_process(best, "code=mine.py", cwd=tmp_path, module="mnist_exp.rerun")
    assert repeated.returncode == 0, repeated.stderr
    assert f"Identical to {best}" in repeated.stdout

    example.write_text(example.read_text().replace("power=0.7", "power=0.5"))
    after = in_process(best, "code=mine.py", cwd=tmp_path, module="mnist_exp.rerun")
    assert after.returncode == 1
    assert re.search(r"own_code: mine\.py \w{12} then, mine\.py \w{12} now", after.stdout)
    predicted = in_process(best, "seven.png", "--code", "mine.py", cwd=tmp_path, module="mnist_exp.predict")
    assert "mine.py is not what the model was trained with" in predicted.stderr
    example.write_text(example.read_text().replace("power=0.5", "power=0.4"))  # what was repeated would count
    edited = in_process(*sweep, cwd=tmp_path)
    assert edited.returncode == 0, edited.stderr
    assert re.search(r"\nnone finished before: other code than run \w{32}\n", edited.stdout)


def test_it_is_trained_resumed_predicted_with_and_repeated_on_jax(tmp_path: Path, jax_command: Command) -> None:
    typed = (*EXAMPLE, *QUICK, "backend=jax")
    done = jax_command(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [trained] = runs_in(tmp_path)
    assert "has finished this before" in jax_command(*typed, "resume=true", cwd=tmp_path).stdout
    (tmp_path / "seven.png").symlink_to(GUIDE.with_name("seven.png"))
    read = (trained.info.run_id, "seven.png", "--code", "mine.py")
    predicted = in_process(*read, cwd=tmp_path, module="mnist_exp.predict")
    assert re.match(r"seven\.png  \d  0\.\d{3}\n", predicted.stdout), predicted.stderr
    repeated = jax_command(trained.info.run_id, "code=mine.py", cwd=tmp_path, module="mnist_exp.rerun")
    assert repeated.returncode == 0, repeated.stderr
    assert f"Identical to {trained.info.run_id}" in repeated.stdout


def test_a_stack_of_jobs_gives_what_they_give_alone(tmp_path: Path, jax_command: Command) -> None:
    sweep = ("-m", *EXAMPLE, *QUICK, "backend=jax", "seed=0,1")
    for launcher in ("basic", "stacked"):
        done = jax_command(*sweep, f"hydra/launcher={launcher}", f"tracking.experiment={launcher}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    of_each = [
        {run.info.run_name: run.data.metrics["val_loss"] for run in sweep_in(tmp_path, launcher)[1]}
        for launcher in ("basic", "stacked")
    ]
    assert len(of_each[0]) == 2
    assert of_each[1] == pytest.approx(of_each[0], rel=1e-4)


RESNET = """
import keras
import mnist_exp

@mnist_exp.model
def resnet(flow, dropout: float = 0.2):
    layers = keras.layers
    def block(flow, filters, strides):
        shape = {"padding": "same", "use_bias": False}
        flow = layers.BatchNormalization()(layers.Conv2D(filters, 3, strides=strides, **shape)(flow))
        return layers.BatchNormalization()(layers.Conv2D(filters, 3, **shape)(layers.ReLU()(flow)))
    flow = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(flow)
    flow = layers.ReLU()(layers.BatchNormalization()(flow))
    for filters in (32, 64):
        after = block(flow, filters, 2)
        flow = layers.ReLU()(layers.Add()([layers.Conv2D(filters, 1, strides=2, padding="same")(flow), after]))
    return layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(flow))
"""


def test_the_same_network_in_yaml_and_as_code_gives_the_same_weights() -> None:
    Path("resnet.py").write_text(RESNET)
    short = ("experiment=resnet", *QUICK, "tracking=none")
    in_yaml = run(*short).model.get_weights()
    # The list of layers in the preset would remain beside the choice of another model.
    as_code = run("code=resnet.py", *RESNET_SETTINGS, *QUICK, "tracking=none").model.get_weights()
    assert len(in_yaml) == len(as_code) > 20
    for one, other in zip(in_yaml, as_code, strict=True):
        np.testing.assert_array_equal(one, other)


RESNET_SETTINGS = (
    "model=resnet",
    "preprocessing.standardize=true",
    "optimizer.learning_rate={CosineDecay:{initial_learning_rate:0.004,decay_steps:4300}}",
    "+training.callbacks={EarlyStopping:{monitor:val_accuracy,mode:max,patience:4,restore_best_weights:true}}",
)

ALL_KINDS = """
import keras
import mnist_exp

@keras.saving.register_keras_serializable()
class Near(keras.metrics.Metric):
    def __init__(self, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(shape=(), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign(keras.ops.mean(keras.ops.abs(y_true - y_pred)))

    def result(self):
        return self.total.value


@keras.saving.register_keras_serializable()
class Count(keras.callbacks.Callback):
    def __init__(self, filename="epochs.txt"):
        super().__init__()
        self.filename = filename

    def on_epoch_end(self, epoch, logs=None):
        with open(self.filename, "a") as file:
            file.write(f"{epoch}\\n")

    def get_config(self):
        return {"filename": self.filename}


@keras.saving.register_keras_serializable()
class Halves(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


@keras.saving.register_keras_serializable()
class Plain(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_kind_of_class_can_be_named(tmp_path: Path, jax_command: Command, backend: str) -> None:
    (tmp_path / "kinds.py").write_text(ALL_KINDS)
    by = in_process if backend == "tensorflow" else jax_command
    done = by(
        "code=kinds.py",
        *QUICK,
        "model=layers",
        "model.layers=[Flatten,{Dense:{units:4,kernel_initializer:Halves}}]",
        "optimizer=Plain",
        "optimizer.learning_rate=0.2",
        "training.metrics=[accuracy,Near]",
        "training.callbacks={Count:{filename:seen.txt}}",
        "objective=val_near",
        "direction=minimize",
        f"backend={backend}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [recorded] = runs_in(tmp_path)
    assert recorded.data.params["optimizer.kind"] == "Plain"
    assert recorded.data.metrics["objective"] == recorded.data.metrics["val_near"]
    assert [path.read_text() for path in tmp_path.glob("outputs/*/*/seen.txt")] == ["0\n1\n"]


def test_what_only_its_author_knows_is_asked_for(tmp_path: Path, jax_command: Command) -> None:
    (tmp_path / "kinds.py").write_text(ALL_KINDS.replace("on_epoch_end(self, epoch", "on_train_batch_end(self, batch"))
    metric = ("code=kinds.py", "training.metrics=[accuracy,Near]")
    with pytest.raises(InputError, match="objective=val_near: is a metric of kinds"):
        run(*metric, "objective=val_near")
    refused = jax_command("code=kinds.py", "training.callbacks={Count:{}}", "backend=jax", cwd=tmp_path)
    assert "acts within an epoch, but backend=jax runs each" in refused.stderr


FAILING = """
import keras
import mnist_exp
import numpy as np

@mnist_exp.model
def failing(x, how: str):
    if how == "bug":
        return 1 / len(())
    if how == "lambda":
        return keras.layers.Lambda(lambda t: t)(keras.layers.Flatten()(x))
    if how == "list":
        return [x, x]
    if how == "end":
        raise SystemExit(3)
    if how == "forgetful":
        return Forgetful(2)(keras.layers.Flatten()(x))
    return keras.layers.Dense(4)(keras.layers.Reshape((how,))(x))

@keras.saving.register_keras_serializable()
class Forgetful(keras.layers.Layer):
    def __init__(self, size=1):
        super().__init__()
        self.size = size

    def call(self, x):
        return x * self.size

    def get_config(self):
        return super().get_config()

@keras.saving.register_keras_serializable()
class Hits(keras.metrics.MeanMetricWrapper):
    def __init__(self, **kwargs):
        super().__init__(lambda labels, found: found, name="hit_rate")

@keras.saving.register_keras_serializable()
class Cut(keras.layers.Layer):
    def call(self, images, training=False):
        return images[:, :20]

@keras.saving.register_keras_serializable()
class Broken(keras.layers.Layer):
    def call(self, features):
        return features * self.nope

@mnist_exp.dataset
def texts():
    return (np.full((3, 2, 2), "a"), np.arange(3)), (np.zeros((3, 2, 2)), np.arange(3))

@mnist_exp.dataset
def empty():
    return [1, 2, 3]
"""


@pytest.mark.parametrize(
    ("typed", "said", "with_traceback"),
    [
        ("model=failing model.how=bug", "ZeroDivisionError: division by zero", True),
        ("model=failing model.how=lambda", "keras.layers.Lambda, which a saved model may not; write a layer", False),
        ("model=failing model.how=x", "ValueError: ", True),
        ("model=failing model.how=end", "code=failing.py: ends the program (SystemExit: 3)", True),
        (
            "model=failing model.how=list",
            "model=failing: the function must return one Keras tensor; it returned list",
            False,
        ),
        ("model=failing model.how=forgetful", "could be saved but not loaded again", False),
        (
            "model=layers model.layers=[Flatten,{Forgetful:{size:2}}]",
            "class Forgetful: its get_config must return size too",
            False,
        ),
        ("training.metrics=[accuracy,Hits]", "class Hits: is named hit_rate, not hits; let __init__ take", False),
        ("preprocessing.augment=[Cut]", "Cut: must keep the shape (28, 28, 1) of images; gives (20, 28, 1)", False),
        ("model=layers model.layers=[Flatten,Broken]", "AttributeError: 'Broken' object has no attribute 'nope'", True),
        ("dataset=texts", "failing.py: x_train has <U1; must be whole numbers 0 to 255", False),
        ("dataset=empty", "dataset=empty: must return ((x_train, y_train), (x_test, y_test))", False),
    ],
)
def test_an_error_in_the_file_shows_its_own_lines(
    tmp_path: Path, typed: str, said: str, *, with_traceback: bool
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    done = in_process("code=failing.py", *typed.split(), *QUICK, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert ('File "failing.py", line' in done.stderr) == with_traceback
    assert "mnist_exp/runner.py" not in done.stderr
    if typed.startswith("dataset="):
        assert not any(tmp_path.glob("outputs/*/*"))
    else:
        assert [run.info.status for run in runs_in(tmp_path)] == ["FAILED"]


def test_a_model_of_a_stranger_names_no_class_that_the_file_has_not(tmp_path: Path) -> None:
    result = run(*EXAMPLE, *QUICK, "tracking=none")
    file, code = result.output / "model.keras", read_code("mine.py")
    loaded = load(file, code)
    images = np.zeros((2, 28, 28), np.uint8)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), result.model.predict(images, verbose=0))
    for old, new in (("Custom>Gain", "Custom>Other"), ('"class_name": "Gain"', '"class_name": "open"')):
        evil = tmp_path / "evil.keras"
        with zipfile.ZipFile(file) as good, zipfile.ZipFile(evil, "w") as bad:
            for name in good.namelist():
                content = good.read(name)
                bad.writestr(name, content.decode().replace(old, new) if name == "config.json" else content)
        assert json.loads(zipfile.ZipFile(evil).read("config.json")) != json.loads(
            zipfile.ZipFile(file).read("config.json")
        )
        with pytest.raises(InputError, match="which models here may not; it is not loaded"):
            load(evil, code)


def test_an_edit_between_two_runs_of_a_process_is_seen(example: Path) -> None:
    of_each = []
    text = example.read_text()
    for start in ("1.0", "0.0") * 2:
        example.write_text(text.replace("start=1.0", f"start={start}"))
        of_each.append(run(*EXAMPLE, *QUICK, "tracking=none").history)
    assert of_each[0] == of_each[2] != of_each[1] == of_each[3]
    assert "Gain" not in dir(keras.layers)
