"""`code=FILE`: what a Python file of the user's own registers is named, trained, swept, repeated and predicted with."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from mnist_exp import InputError, run
from mnist_exp.config import own_code
from mnist_exp.config.checks import check
from mnist_exp.config.composition import _backend, compose, recompose
from mnist_exp.config.own_code import CodeFile, read_code
from mnist_exp.config.parsing import parse
from mnist_exp.experiment import experiment_signature
from mnist_exp.tracking.environment import make_config
from mnist_exp.training.saved_models import load

from .conftest import Command, artifacts, facts, in_process, runs_in, store, sweep_in

GUIDE = Path(__file__).parents[1] / "docs" / "own-code.md"
QUICK = ("dataset.limit=1000", "dataset.validation=200", "training.epochs=2", "training.batch_size=100")
EXAMPLE = ("code=mine.py", "dataset=noisy", "model=layers", "model.layers=[Flatten,Gain]", "training.loss=Forgiving")

HEADER = "from typing import Literal\nimport keras\nimport mnist_exp\n"
REGISTERED = "@keras.saving.register_keras_serializable()\n"
MODEL = """
@mnist_exp.model
def own(x, width: int, rate: float = 1, names: list[str] | None = None, *, kind_of: Literal["a", "b"] = "a", f=len):
    return x
"""
LAYER = f"{REGISTERED}class Gain(keras.layers.Layer):\n    def __init__(self, start=1.0, **kwargs): pass\n"
GAIN = ("model=layers", "model.layers=[Flatten,Gain]")


def write(text: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEADER + text)
    return f"code={name}"


def use(text: str) -> CodeFile:
    code = read_code(write(text).removeprefix("code="))
    own_code.use(code)
    return code


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The file that docs/own-code.md shows: a dataset, a layer and a loss."""
    found = re.search(r"```python mine\.py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    file = tmp_path / "mine.py"
    file.write_text(found[1])
    return file


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("code=none.py", "code=none.py: no such file"),
        (f"code={'a' * 300}.py", "File name too long"),
        ("code=[a.py]", "code=[a.py]: must be a Python file"),
        ("code=a.py,b.py", "code=a.py,b.py: must have one value, which all jobs of a sweep share"),
    ],
)
def test_code_names_one_python_file(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([typed])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "text", "said"),
    [
        ("experiment=evil", "code: mine.py\n", "a preset or recorded run may not set this"),
        ("sweep=evil", "hydra: {sweeper: {params: {code: mine.py}}}\n", "a preset or recorded run may not set this"),
        ("sweep=grid +hydra.sweeper.params.code=mine.py", "", "can only be typed"),
    ],
)
def test_only_the_user_names_code(tmp_path: Path, typed: str, text: str, said: str) -> None:
    Path("mine.py").write_text("open('RAN', 'w')")
    preset = tmp_path / "theirs" / typed.split()[-1].partition("=")[0] / "evil.yaml"
    if text:
        preset.parent.mkdir(parents=True)
        preset.write_text(f"# @package _global_\n{text}")
    done = in_process("-m", *(("--config-dir", "theirs") if text else ()), *typed.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert f"code=mine.py: {said}" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "theirs"}


@pytest.mark.parametrize("header", ["", "\ufefffrom __future__ import annotations\n"])
def test_arguments_of_a_function_are_keys(header: str) -> None:
    Path("mine.py").write_text(header + HEADER + MODEL)
    typed = ["code=mine.py", "model=own", "model.width=3"]
    config = compose(typed).config
    assert vars(config.model) == {"kind": "own", "width": 3, "rate": 1.0, "names": None, "kind_of": "a"}
    assert config.preprocessing.kind == "image"
    changed = compose([*typed, "model.rate=2", "model.names=[x,y]", "model.kind_of=b"]).config.model
    assert vars(changed) == {"kind": "own", "width": 3, "rate": 2.0, "names": ["x", "y"], "kind_of": "b"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=own", "model.width: is not set; it must be a whole number"),
        ("model=own model.width=1.5", "model.width=1.5: must be a whole number"),
        ("model=own model.width=1 model.rte=1", "model.rte=1: model (own) has no such key; did you mean model.rate=1?"),
        ("model=layers model.layers=[gain]", "model.layers[0]=gain: not one of the layers that can"),
        ("model=layers model.layers=[{Gain:{stat:2}}]", "model.layers[0].Gain.stat=2: Gain has no such argument"),
        ("training.loss=Other", "mine.py defines it, but without @keras.saving.register_keras_serializable() above it"),
    ],
)
def test_wrong_names_and_values_are_refused(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([write(MODEL + LAYER + "class Other(keras.losses.Loss): pass\n"), *typed.split()])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "mine.py: SyntaxError: invalid syntax (mine.py, line 4)"),
        ("x = 1\n", "code=mine.py: registers nothing"),
        ("def f():\n    return {}['a']\nx = f()\n", "mine.py, line 5: KeyError: 'a'"),
        ("import beside_it\n", "mine.py, line 4: ModuleNotFoundError: No module named 'beside_it'"),
        (f"{REGISTERED}class Dense(keras.layers.Layer): pass\n", "class Dense: has a name that Keras or this project"),
        (f"{REGISTERED}class Watch(keras.callbacks.Callback): pass\n", "line 4: ValueError: Cannot register a class"),
        ("@mnist_exp.model()\ndef f(x): ...\n", "mine.py, line 4: TypeError: model() missing 1 required"),
        ("@mnist_exp.model\ndef f(x, *, defaults=1): ...\n", "defaults: cannot be a key of a model"),
        ("@mnist_exp.dataset\ndef f(limit=3): ...\n", "argument limit: cannot be a key of a dataset"),
        ("@mnist_exp.model\ndef f(x, size: 'not a type'): ...\n", "model f: its types cannot be read"),
        ("@mnist_exp.model\ndef cnn(x): return x\n", "model=cnn is a choice of this project"),
    ],
)
def test_a_file_that_fails_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        compose([write(text)])
    assert "\n" not in str(raised.value)
    assert compose([write(LAYER), *GAIN]).config.model.kind == "layers"


def test_names_come_from_loops_conditions_and_imports() -> None:
    write(f"{REGISTERED}class Beside(keras.layers.Layer): pass\n", "beside.py")
    write(f"{REGISTERED}class Second(keras.layers.ReLU): pass\n", "of_two.py")
    Path("colorsys.py").write_text("raise ValueError('an installed module takes precedence')")
    use(f"""
import beside, colorsys
from of_two import Second

for size in (3, 5):
    @keras.saving.register_keras_serializable(name=f"Blur{{size}}")
    class Blur(keras.layers.Layer):
        def __init__(self, size=size, **kwargs): super().__init__(**kwargs)

if keras.backend.backend() == "tensorflow":
{MODEL.replace(chr(10), chr(10) + "    ")}
for name in ("narrow", "wide"):
    def net(images, width=len(name)): return images
    net.__name__ = name
    mnist_exp.model(net)
""")
    assert own_code.own_classes("layers").keys() == {"Blur3", "Blur5", "Beside", "Second"}
    assert [own_code.read_arguments(own_code.own_classes("layers")[name])["size"] for name in ("Blur3", "Blur5")] == [
        3,
        5,
    ]
    widths = {name: keys["width"].default for name, keys in own_code.keys("model").items() if name != "own"}
    assert widths == {"narrow": 6, "wide": 4}
    use(LAYER)
    assert [*own_code.own_classes("layers"), *own_code.keys("model")] == ["Gain"]


def test_arguments_of_the_bases_of_a_class_can_be_set() -> None:
    text = f"""
class Middle(keras.layers.Dense):
    def __init__(self, gain=1.0, **kwargs): super().__init__(units=3, **kwargs)

{REGISTERED}class Open(Middle):
    def __init__(self, *, first, **kwargs): super().__init__(**kwargs)

{REGISTERED}class Closed(Middle):
    def __init__(self, first=(1, 2), function=len): super().__init__()

{REGISTERED}class Inherits(keras.layers.Dropout): pass
"""
    use(text)
    opened, closed = (own_code.read_arguments(own_code.own_classes("layers")[name]) for name in ("Open", "Closed"))
    assert {"first", "gain", "units", "use_bias", "name", "trainable"} <= opened.keys()
    assert opened["units"] is None  # __init__ may give the argument itself
    assert closed == {"first": (1, 2), "function": None}
    for layer, said in (("Open", "Open needs first"), ("Inherits", "Inherits needs rate")):
        with pytest.raises(InputError, match=said):
            compose(["code=mine.py", "model=layers", f"model.layers=[{layer}]"])


def test_a_process_of_a_sweep_needs_no_copy_of_the_file() -> None:
    config = compose([write(MODEL + LAYER), "model=own", "model.width=3"]).config
    sent = pickle.loads(pickle.dumps(config.code))
    Path("mine.py").unlink()
    own_code.use(None)
    assert check({**make_config(config), "code": "mine.py"}, sent) == config


def test_a_file_is_forgotten_by_what_is_composed_after_it() -> None:
    compose([write(LAYER), *GAIN])
    with pytest.raises(InputError, match="Gain: not one of the layers"):
        compose(GAIN)


def test_the_signature_has_the_text_of_the_file_and_not_its_name() -> None:
    def signature(*typed: str) -> str:
        return experiment_signature(compose(typed).config, "data")

    first = signature(write(LAYER))
    assert signature(write(LAYER, "copy.py")) == first
    assert len({first, signature(write(LAYER + "\n# edited\n")), signature()}) == 3


def preset(text: str) -> Path:
    folder = Path("mine").absolute()
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    return folder


def test_preset_may_choose_a_model_of_the_code_file() -> None:
    folder = preset("defaults: [{override /model: own}]\nmodel: {width: 5}\n")
    assert vars(compose([write(MODEL), "experiment=theirs"], folder).config.model)["width"] == 5
    with pytest.raises(InputError, match="model=own: no such choice"):
        compose(["experiment=theirs"], folder)
    (folder / "experiment" / "theirs.yaml").write_text("# @package _global_\nbackend: jax\n")
    with pytest.raises(InputError, match=r"backend=jax: a preset says so, .* tensorflow; type backend=jax"):
        compose([write(MODEL), "experiment=theirs"], folder)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "recorded", "backend"),
    [
        ((), None, "tensorflow"),
        (("experiment=convnet", "+backend='jax'"), None, "jax"),
        (("sweep=stacked",), None, "jax"),
        (("sweep=stacked", "backend=tensorflow"), "jax", "tensorflow"),
        (("backend=torch",), None, "tensorflow"),  # torch is refused later
    ],
)
def test_the_backend_is_known_before_the_import(typed: tuple[str, ...], recorded: str | None, backend: str) -> None:
    assert _backend(parse(typed), recorded) == backend


def test_a_recorded_configuration_has_no_code_of_its_own() -> None:
    typed = write(MODEL)
    recorded = yaml.safe_load(yaml.safe_dump(make_config(compose([typed, "model=own", "model.width=3"]).config)))
    assert recorded["code"] == "mine.py"
    with pytest.raises(InputError, match=r"model\.kind=own: must be one of"):
        recompose(recorded, [])
    assert vars(recompose(recorded, [typed]).config.model)["width"] == 3


@pytest.mark.slow
def test_own_code_is_swept_resumed_predicted_with_and_rerun(tmp_path: Path, example: Path) -> None:
    sweep = ("-m", *EXAMPLE, *QUICK, "dataset.amount=0.1,0.3", "resume=true")
    first = in_process(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    parent, jobs = sweep_in(tmp_path)
    best = facts(parent)["best_run"]
    for recorded in (parent, *jobs):
        assert recorded.info.status == "FINISHED"
        assert facts(recorded)["own_code"] == read_code(str(example)).label
        assert "code/mine.py" in artifacts(store(tmp_path), recorded.info.run_id)
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


@pytest.mark.slow
@pytest.mark.usefixtures("example")
def test_stack_with_own_code_equals_single_jobs(tmp_path: Path, jax_command: Command) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_kind_of_class_is_trained_with(tmp_path: Path, jax_command: Command, backend: str) -> None:
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


@pytest.mark.slow
def test_direction_and_batches_are_asked_of_own_classes(tmp_path: Path, jax_command: Command) -> None:
    (tmp_path / "kinds.py").write_text(ALL_KINDS.replace("on_epoch_end(self, epoch", "on_train_batch_end(self, batch"))
    metric = ("code=kinds.py", "training.metrics=[accuracy,Near]")
    with pytest.raises(InputError, match="objective=val_near: is a metric of kinds"):
        run(*metric, "objective=val_near")
    refused = jax_command("code=kinds.py", "training.callbacks={Count:{}}", "backend=jax", cwd=tmp_path)
    assert "acts within an epoch, but backend=jax runs each" in refused.stderr


FAILING = """
import keras
import mnist_exp

@mnist_exp.model
def failing(x, how: str):
    if how == "bug":
        return 1 / len(())
    if how == "lambda":
        return keras.layers.Lambda(lambda t: t)(keras.layers.Flatten()(x))
    if how == "list":
        return [x, x]
    if how == "forgetful":
        return Forgetful(2)(keras.layers.Flatten()(x))
    if how == "quiet":
        return Quiet(2)(keras.layers.Flatten()(x))
    if how == "unregistered":
        return Unregistered()(x)

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
class Quiet(Forgetful):
    def __init__(self, size=1, **kwargs):
        super(Forgetful, self).__init__(**kwargs)
        self.size = size

class Unregistered(keras.layers.Flatten):
    pass

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
def empty():
    return [1, 2, 3]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "said", "with_traceback"),
    [
        ("model=failing model.how=bug", "failing.py, line 8: ZeroDivisionError: division by zero", True),
        ("model=failing model.how=lambda", "keras.layers.Lambda, which a saved model may not; write a layer", False),
        (
            "model=failing model.how=list",
            "model=failing: the function must return one Keras tensor; it returned list",
            False,
        ),
        ("model=failing model.how=forgetful", "could be saved but not loaded again", False),
        ("model=failing model.how=quiet", "not loaded again (it then computes something else); the __init__", False),
        ("model=failing model.how=unregistered", "failing.py defines it, but without @keras.saving.register", False),
        (
            "model=layers model.layers=[Flatten,{Forgetful:{size:2}}]",
            "class Forgetful: its get_config must return size too",
            False,
        ),
        ("training.metrics=[accuracy,Hits]", "class Hits: is named hit_rate, not hits; let __init__ take", False),
        ("preprocessing.augment=[Cut]", "Cut: must keep the shape (28, 28, 1) of images; gives (20, 28, 1)", False),
        ("model=layers model.layers=[Flatten,Broken]", "AttributeError: 'Broken' object has no attribute 'nope'", True),
        ("dataset=empty", "dataset=empty: must return ((x_train, y_train), (x_test, y_test))", False),
    ],
)
def test_an_error_in_the_file_shows_its_line(tmp_path: Path, typed: str, said: str, *, with_traceback: bool) -> None:
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


@pytest.mark.slow
@pytest.mark.usefixtures("example")
def test_a_model_may_name_only_classes_of_the_file(tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_an_edit_between_two_runs_in_a_notebook_is_seen(example: Path) -> None:
    of_each = []
    text = example.read_text()
    for start in ("1.0", "0.0") * 2:
        example.write_text(text.replace("start=1.0", f"start={start}"))
        of_each.append(run(*EXAMPLE, *QUICK, "tracking=none").history)
    assert of_each[0] == of_each[2] != of_each[1] == of_each[3]
