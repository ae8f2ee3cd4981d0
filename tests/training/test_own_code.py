"""`code=FILE` is imported, and configuration may name what it registers."""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mnist_exp.config import composition
from mnist_exp.config.code_file import CodeFile, read_code
from mnist_exp.config.schema import Config, check
from mnist_exp.errors import InputError
from mnist_exp.experiment import experiment_signature
from mnist_exp.tracking.environment import recorded_config
from mnist_exp.training.engine import import_own
from mnist_exp.training.models import build

HEADER = "from typing import Literal\nimport keras\nimport mnist_exp\n"
REGISTERED = "@keras.saving.register_keras_serializable()\n"
MODEL = """
@mnist_exp.model
def own(x, width: int, rate: float = 1, names: list[str] | None = None, *, kind_of: Literal["a", "b"] = "a"):
    return x
"""
LAYER = f"{REGISTERED}class Gain(keras.layers.Layer):\n    def __init__(self, start=1.0, **kwargs): pass\n"


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    return composition.compose(overrides, config_dir, import_own).config


def write(text: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEADER + text)
    return f"code={name}"


def imported(text: str) -> CodeFile:
    return import_own(read_code(write(text).removeprefix("code=")), "tensorflow")


@pytest.mark.parametrize("header", ["", "from __future__ import annotations\n"])
@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ((), {"rate": 1.0, "names": None, "kind_of": "a"}),
        (("model.rate=2", "model.names=[x,y]", "model.kind_of=b"), {"rate": 2.0, "names": ["x", "y"], "kind_of": "b"}),
    ],
)
def test_the_arguments_of_a_function_are_keys(header: str, typed: tuple[str, ...], values: dict[str, object]) -> None:
    Path("mine.py").write_text(header + HEADER + MODEL)
    config = compose(["code=mine.py", "model=own", "model.width=3", *typed])
    assert vars(config.model) == {"kind": "own", "width": 3, **values}
    assert config.preprocessing.kind == "image"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=own", "model.width: is not set; it must be a whole number"),
        ("model=own model.width=1.5", "model.width=1.5: must be a whole number"),
        ("model=own model.width=1 model.rte=1", "model.rte=1: model (own) has no such key; did you mean model.rate=1?"),
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
        ("backend=torch", "backend=torch: must be one of tensorflow, jax"),
    ],
)
def test_what_is_typed_wrong_is_answered(typed: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compose([write(MODEL + LAYER + "class Other(keras.losses.Loss): pass\n"), *typed.split()])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "mine.py, line 4: invalid syntax: def f(:"),
        ("x = 1\n", "code=mine.py: registers nothing"),
        ("\n\nx = 1 / len(())\n", "mine.py, line 6: ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['a']\nx = f()\n", "mine.py, line 5: KeyError: 'a'"),
        ("import beside_it\n", "mine.py, line 4: ModuleNotFoundError: No module named 'beside_it'"),
        ("raise SystemExit(3)\n", "code=mine.py: ends the program (SystemExit: 3)"),
        (f"{REGISTERED}class Dense(keras.layers.Layer): pass\n", "class Dense: has a name that Keras or this project"),
        (
            f"{REGISTERED}class Adam(keras.layers.Layer): pass\n",
            "class Adam: has a name that Keras or this project",
        ),
        (f"{REGISTERED}class Net(keras.Model): pass\n", "class Net: derives from Model; what configuration can name"),
        (f"{REGISTERED}class Watch(keras.callbacks.Callback): pass\n", "line 4: ValueError: Cannot register a class"),
        (LAYER.replace("()\n", "\n", 1), "above a function, or @keras.saving.register_keras_serializable() above a"),
        ("@mnist_exp.model()\ndef f(x): ...\n", "mine.py, line 4: TypeError: model() missing 1 required"),
        ("@mnist_exp.model\ndef f(x, *, defaults=1): ...\n", "defaults: cannot be a key of a model"),
        ("@mnist_exp.model\ndef f(x, size=b'1'): ...\n", "its default b'1' must be a number"),
        ("@mnist_exp.model\ndef f(x, size=[10**5000]): ...\n", "its default [0x"),
        ("@mnist_exp.model\ndef f(x, path='${tracking.uri}'): ...\n", "a text without ${"),
        ("@mnist_exp.model\ndef f(x, size=1, /): ...\n", "none can stand before a /"),
        ("@mnist_exp.model\ndef f(x, size: 'not a type'): ...\n", "model f: its types cannot be read"),
        ("@mnist_exp.model\ndef cnn(x): return x\n", "model=cnn is a choice of this project"),
        ("@mnist_exp.dataset\ndef f(limit=3): ...\n", "argument limit: cannot be a key of a dataset"),
        ("@mnist_exp.model\ndef f(): ...\n", "its first argument must be the tensor"),
        ("@mnist_exp.model\ndef f(x, *sizes): ...\n", "it can have no *args"),
        ("@mnist_exp.model\ndef f(x, size: bytes): ...\n", "its type bytes must be made of int, float"),
        ("@mnist_exp.model\ndef f(x, size=sum): ...\n", "its default <built-in function sum> must be a number"),
    ],
)
def test_a_file_that_fails_or_registers_what_cannot_be_named_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        compose([write(text)])
    assert "\n" not in str(raised.value)
    assert compose([write(LAYER), "model=layers", "model.layers=[Flatten,Gain]"]).model.kind == "layers"


def test_names_come_from_a_loop_a_conditional_and_a_module_beside_the_file() -> None:
    beside = f"{REGISTERED}class Beside(keras.layers.Layer):\n    def __init__(self, size={{}}, **kwargs): pass\n"
    text = f"""
import beside
from of_two import nets, Second

for size in (3, 5):
    @keras.saving.register_keras_serializable(name=f"Blur{{size}}")
    class Blur(keras.layers.Layer):
        def __init__(self, size=size, **kwargs): super().__init__(**kwargs)
        def call(self, x): return x

if keras.backend.backend() == "tensorflow":
{MODEL.replace(chr(10), chr(10) + "    ")}
for name in ("narrow", "wide"):
    def net(images, width=len(name)): return images
    net.__name__ = name
    mnist_exp.model(net)
"""
    write(beside.format(7), "beside.py")
    write(f"nets = {{}}\n{REGISTERED}class Second(keras.layers.ReLU): pass\nclass Third: pass\n", "of_two.py")
    names = imported(text).names
    defaults = {name: own.signature.get("size") for name, own in names.classes["layers"].items()}
    assert defaults == {"Blur3": 3, "Blur5": 5, "Beside": 7, "Second": None}
    assert {name: [*keys] for name, keys in names.functions["model"].items()} == {
        "own": ["width", "rate", "names", "kind_of"],
        "narrow": ["width"],
        "wide": ["width"],
    }
    write(beside.format(1234), "beside.py")  # as is seen once the file itself is edited
    assert imported(text + "# edited\n").names.classes["layers"]["Beside"].signature["size"] == 1234
    config = compose(["code=mine.py", "model=layers", "model.layers=[Flatten,Blur3,Blur5,Second]"])
    layers = build(config.model, (28, 28, 1), 10).layers[2:5]  # which is checked to be what can be saved and loaded
    assert [(type(layer).__name__, type(layer).__module__) for layer in layers] == [
        (name, read_code("mine.py").module) for name in ("Blur", "Blur", "Second")
    ]


def test_a_name_that_a_module_beside_the_file_no_longer_has_is_gone() -> None:
    for number, name in enumerate(("first", "second")):
        write(f"import mnist_exp\n@mnist_exp.model\ndef {name}(images): return images + {number}\n", "beside.py")
        assert imported(f"import beside  # {number}\n").names.functions["model"] == {name: {}}


def test_what_is_installed_comes_before_what_lies_beside_the_file() -> None:
    Path("colorsys.py").write_text("raise SystemExit('was imported')")
    assert imported(f"import colorsys\n{LAYER}").names.classes["layers"]


def test_the_names_of_an_earlier_text_are_forgotten() -> None:
    imported(LAYER + MODEL)
    names = imported(LAYER.replace("Gain", "Loss_")).names
    assert [*names.classes["layers"]] == ["Loss_"]
    assert names.functions == {}


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        ("Layer", "layers"),
        ("Loss", "losses"),
        ("metrics.MeanMetricWrapper", "metrics"),
        ("callbacks.EarlyStopping", "callbacks"),
        ("regularizers.L2", "regularizers"),
        ("constraints.MaxNorm", "constraints"),
        ("initializers.Zeros", "initializers"),
        ("optimizers.SGD", "optimizers"),
        ("optimizers.schedules.ExponentialDecay", "schedules"),
    ],
)
def test_a_class_is_named_as_what_it_derives_from(base: str, kind: str) -> None:
    getting = "\n    def get_config(self): return {}\n"
    assert [*imported(f"{REGISTERED}class Own(keras.{base}):{getting}").names.classes] == [kind]


def test_arguments_are_handed_on_to_the_bases_of_a_class() -> None:
    text = f"""
class Middle(keras.layers.Dense):
    def __init__(self, gain=1.0, **kwargs): super().__init__(units=3, **kwargs)

{REGISTERED}class Open(Middle):
    def __init__(self, *, first, **kwargs): super().__init__(**kwargs)

{REGISTERED}class Closed(Middle):
    def __init__(self, first=(1, 2), function=len): super().__init__()

{REGISTERED}class Inherits(keras.layers.Dropout): pass
"""
    classes = imported(text).names.classes["layers"]
    assert {"first", "gain", "units", "use_bias", "name", "trainable"} <= classes["Open"].signature.keys()
    assert classes["Open"].signature["units"] is None  # which an __init__ may give it
    assert classes["Closed"].signature == {"first": (1, 2), "function": None}
    write(text)
    for layer, said in (("Open", "Open needs first"), ("Inherits", "Inherits needs rate")):
        with pytest.raises(InputError, match=said):
            compose(["code=mine.py", "model=layers", f"model.layers=[{layer}]"])


def test_a_callback_acts_on_batches_where_its_own_classes_do() -> None:
    text = f"""
class Kept:
    def get_config(self): return {{}}

class Mixin(Kept):
    def on_train_batch_end(self, batch): pass

{REGISTERED}class Often(Mixin, keras.callbacks.Callback): pass
{REGISTERED}class Seldom(Kept, keras.callbacks.ModelCheckpoint): pass
"""
    own = imported(text).names.classes["callbacks"]
    assert {name: one.on_batches for name, one in own.items()} == {"Often": True, "Seldom": False}


def test_a_process_knows_the_names_without_the_file() -> None:
    config = compose([write(MODEL + LAYER), "model=own", "model.width=3"])
    assert config.code is not None
    sent = pickle.loads(pickle.dumps(config.code))
    Path("mine.py").unlink()
    assert sent.names == config.code.names
    assert check({**recorded_config(config), "code": "mine.py"}, sent) == config


def test_a_file_may_begin_with_the_mark_of_a_text_in_utf_8() -> None:
    Path("mine.py").write_text(HEADER + MODEL, encoding="utf-8-sig")
    assert compose(["code=mine.py", "model=own", "model.width=3"]).model.kind == "own"


def test_a_file_is_forgotten_by_what_is_composed_after_it() -> None:
    compose([write(LAYER), "model=layers", "model.layers=[Flatten,Gain]"])
    with pytest.raises(InputError, match="Gain: not one of the layers"):
        compose(["model=layers", "model.layers=[Flatten,Gain]"])


def test_the_text_of_a_file_is_part_of_what_makes_runs_the_same_and_its_name_is_not() -> None:
    def signature(*typed: str) -> str:
        return experiment_signature(compose(typed), "data")

    first = signature(write(LAYER))
    assert signature(write(LAYER, "copy.py")) == first
    assert len({first, signature(write(LAYER + "\n# edited\n")), signature()}) == 3


def preset(group: str, text: str) -> Path:
    folder = Path("mine").absolute()
    (folder / group).mkdir(parents=True)
    (folder / group / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    return folder


def test_a_preset_beside_it_chooses_what_the_file_has() -> None:
    folder = preset("experiment", "defaults: [{override /model: own}]\nmodel: {width: 5}\n")
    assert vars(compose([write(MODEL), "experiment=theirs"], folder).model)["width"] == 5
    with pytest.raises(InputError, match="model=own: no such choice"):
        compose(["experiment=theirs"], folder)


@pytest.mark.parametrize(
    ("typed", "recorded", "backend"),
    [
        ((), None, "tensorflow"),
        (("backend=jax",), None, "jax"),
        (("experiment=convnet", "+backend='jax'"), None, "jax"),
        (("sweep=stacked",), None, "jax"),
        (("sweep=stacked", "backend=tensorflow"), "jax", "tensorflow"),
        ((), "jax", "jax"),
        (("backend=torch",), None, "tensorflow"),  # as is refused later
    ],
)
def test_the_backend_is_known_before_the_file_is_imported(
    typed: tuple[str, ...], recorded: str | None, backend: str
) -> None:
    asked: list[tuple[str, bool]] = []

    def spy(code: CodeFile, backend: str, in_sweep: bool) -> CodeFile:
        asked.append((backend, in_sweep))
        return code

    with composition.user_choices(None, [write(LAYER), *typed], spy, in_sweep=True, recorded=recorded):
        assert asked == [(backend, True)]


def test_a_backend_of_a_preset_from_elsewhere_is_typed_as_well() -> None:
    folder = preset("experiment", "backend: jax\n")
    with pytest.raises(InputError, match=r"backend=jax: a preset says so, .* tensorflow; type backend=jax"):
        compose([write(LAYER), "experiment=theirs"], folder)


def test_a_recorded_configuration_has_no_code_unless_it_is_typed() -> None:
    typed = write(MODEL)
    recorded = yaml.safe_load(yaml.safe_dump(recorded_config(compose([typed, "model=own", "model.width=3"]))))
    assert recorded["code"] == "mine.py"
    with pytest.raises(InputError, match=r"model\.kind=own: must be one of"):
        composition.recompose(recorded, [])
    assert vars(composition.recompose(recorded, [typed], import_own).config.model)["width"] == 3
