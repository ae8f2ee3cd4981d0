"""What a folder of presets can do that a stranger sent, and what it cannot; on whichever Hydra is installed."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from mnist_exp.config import CONF
from mnist_exp.config.composition import compose, offer_user_choices
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.plan import plan

from ..conftest import QUICK, command, in_process, installed

CALL = "{_target_: subprocess.call, args: [touch, HACKED]}"
LOGGING = "{version: 1, handlers: {x: {(): subprocess.call, args: [touch, HACKED]}}, root: {handlers: [x]}}"
EVIL = "experiment/evil.yaml"
CALLBACK = f"hydra: {{callbacks: {{x: {CALL}}}}}"

# A key that experiment/evil.yaml sets, or sweep/evil.yaml, and its value; the message begins with the key.
KEYS = {
    "experiment": [
        ("hydra.callbacks.x", CALL),
        ("hydra.job_logging", LOGGING),
        ("hydra.overrides.hydra", "['+hydra.callbacks.x._target_=os.abort']"),
        ("hydra.run.dir", "/tmp/elsewhere"),
        ("hydra.searchpath", "['file:///tmp']"),
        ("hydra.sweeper.n_trials", "1"),
        ("tracking.uri", "'http://127.0.0.1:9'"),
        ("tracking.register", "digits"),
        ("tracking.note", "'${oc.env:HOME}'"),
        ("tracking.tags.a", "['${oc.env:HOME}']"),
        ("training.callbacks", "{'${oc.env:HOME}': {}}"),
        ("model.hidden", "'${oc.decode:${oc.env:HOME}}'"),
    ],
    "sweep": [
        ("hydra.sweeper.sampler", CALL),
        ("hydra.sweeper.sampler._target_", "os.abort"),
        ("hydra.sweeper.n_trials", f"[{CALL}]"),
        ("hydra.sweeper.storage", "'sqlite:///../elsewhere.db'"),
        ("hydra.sweeper.params", f"{{+hydra.job_logging: '{LOGGING}'}}"),
        ("hydra.sweeper.params", "{++hydra/launcher: joblib}"),
        ("hydra.sweeper.params", "{tracking.uri: 'http://127.0.0.1:9'}"),
        ("hydra.sweeper.params", "{tracking.note: '${oc.env:HOME},b'}"),
        ("hydra.sweeper.params", "{tracking.note: '$\\{oc.env\\:HOME\\}', seed: '0,1'}"),
        ("hydra.sweeper.params", "{tracking: {note: a}}"),
        ("hydra.sweeper.params", "{model.layers: '[{Dense:{dtype: a/../../b}}],[Flatten]'}"),
        ("hydra.sweeper.params", "{'model@hydra.job': 'cnn,mlp'}"),
        ("hydra.sweeper.params", "{experiment: '../other/evil,baseline'}"),
    ],
}

# The files of a folder, of which the first is chosen, and the message.
FILES = {
    "logging by choice": ({EVIL: "defaults: [override /hydra/job_logging: colorlog]"}, "defaults: "),
    "server by choice": ({EVIL: "defaults: [override /tracking: server]"}, "defaults: "),
    "second choice": (
        {"model/evil.yaml": "defaults: ['/model@_global_.model': evil]"},
        "is chosen already; write override /model@_global_.model: evil",
    ),
    "place": ({"model/evil.yaml": "# @package hydra.job\nenv_set: {PATH: elsewhere}"}, "must be: # @package model"),
    "launcher of Hydra": ({"hydra/launcher/basic.yaml": "_target_: os.abort"}, "may not have this"),
    "store": ({"tracking/evil.yaml": "{kind: mlflow, uri: 'http://127.0.0.1:9'}"}, "may not have this"),
    "dotted key": ({EVIL: "hydra.job.chdir: true"}, "hydra.job.chdir="),
    "python": ({EVIL: "seed: !!python/object/apply:os.system [touch HACKED]"}, "YAML tag"),
    "bytes": ({EVIL: "seed: !!binary aGFja2Vk"}, "uses a YAML tag (!!binary)"),
    "billion laughs": ({EVIL: "seed: [&a [x, x], &b [*a, *a], [*b, *b]]"}, "alias"),
    "endless": ({EVIL: f"seed: {'[' * 90_000}"}, "line 2 has more than 5,000 values"),
    "deep": ({EVIL: f"seed: {'[' * 900}{']' * 900}"}, "cannot be read (maximum recursion depth exceeded"),
    "long": ({EVIL: f"seed: [{'1,' * 5_000}]"}, "has more than 5,000 values"),
    "large": ({EVIL: "#" * 100_000}, "must have at most 100000"),
    "digits": ({EVIL: f"seed: -0x{'F' * 5000}"}, "with numbers of at most 300 digits"),
    "circle": (
        {EVIL: "defaults: [a]", "experiment/a.yaml": "defaults: [evil, _self_]"},
        "includes itself",
    ),
    "doublings": (
        {EVIL: "defaults: [e0]"} | {f"experiment/e{n}.yaml": f"defaults: [e{n + 1}, e{n + 1}]" for n in range(24)},
        "or is too large with what it includes; together at most 100 presets and 100 kB",
    ),
    "bytes together": (
        {EVIL: "defaults: [a, b]"} | {f"experiment/{name}.yaml": f"seed: {'x' * 60_000}" for name in "ab"},
        "is too large",
    ),
    "name beside": ({EVIL: "", "model/mlp.yaml": ""}, "model=mlp is a choice of this project; give the preset another"),
}


def nested(key: str, value: str) -> str:
    return "".join(f"{{{part}: " for part in key.split(".")) + value + "}" * (key.count(".") + 1)


HOSTILE = [pytest.param(*given, id=name) for name, given in FILES.items()] + [
    pytest.param({f"{group}/evil.yaml": nested(key, value)}, f"{key}", id=f"{group} {key}={value[:40]}")
    for group, keys in KEYS.items()
    for key, value in keys
]


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write a folder of presets; those of experiments and sweeps with the first line that they need."""
    for name, text in files.items():
        path = folder / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "# @package _global_\n" if name.startswith(("experiment", "sweep")) else ""
        path.write_text(header + text + "\n")
    return folder / "theirs"


def choice(files: dict[str, str]) -> str:
    name = next(iter(files))
    return "experiment=evil" if name.startswith(("hydra", "tracking")) else name[: -len(".yaml")].replace("/", "=")


def planned(overrides: list[str], config_dir: Path | None) -> tuple[Sweep, Kind]:
    with offer_user_choices(config_dir, overrides, in_sweep=True) as code:
        return plan(compose_values(overrides), overrides, code, JobLoader.of_conf())


@pytest.mark.parametrize(("files", "said"), HOSTILE)
@pytest.mark.fast
def test_hostile_preset_is_refused_before_hydra_has_it(tmp_path: Path, files: dict[str, str], said: str) -> None:
    theirs = write(tmp_path, files)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError) as caught, offer_user_choices(theirs, [choice(files)], in_sweep=True):
        pytest.fail("Hydra has it")
    assert re.match(rf"{theirs}/\S+: ", str(caught.value))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "other"}


@pytest.mark.parametrize("name", ["link", "linked folder", "device", "pipe"])
@pytest.mark.fast
def test_preset_is_read_from_a_file_of_its_folder_only(tmp_path: Path, name: str) -> None:
    secret = write(tmp_path / "outside", {"experiment/evil.yaml": "tracking: {note: secret}"}) / "experiment/evil.yaml"
    path = tmp_path / "theirs" / "experiment" / "evil.yaml"
    path.parent.parent.mkdir()
    if name == "linked folder":
        path.parent.symlink_to(secret.parent)
    else:
        path.parent.mkdir()
    if name == "pipe":
        os.mkfifo(path)
    elif name != "linked folder":
        path.symlink_to(secret if name == "link" else "/dev/zero")
    with pytest.raises(InputError, match=r"evil\.yaml: (must be a file|is a link|.* is a link)") as caught:
        compose(["experiment=evil"], tmp_path / "theirs")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("mnist_exp", ("experiment=evil",)),
        ("mnist_exp", ("--help", "experiment=evil")),
        ("mnist_exp", ("-m", "experiment=evil,best")),
        ("mnist_exp", ("-m", "experiment=glob(e*)")),
        ("mnist_exp", ("-m", "sweep=chooses")),
        ("mnist_exp", ("experiment=chooses",)),
        ("mnist_exp.show", ("experiment=evil",)),
    ],
)
@pytest.mark.fast
def test_every_command_refuses_a_hostile_choice(tmp_path: Path, module: str, arguments: tuple[str, ...]) -> None:
    sweeps = "hydra: {sweeper: {params: {experiment: 'evil,best'}}}"
    chooses = {"sweep/chooses.yaml": sweeps, "experiment/chooses.yaml": "defaults: [evil]"}
    theirs = write(tmp_path, {EVIL: CALLBACK, **chooses})
    done = in_process("--config-dir", str(theirs), *arguments, cwd=tmp_path, module=module)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"{theirs}/{EVIL}: hydra.callbacks.x._target_=subprocess.call")
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


@pytest.mark.parametrize("arguments", [("--help",), ("--cfg", "all"), ("-sc", "query=bash")])
@pytest.mark.fast
def test_unchosen_preset_is_listed_and_not_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    theirs = write(tmp_path, {EVIL: CALLBACK, "model/evil.yaml": "[", "experiment/a=b.yaml": "["})
    done = in_process("--config-dir", str(theirs), *arguments, cwd=tmp_path, COMP_LINE="mnist_exp experiment=")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("evil" in done.stdout) == (arguments[0] in ("--help", "-sc"))
    assert "a=b" not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


# What a preset says, and the message that names its file, which is a.yaml.
WRONG = {
    "unknown key": ({"experiment/a": "model: {hiden: 4}"}, "model.hiden=4: model (mlp) has no such key"),
    "type": ({"experiment/a": "dataset: {validation: {a: 1}}"}, "dataset.validation={a: 1}: must be test, or"),
    "map for a list": (
        {"experiment/a": "training: {metrics: {a: 1}}"},
        "ConfigTypeError raised while composing config: Cannot merge",
    ),
    "choice": ({"experiment/a": "defaults: [override /model: nope]"}, "model=nope: no such choice"),
    "name": ({"experiment/a": "defaults: [nope]"}, "Could not load 'experiment/nope'"),
    "missing kind": ({"model/a": "hidden: 3"}, "model.kind=null: must be one of"),
    "missing key": ({"model/a": "kind: mlp"}, "model.hidden: is missing"),
    "included": (
        {"model/b": "defaults: [a]\nhidden: 3", "model/a": "defaults: [mlp]\nhiden: 3"},
        "model.hiden=3: model (mlp) has no such key",
    ),
    "last of two": (
        {"model/a": "defaults: [b]\nhidden: x", "model/b": "defaults: [mlp]\nhidden: 3"},
        "model.hidden=x: must be a whole number",
    ),
    "type in a sweeper": (
        {"sweep/a": "hydra: {sweeper: {kind: race, max_jobs: x}}"},
        "hydra.sweeper.max_jobs=x: must be a whole number",
    ),
    "varied": ({"sweep/a": "hydra: {sweeper: {params: {model.hidden: '2,x'}}}"}, "model.hidden=x: must be a whole"),
    "pruner": ({"sweep/a": "prune: {patience: 4}"}, "prune.kind=null: must be one of"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.fast
def test_message_about_a_preset_begins_with_its_path(tmp_path: Path, what: str) -> None:
    files, said = WRONG[what]
    folder = write(tmp_path, {f"{name}.yaml": text for name, text in files.items()})
    group, _, name = next(iter(files)).partition("/")
    with pytest.raises(InputError) as caught:
        planned([f"{group}={name}", "seed=0"], folder) if group == "sweep" else compose([f"{group}={name}"], folder)
    assert str(caught.value).startswith(f"{folder}/{group}/a.yaml: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("typed", ["model.hidden=x", "seed=x", "model={hidden:x}", "optimizer.lr=1"])
@pytest.mark.fast
def test_message_about_typed_override_names_no_preset(tmp_path: Path, typed: str) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": "model: {hidden: 4, activation: relu}\nseed: 3"})
    with pytest.raises(InputError, match=rf"^{typed.partition('=')[0]}[.=:]"):
        compose(["experiment=a", typed], folder)


@pytest.mark.parametrize("text", ["", "# later", "defaults: [baseline]"])
@pytest.mark.fast
def test_preset_may_be_empty(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": text, "model/a.yaml": ""})
    (folder / "experiment" / "b.yaml").write_text("# to be written\n")
    assert compose(["experiment=a"], folder).config.model == compose(["experiment=b"], folder).config.model


@pytest.mark.fast
def test_preset_is_sent_to_job_processes_as_it_was_read(tmp_path: Path) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": "seed: 3"})
    with offer_user_choices(folder, ["experiment=a"]):
        shutil.rmtree(folder)
        sent = pickle.dumps(ConfigStore.instance())
    assert pickle.loads(sent).load("experiment/a.yaml").node == {"seed": 3}


@pytest.mark.fast
def test_preset_does_not_lead_the_output_elsewhere(tmp_path: Path) -> None:
    theirs = write(tmp_path, {EVIL: "tracking: {experiment: ../../../elsewhere}"})
    with pytest.raises(InputError, match="elsewhere through another value; type the folder itself"):
        compose(["experiment=evil", "hydra.run.dir='${tracking.experiment}'"], theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-path", "theirs"), "--config-path: would let Hydra read settings that can run code"),
        (("--config-name", "evil"), "--config-name: would let Hydra"),
        (("--config-di", "theirs"), "--config-dir: would let Hydra"),
        (("hydra.searchpath=[file://theirs]",), "hydra.searchpath: would let Hydra"),
        (("hydra/searchpath=[file://theirs]",), "hydra.searchpath: would let Hydra"),
        (("--config-dir",), "--config-dir: needs a folder"),
        (("--config-dir", "nowhere"), "--config-dir nowhere: must be an existing folder"),
    ],
)
@pytest.mark.fast
def test_hydra_writes_only_to_its_folder(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write(tmp_path, {"evil.yaml": CALLBACK, "hydra/launcher/basic.yaml": "_target_: os.abort"})
    done = in_process(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
    assert "--config-dir DIR" in done.stderr or "--config-dir nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


@pytest.mark.fast
def test_preset_sets_keys_of_an_experiment(tmp_path: Path) -> None:
    narrow = """
defaults:
  - override /model: tiny
  - override /optimizer: sgd
  - _self_
seed: 3
dataset: {limit: 1000, validation: 100}
optimizer: {learning_rate: 1e-2, momentum: 0.9}
training: {callbacks: {EarlyStopping: {patience: 5}}}
tracking: {experiment: mine, run_name: narrow, tags: {team: vision, level: 3}, note: about, keep: all}
"""
    narrower = "defaults: [narrow, _self_]\nmodel: {hidden: 2}"
    files = {"experiment/narrow.yaml": narrow, "experiment/narrower.yaml": narrower, "data/notes.yaml": "hydra: {}"}
    folder = write(tmp_path, files | {"model/tiny.yaml": "defaults: [mlp, _self_]\nhidden: 4"})
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    same = """
model.hidden=4 model.activation=relu optimizer=sgd optimizer.learning_rate=1e-2 optimizer.momentum=0.9 seed=3
dataset.limit=1000 dataset.validation=100 training.callbacks={EarlyStopping:{patience:5}} tracking.experiment=mine
tracking.run_name=narrow tracking.tags={team:vision,level:3} tracking.note=about tracking.keep=all
"""
    typed = compose(same.split())
    assert compose(["experiment=narrow", "model.activation=relu"], linked).config == typed.config
    narrower_model = compose(["experiment=narrower"], folder).config.model
    assert narrower_model == compose(["experiment=narrow", "model.hidden=2"], folder).config.model
    with pytest.raises(InputError, match="experiment=narow: no such choice; did you mean experiment=narrow"):
        compose(["experiment=narow"], folder)
    with pytest.raises(InputError, match="experiment=narrow: no such choice"):  # nothing stays in the process
        compose(["experiment=narrow"])


@pytest.mark.parametrize(
    "typed",
    [
        ("dataset=npz", f"dataset.path={CONF}"),
        ("model=layers", "preprocessing=image"),
        ("optimizer=sgd", "training=default"),
        ("sweep=stacked",),
        ("sweep=race", "model.hidden=2,32"),
        ("sweep=optuna",),
    ],
)
def test_copy_of_any_choice_in_conf_works_as_a_preset(tmp_path: Path, typed: tuple[str, ...]) -> None:
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name not in ("hydra", "prune", "tracking"):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / path.parent.name / f"my_{path.name}")
    copied = [text if "." in text else text.replace("=", "=my_") for text in typed]
    if "sweep" not in typed[0]:
        assert compose(copied, tmp_path).config == compose(typed).config
        return
    if typed[0] == "sweep=optuna" and not installed("optuna"):
        pytest.skip("needs pip install -e '.[optuna]'")
    (ours, kind), (theirs, their_kind) = planned([*typed], None), planned(copied, tmp_path)
    assert replace(theirs, folder=ours.folder, overrides=ours.overrides) == ours
    theirs_and_ours = [
        vars(sweep) | dict.fromkeys(("overrides", "combinations", "shared")) for sweep in (their_kind, kind)
    ]
    assert theirs_and_ours[0] == theirs_and_ours[1]  # overrides name the preset, and are left out


@pytest.mark.parametrize("varied", ["tiny,wide", "choice(tiny,wide)", "glob(*,exclude=[broken,c*,l*,m*])"])
@pytest.mark.fast
def test_sweep_chooses_among_presets(tmp_path: Path, varied: str) -> None:
    files = {f"model/{name}.yaml": f"defaults: [mlp]\nhidden: {size}" for name, size in (("tiny", 2), ("wide", 99))}
    preset = {"sweep/a.yaml": f"hydra: {{sweeper: {{params: {{model: '{varied}', seed: '0,1'}}}}}}"}
    folder = write(tmp_path, files | {"model/broken.yaml": "["} | (preset if "=" not in varied else {}))
    overrides = ["sweep=a"] if "=" not in varied and "glob" not in varied else [f"model={varied}", "seed=0,1"]
    planned_sweep, _ = planned(overrides, folder)
    assert {2, 99} <= {config.model.hidden for config in planned_sweep.configs if hasattr(config.model, "hidden")}


SPY = """
from pathlib import Path
Path({hacked!r}).touch()
raise SystemExit("a module of the current folder was imported")
"""


@pytest.mark.slow
def test_no_module_of_the_current_folder_is_imported(tmp_path: Path) -> None:
    names = ("numpy", "keras", "tensorflow", "mlflow", "hydra", "omegaconf", "yaml", "typing", "argparse", "matplotlib")
    for name in names:
        (tmp_path / f"{name}.py").write_text(SPY.format(hacked=str(tmp_path / "HACKED")))
    (tmp_path / "hydra_plugins" / "evil").mkdir(parents=True)
    for path in (tmp_path / "hydra_plugins" / "__init__.py", tmp_path / "hydra_plugins" / "evil" / "__init__.py"):
        path.write_text(SPY.format(hacked=str(tmp_path / "HACKED")))
    done = command("-m", *QUICK, "dataset.limit=200", "seed=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    for module in ("mnist_exp", "mnist_exp.compare"):
        joined = [sys.executable, f"-Bm{module}", "--help"]
        assert subprocess.run(joined, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 0
    assert not (tmp_path / "HACKED").exists()


def test_program_that_imports_the_package_keeps_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import mnist_exp, mine\nprint(mine.value)\n")
    (tmp_path / "mine.py").write_text("value = 'from my own folder'\n")
    assert command(cwd=tmp_path, module="program").stdout == "from my own folder\n"
