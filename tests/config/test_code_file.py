"""What `code=FILE` registers is known before the file runs, and nothing but what is typed can name it."""

import re
from pathlib import Path

import pytest
import yaml

from mnist_exp.config.code_file import read_code
from mnist_exp.config.composition import compose, recompose
from mnist_exp.errors import InputError
from mnist_exp.experiment import experiment_signature
from mnist_exp.tracking.environment import recorded_config

from ..conftest import in_process

pytestmark = pytest.mark.fast

HEADER = "import keras\nimport mnist_exp\nopen('RAN', 'w')\n"
REGISTERED = "@keras.saving.register_keras_serializable()\n"
MODEL = """
@mnist_exp.model
def own(x, width: int, rate: float = 1, names: list[str] | None = None, *, kind_of: Literal["a", "b"] = "a"):
    return x
"""
LAYER = f"{REGISTERED}class Gain(keras.layers.Layer):\n    def __init__(self, start=1.0, **kwargs): pass\n"


def write(text: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEADER + text)
    return f"code={name}"


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ((), {"rate": 1.0, "names": None, "kind_of": "a"}),
        (("model.rate=2", "model.names=[x,y]", "model.kind_of=b"), {"rate": 2.0, "names": ["x", "y"], "kind_of": "b"}),
    ],
)
def test_the_arguments_of_a_function_are_keys(typed: tuple[str, ...], values: dict[str, object]) -> None:
    config = compose([write(MODEL), "model=own", "model.width=3", *typed]).config
    assert vars(config.model) == {"kind": "own", "width": 3, **values}
    assert config.preprocessing.kind == "image"
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=own", "model.width: is not set; it must be a whole number"),
        ("model=own model.width=1.5", "model.width=1.5: must be a whole number"),
        ("model=own model.width=1 model.rte=1", "model.rte=1: model (own) has no such key; did you mean rate?"),
        ("model=own model.width=1 model.kind_of=c", "model.kind_of=c: must be one of a, b"),
        ("model=onw", "model=onw: no such choice; did you mean own?"),
        (
            "model=layers model.layers=[gain]",
            "model.layers[0]=gain: not one of the layers that can",
        ),
        (
            "model=layers model.layers=[{Gain:{stat:2}}]",
            "model.layers[0].Gain.stat=2: Gain has no such argument",
        ),
        ("model=layers model.layers=[{Gain:{start:x}}]", "model.layers[0].Gain.start=x: must be a number"),
        ("training.loss=Mine", "training.loss=Mine: not one of the losses that can be used here"),
        ("training.loss=Other", "mine.py defines it, but without @keras.saving.register_keras_serializable() above it"),
    ],
)
def test_what_is_typed_wrong_is_answered_before_the_file_runs(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([write(MODEL + LAYER + "class Other(keras.losses.Loss): pass\n"), *typed.split()])
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "mine.py, line 4: invalid syntax: def f(:"),
        ("x = 1\n", "code=mine.py: registers nothing"),
        (
            f"{REGISTERED}class Dense(keras.layers.Layer): pass\n",
            "class Dense: has a name that Keras or this project has",
        ),
        (
            f"{REGISTERED}class Adam(keras.layers.Layer): pass\n",
            "class Adam: has a name that Keras or this project has",
        ),
        (f"{REGISTERED}class Net(keras.Model): pass\n", "class Net derives from keras.Model"),
        (f"{REGISTERED}class Watch(keras.callbacks.Callback): pass\n", "class Watch: needs a get_config method"),
        (LAYER + LAYER, "code=mine.py: defines Gain twice"),
        (LAYER.replace("()\n", "\n", 1), "write @keras.saving.register_keras_serializable()"),
        (LAYER.replace("()\n", "(name='G')\n", 1), "leave name= out of the decorator"),
        (f"{REGISTERED}def f(x): ...\n", "@keras.saving.register_keras_serializable is for a class"),
        ("@mnist_exp.model()\ndef f(x): ...\n", "write @mnist_exp.model, without parentheses"),
        ("@mnist_exp.model\ndef null(x): ...\n", "null: must have a name of letters, digits"),
        ("@mnist_exp.model\ndef f(x, *, defaults=1): ...\n", "defaults: cannot be a key of a model"),
        ("@mnist_exp.model\ndef f(x, _target_='os'): ...\n", "_target_: cannot be a key of a model"),
        ("@mnist_exp.model\ndef f(x, path='${oc.env:HOME}'): ...\n", "must be a number, True"),
        ("@mnist_exp.model\ndef f(x, size=b'1'): ...\n", "its default b'1' must be a number"),
        ("@mnist_exp.model\ndef f(x, size: 'not a type'): ...\n", "its type 'not a type' must be made of"),
        (f"{REGISTERED}class A(B): pass\nclass B(A): pass\n", "class A derives from B"),
        ("@mnist_exp.model\ndef cnn(x): return x\n", "model=cnn is a choice of this project"),
        ("@mnist_exp.dataset\ndef f(limit=3): ...\n", "argument limit: cannot be a key of a dataset"),
        ("@mnist_exp.model\ndef f(): ...\n", "its first argument must be the tensor"),
        ("@mnist_exp.model\ndef f(x, *sizes): ...\n", "it can have no *args"),
        ("@mnist_exp.model\ndef f(x, size: bytes): ...\n", "its type bytes must be made of int, float"),
        ("@mnist_exp.model\ndef f(x, size=sum): ...\n", "its default sum must be a number"),
    ],
)
def test_a_file_that_registers_what_cannot_be_named_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([write(text)])
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("code=none.py", "code=none.py: no such file"),
        ("code=none.txt", "code=none.txt: must be a Python file"),
        (f"code={'a' * 300}.py", "File name too long"),
        ("code=[a.py]", "code=[a.py]: must be a Python file"),
        ("code=${dataset.path}", "must be a Python file"),
        ("code=a.py,b.py", "code=a.py,b.py: must have one value, which all jobs of a sweep share"),
    ],
)
def test_code_names_one_python_file(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([typed])


@pytest.mark.parametrize("imported", ["from keras.layers import Layer as L", "import keras as k\nL = k.layers.Layer"])
def test_a_base_is_known_however_it_is_imported(imported: str) -> None:
    text = f"{imported}\n{REGISTERED}class Own({'L' if 'from' in imported else 'k.layers.Layer'}): pass\n"
    compose([write(text), "model=layers", "model.layers=[Own]"])


@pytest.mark.parametrize(
    ("base", "kind"), [("Layer", "layers"), ("Loss", "losses"), ("Metric", "metrics"), ("Regularizer", "regularizers")]
)
def test_the_short_names_of_keras_are_known(base: str, kind: str) -> None:
    code = read_code(write(f"{REGISTERED}class Own(keras.{base}): pass\n").removeprefix("code="))
    assert "Own" in code.registered.classes[kind]


def test_a_class_has_what_the_classes_before_it_give() -> None:
    mixin = "class Mixin:\n    def get_config(self): return {}\n    def on_train_batch_end(self, batch): pass\n"
    text = f"{mixin}{REGISTERED}class Watch(Mixin, keras.callbacks.Callback): pass\n"
    compose([write(text), "training.callbacks={Watch:{}}"])
    with pytest.raises(InputError, match="Watch: acts within an epoch"):
        compose([write(text), "training.callbacks={Watch:{}}", "backend=jax"])


def test_a_file_may_begin_with_the_mark_of_a_text_in_utf_8() -> None:
    Path("mine.py").write_text(HEADER + MODEL, encoding="utf-8-sig")
    assert compose(["code=mine.py", "model=own", "model.width=3"]).config.model.kind == "own"


def test_a_file_is_forgotten_by_what_is_composed_after_it() -> None:
    compose([write(LAYER), "model=layers", "model.layers=[Flatten,Gain]"])
    with pytest.raises(InputError, match="Gain: not one of the layers"):
        compose(["model=layers", "model.layers=[Flatten,Gain]"])


def test_the_text_of_a_file_is_part_of_what_makes_runs_the_same_and_its_name_is_not() -> None:
    def signature(typed: str) -> str:
        return experiment_signature(compose([typed]).config, "data")

    first = signature(write(LAYER))
    assert signature(write(LAYER, "copy.py")) == first
    assert len({first, signature(write(LAYER + "\n# edited\n")), experiment_signature(compose([]).config, "data")}) == 3


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("experiment/evil.yaml", "# @package _global_\ncode: mine.py\n"),
        ("sweep/evil.yaml", "# @package _global_\nhydra: {sweeper: {params: {code: mine.py}}}\n"),
    ],
)
@pytest.mark.parametrize("beside", [(), ("code=mine.py",)])
def test_no_preset_names_code(tmp_path: Path, file: str, text: str, beside: tuple[str, ...]) -> None:
    write(LAYER)
    preset = tmp_path / "theirs" / file
    preset.parent.mkdir(parents=True)
    preset.write_text(text)
    done = in_process("--config-dir", "theirs", "-m", *beside, file.partition("/")[0] + "=evil", cwd=tmp_path)
    assert done.returncode == 1
    assert "code=mine.py: a preset or recorded run may not set this" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "theirs"}


def test_nor_does_a_value_that_hydra_is_told_to_sweep(tmp_path: Path) -> None:
    write(LAYER)
    done = in_process("-m", "sweep=grid", "+hydra.sweeper.params.code=mine.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "code=mine.py: can only be typed" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py"}


def test_a_preset_beside_it_chooses_what_the_file_has(tmp_path: Path) -> None:
    preset = tmp_path / "mine" / "experiment" / "wide.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\ndefaults: [{override /model: own}]\nmodel: {width: 5}\n")
    config = compose([write(MODEL), "experiment=wide"], tmp_path / "mine").config
    assert vars(config.model)["width"] == 5
    with pytest.raises(InputError, match="model=own: no such choice"):
        compose(["experiment=wide"], tmp_path / "mine")


def test_a_recorded_configuration_has_no_code_unless_it_is_typed() -> None:
    typed = write(MODEL)
    recorded = yaml.safe_load(yaml.safe_dump(recorded_config(compose([typed, "model=own", "model.width=3"]).config)))
    assert recorded["code"] == "mine.py"
    with pytest.raises(InputError, match=r"model\.kind=own: must be one of"):
        recompose(recorded, [])
    assert vars(recompose(recorded, [typed]).config.model)["width"] == 3
    assert not Path("RAN").exists()
