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
from hydra.types import RunMode
from omegaconf import open_dict

from mnist_exp import run, sweep
from mnist_exp.config.composition import check_composed, compose, compose_values, user_choices
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.preset_folder import PresetFolder
from mnist_exp.config.presets import CONF
from mnist_exp.errors import InputError
from mnist_exp.experiment import Sweep
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.plan import plan
from mnist_exp.sweeps.race import Race

from ..conftest import QUICK, command, in_process, runs_in

CALL = "{_target_: subprocess.call, args: [touch, HACKED]}"
LOGGING = "{version: 1, handlers: {x: {(): subprocess.call, args: [touch, HACKED]}}, root: {handlers: [x]}}"
OVERRIDES = "['+hydra.callbacks.x._target_=os.abort']"

# By what it tries: what the message must say, and the files of a stranger's folder.
HOSTILE: dict[str, tuple[str, dict[str, str]]] = {
    "callback": (
        "hydra.callbacks.x._target_=subprocess.call",
        {"experiment/evil.yaml": f"hydra: {{callbacks: {{x: {CALL}}}}}"},
    ),
    "launcher": ("hydra.launcher._target_=", {"experiment/evil.yaml": f"hydra: {{launcher: {CALL}}}"}),
    "sweeper": ("hydra.sweeper._target_=", {"experiment/evil.yaml": f"hydra: {{sweeper: {CALL}}}"}),
    "logging": ("hydra.job_logging.", {"experiment/evil.yaml": f"hydra: {{job_logging: {LOGGING}}}"}),
    "overrides of hydra": (
        "hydra.overrides.hydra=",
        {"experiment/evil.yaml": f"hydra: {{overrides: {{hydra: {OVERRIDES}}}}}"},
    ),
    "overrides of hydra in a sweep": (
        "hydra.overrides.hydra=",
        {"sweep/evil.yaml": f"hydra: {{overrides: {{hydra: {OVERRIDES}}}}}"},
    ),
    "overrides of the task": (
        "hydra.overrides.task=",
        {"sweep/evil.yaml": "hydra: {overrides: {task: [tracking.uri=http://127.0.0.1:9]}}"},
    ),
    "environment for jobs": (
        "hydra.job.env_set.PATH=",
        {"experiment/evil.yaml": "hydra: {job: {env_set: {PATH: elsewhere}}}"},
    ),
    "environment copied": ("hydra.job.env_copy=", {"experiment/evil.yaml": "hydra: {job: {env_copy: [HOME]}}"}),
    "mode": ("hydra.mode=", {"experiment/evil.yaml": "hydra: {mode: MULTIRUN}"}),
    "output": ("hydra.output_subdir=", {"experiment/evil.yaml": "hydra: {output_subdir: ../../..}"}),
    "run folder": ("hydra.run.dir=", {"experiment/evil.yaml": "hydra: {run: {dir: /tmp/elsewhere}}"}),
    "sweep folder": ("hydra.sweep.dir=", {"sweep/evil.yaml": "hydra: {sweep: {dir: /tmp/elsewhere}}"}),
    "search path": ("hydra.searchpath=", {"experiment/evil.yaml": "hydra: {searchpath: ['file:///tmp']}"}),
    "help text": ("hydra.help.template=", {"experiment/evil.yaml": "hydra: {help: {template: '${oc.env:HOME}'}}"}),
    "swept logging": (
        "hydra.sweeper.params.+hydra.job_logging=",
        {"sweep/evil.yaml": f"hydra: {{sweeper: {{params: {{+hydra.job_logging: '{LOGGING}'}}}}}}"},
    ),
    "swept environment": (
        "hydra.sweeper.params.hydra.job.env_set=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {hydra.job.env_set: '{PATH: elsewhere}'}}}"},
    ),
    "swept launcher": (
        "hydra.sweeper.params.++hydra/launcher=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {++hydra/launcher: joblib}}}"},
    ),
    "swept store": (
        "hydra.sweeper.params.tracking.uri=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {tracking.uri: 'http://127.0.0.1:9'}}}"},
    ),
    "swept tracking": (
        "hydra.sweeper.params.tracking=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {tracking: server}}}"},
    ),
    "swept variable": (
        "hydra.sweeper.params.tracking.note=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {tracking.note: '${oc.env:HOME},b'}}}"},
    ),
    "swept folder": (
        "hydra.sweeper.params.model.layers=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {model.layers: '[{Dense:{dtype: a/../../b}}],[Flatten]'}}}"},
    ),
    "swept place": (
        "hydra.sweeper.params.model@hydra.job=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {'model@hydra.job': 'cnn,mlp'}}}"},
    ),
    "batch size": ("hydra.sweeper.max_batch_size=", {"sweep/evil.yaml": "hydra: {sweeper: {max_batch_size: 1}}"}),
    "sampler": ("hydra.sweeper.sampler._target_=", {"sweep/evil.yaml": f"hydra: {{sweeper: {{sampler: {CALL}}}}}"}),
    "sampler's function": (
        "hydra.sweeper.sampler._target_=",
        {"sweep/evil.yaml": "hydra: {sweeper: {sampler: {_target_: os.abort}}}"},
    ),
    "search space": (
        "hydra.sweeper.custom_search_space=",
        {"sweep/evil.yaml": "hydra: {sweeper: {custom_search_space: os.abort}}"},
    ),
    "storage elsewhere": (
        "hydra.sweeper.storage=",
        {"sweep/evil.yaml": "hydra: {sweeper: {storage: 'sqlite:////tmp/elsewhere.db'}}"},
    ),
    "storage above": (
        "hydra.sweeper.storage=",
        {"sweep/evil.yaml": "hydra: {sweeper: {storage: 'sqlite:///../elsewhere.db'}}"},
    ),
    "storage on a server": (
        "hydra.sweeper.storage=",
        {"sweep/evil.yaml": "hydra: {sweeper: {storage: 'mysql://127.0.0.1/db'}}"},
    ),
    "sweeper's settings in an experiment": (
        "hydra.sweeper.n_trials=",
        {"experiment/evil.yaml": "hydra: {sweeper: {n_trials: 1}}"},
    ),
    "launcher by choice": ("defaults: ", {"sweep/evil.yaml": "defaults: [override /hydra/launcher: joblib]"}),
    "logging by choice": ("defaults: ", {"experiment/evil.yaml": "defaults: [override /hydra/job_logging: colorlog]"}),
    "environment in a choice": (
        "defaults: ",
        {"experiment/evil.yaml": "defaults: [override /model: '${oc.env:HOME}']"},
    ),
    "server by choice": ("defaults: ", {"experiment/evil.yaml": "defaults: [override /tracking: server]"}),
    "place by choice": (
        "defaults: ",
        {
            "experiment/evil.yaml": "defaults: ['override /model@hydra.job': evil]",
            "model/evil.yaml": "{kind: linear, env_set: {PATH: elsewhere}}",
        },
    ),
    "place by package": (
        "# @package hydra.job",
        {"model/evil.yaml": "# @package hydra.job\nenv_set: {PATH: elsewhere}"},
    ),
    "everywhere by package": (
        "# @package _global_",
        {"model/evil.yaml": "# @package _global_\nhydra: {job: {env_set: {PATH: elsewhere}}}"},
    ),
    "hydra's own groups": ("may not have this", {"hydra/launcher/basic.yaml": "_target_: os.abort"}),
    "hydra's own help": ("may not have this", {"hydra/help/mnist_exp.yaml": "template: ${oc.env:HOME}"}),
    "a store": ("may not have this", {"tracking/evil.yaml": "{kind: mlflow, uri: 'http://127.0.0.1:9'}"}),
    "address of a store": ("tracking.uri=", {"experiment/evil.yaml": "tracking: {uri: 'http://127.0.0.1:9'}"}),
    "kind of a store": ("tracking.kind=", {"experiment/evil.yaml": "tracking: {kind: none}"}),
    "name in the registry": ("tracking.register=", {"experiment/evil.yaml": "tracking: {register: digits}"}),
    "environment": ("tracking.note=", {"experiment/evil.yaml": "tracking: {note: '${oc.env:HOME}'}"}),
    "environment in a tag": ("tracking.tags.a=", {"experiment/evil.yaml": "tracking: {tags: {a: ['${oc.env:HOME}']}}"}),
    "environment in a key": (
        "training.callbacks.${oc.env:HOME}=",
        {"experiment/evil.yaml": "training: {callbacks: {'${oc.env:HOME}': {}}}"},
    ),
    "environment in a model": (
        "model.hidden=",
        {"model/evil.yaml": "{kind: mlp, hidden: '${oc.decode:${oc.env:HOME}}'}"},
    ),
    "dotted key": ("hydra.job.chdir=", {"experiment/evil.yaml": "hydra.job.chdir: true"}),
    "python": ("YAML tag", {"experiment/evil.yaml": "seed: !!python/object/apply:os.system [touch HACKED]"}),
    "paths": (
        "YAML tag",
        {"experiment/evil.yaml": "seed: !!python/object/apply:pathlib.PosixPath [/tmp]"},
    ),
    "bytes": ("uses a YAML tag (!!binary)", {"experiment/evil.yaml": "seed: !!binary aGFja2Vk"}),
    "billion laughs": ("alias", {"experiment/evil.yaml": "seed: [&a [x, x], &b [*a, *a], [*b, *b]]"}),
    "endless": ("line 2 has more than 50 levels", {"experiment/evil.yaml": f"seed: {'[' * 100_000}"}),
    "long": ("has more than 5,000 values", {"experiment/evil.yaml": f"seed: [{'1,' * 5_000}]"}),
    "large": ("must have at most 1000000", {"experiment/evil.yaml": "#" * 1_000_000}),
    "digits": (
        "line 2 has a number of more than 300 digits; a text needs quotes",
        {"experiment/evil.yaml": f"seed: -0x{'F' * 5000}"},
    ),
    "digits in a key": ("line 2 has a number of more", {"experiment/evil.yaml": f"model: {{? 1{':59' * 500} : 1}}"}),
    "tag": ("line 2 uses a YAML tag (!!bool)", {"experiment/evil.yaml": "seed: !!bool x"}),
    "itself": ("includes itself: evil includes evil", {"experiment/evil.yaml": "defaults: [evil]"}),
    "circle": (
        "includes itself: evil includes a includes evil",
        {"experiment/evil.yaml": "defaults: [a]", "experiment/a.yaml": "defaults: [evil, _self_]"},
    ),
    "doublings": (
        "is too large with what it includes; together at most 100 presets, 3,000 values and 100 kB",
        {"experiment/evil.yaml": "defaults: [e0]"}
        | {f"experiment/e{n}.yaml": f"defaults: [e{n + 1}, e{n + 1}]" for n in range(24)}
        | {"experiment/e24.yaml": "seed: 1"},
    ),
    "many": ("is too large", {"experiment/evil.yaml": f"defaults: [{'baseline, ' * 200}]"}),
    "chain": (
        "is too large",
        {"experiment/evil.yaml": "defaults: [e0]"}
        | {f"experiment/e{n}.yaml": f"defaults: [e{n + 1}]" for n in range(200)}
        | {"experiment/e200.yaml": "seed: 1"},
    ),
    "second choice": (
        "is chosen already; write override /model@_global_.model: evil",
        {"model/evil.yaml": "defaults: ['/model@_global_.model': evil]"},
    ),
    "name of our own": ("is a choice of this project", {"experiment/baseline.yaml": "seed: 1"}),
    "swept path": (
        "hydra.sweeper.params.experiment=",
        {
            "sweep/evil.yaml": "hydra: {sweeper: {params: {experiment: '../other/evil,baseline'}}}",
            "other/evil.yaml": CALL,
        },
    ),
    "swept path of a model": (
        "hydra.sweeper.params.model=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {model: '/../other/evil'}}}", "other/evil.yaml": CALL},
    ),
    "swept escape": (
        "hydra.sweeper.params.tracking.note=",
        {"sweep/evil.yaml": "hydra: {sweeper: {params: {tracking.note: '$\\{oc.env\\:HOME\\}', seed: '0,1'}}}"},
    ),
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """A folder with presets; those of experiments and sweeps with the first line that they need."""
    for name, text in files.items():
        path = folder / "stranger" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "# @package _global_\n" if name.startswith(("experiment", "sweep")) else ""
        path.write_text(header + text + "\n")
    return folder / "stranger"


def assert_refused(done: subprocess.CompletedProcess[str], folder: Path, said: str) -> None:
    """One message that names the file and the key, no code that ran, no store, nothing else in the folder."""
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"{folder / 'stranger'}/"), done.stderr
    assert said in done.stderr, done.stderr
    assert {path.name for path in folder.iterdir()} == {"stranger"}


def choice(files: dict[str, str]) -> str:
    """What a user types who trusts a stranger."""
    name = next((name for name in files if Path(name).stem in ("evil", "baseline")), "experiment/evil.yaml")
    return name.removesuffix(".yaml").replace("/", "=")


@pytest.mark.parametrize("tries", HOSTILE)
@pytest.mark.fast
def test_a_hostile_preset_is_refused_before_hydra_has_it(tmp_path: Path, tries: str) -> None:
    said, files = HOSTILE[tries]
    stranger = write(tmp_path, files)
    group, _, name = choice(files).partition("=")
    with pytest.raises(InputError) as caught:
        PresetFolder.of(stranger).load(group, name)
    assert str(caught.value).startswith(f"{stranger}/")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"stranger"}


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("mnist_exp", ("CHOICE",)),
        ("mnist_exp", ("--help", "CHOICE")),
        ("mnist_exp", ("--cfg", "all", "--resolve", "CHOICE")),
        ("mnist_exp", ("--info", "defaults-tree", "CHOICE")),
        ("mnist_exp", ("-sc", "query=bash")),
        ("mnist_exp", ("-m", "seed=0,1", "CHOICE")),
        ("mnist_exp", ("-m", "CHOICE,mlp", "hydra/launcher=stacked")),
        ("mnist_exp", ("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=tpe", "seed=0,1", "CHOICE")),
        ("mnist_exp.show", ("CHOICE",)),
    ],
)
@pytest.mark.parametrize(
    "tries",
    [pytest.param(name, marks=getattr(pytest.mark, "fast" if name == "callback" else "release")) for name in HOSTILE],
)
def test_every_command_refuses_a_hostile_choice(
    tmp_path: Path, module: str, arguments: tuple[str, ...], tries: str
) -> None:
    said, files = HOSTILE[tries]
    stranger = write(tmp_path, files)
    flag = (f"-cd={stranger}",) if "-m" in arguments else ("--config-dir", str(stranger))
    typed = [argument.replace("CHOICE", choice(files)) for argument in arguments]
    line = f"mnist_exp {choice(files)} model."  # is completed
    assert_refused(in_process(*flag, *typed, cwd=tmp_path, module=module, COMP_LINE=line), tmp_path, said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--hydra-help",),
        ("--cfg", "all", "--resolve"),
        ("--info", "all"),
        ("-sc", "query=bash"),
        ("experiment=good", "--cfg", "job"),
    ],
)
@pytest.mark.fast
def test_a_file_is_read_if_it_is_chosen_only(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    files = {name: text for _, files in HOSTILE.values() for name, text in files.items()}
    files = {name: text for name, text in files.items() if not name.startswith(("hydra", "tracking"))}
    stranger = write(
        tmp_path, files | {"experiment/good.yaml": "defaults: [best]", "experiment/a=b.yaml": "[", "model/-.yaml": "["}
    )
    done = in_process("--config-dir", str(stranger), *arguments, cwd=tmp_path, COMP_LINE="mnist_exp experiment=")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("evil" in done.stdout) == (arguments[0] in ("--help", "-sc"))
    assert "a=b" not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"stranger"}


# What a preset says, what is typed, and the message that names it.
WRONG = {
    "unknown key": ({"experiment/a.yaml": "model: {hiden: 4}"}, "model.hiden=4: model (mlp) has no such key"),
    "type": ({"experiment/a.yaml": "dataset: {validation: {a: 1}}"}, "dataset.validation={a: 1}: must be test, or"),
    "map for a list": (
        {"experiment/a.yaml": "training: {metrics: {a: 1}}"},
        "training.metrics: must be a list or a map",
    ),
    "no map": ({"experiment/a.yaml": "training: [1, 2]"}, "training=[1, 2]: must be a map"),
    "choice": ({"experiment/a.yaml": "defaults: [override /model: nope]"}, "model=nope: no such choice"),
    "name": ({"experiment/a.yaml": "defaults: [nope]"}, "Could not load 'experiment/nope'"),
    "order": (
        {"experiment/a.yaml": "defaults: [override /model: cnn, best]"},
        "Override 'model : cnn' is defined before",
    ),
    "missing kind": ({"model/a.yaml": "hidden: 3"}, "model.kind=null: must be one of"),
    "missing key": ({"model/a.yaml": "kind: mlp"}, "model.hidden: is missing"),
    "included": (
        {"model/b.yaml": "defaults: [a]\nhidden: 3", "model/a.yaml": "defaults: [mlp]\nhiden: 3"},
        "model.hiden=3: model (mlp) has no such key",
    ),
    "last of two": (
        {"model/a.yaml": "defaults: [b]\nhidden: x", "model/b.yaml": "defaults: [mlp]\nhidden: 3"},
        "model.hidden=x: must be a whole number",
    ),
    "first of two": (
        {"model/b.yaml": "defaults: [_self_, a]\nhidden: 3", "model/a.yaml": "defaults: [mlp]\nhidden: x"},
        "model.hidden=x: must be a whole number",
    ),
    "key of a search": (
        {"sweep/a.yaml": "hydra: {sweeper: {n_trials: 3}}"},
        "hydra.sweeper.n_trials: needs -m and a search",
    ),
    "key of a race": (
        {"sweep/a.yaml": "hydra: {sweeper: {max_jobs: 3}}"},
        "hydra.sweeper.max_jobs: needs -m and sweep=race",
    ),
    "key of a sampler": (
        {"sweep/a.yaml": "hydra: {sweeper: {sampler: {seed: 1}}}"},
        "hydra.sweeper.sampler: hydra.sweeper has",
    ),
    "type in a sweeper": (
        {"sweep/a.yaml": "defaults: [override /hydra/sweeper: race]\nhydra: {sweeper: {max_jobs: x}}"},
        "hydra.sweeper.max_jobs=x: must be a whole number",
    ),
    "varied": (
        {"sweep/a.yaml": "hydra: {sweeper: {params: {model.hidden: '2,x'}}}"},
        "model.hidden=x: must be a whole",
    ),
    "pruner": ({"sweep/a.yaml": "prune: {patience: 4}"}, "prune.kind=null: must be one of"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.fast
def test_a_message_about_a_preset_begins_with_its_path(tmp_path: Path, what: str) -> None:
    files, said = WRONG[what]
    folder = write(tmp_path, files)
    group, _, name = next(iter(files)).removesuffix(".yaml").partition("/")
    with pytest.raises(InputError) as caught:
        planned([f"{group}={name}", "seed=0"], folder) if group == "sweep" else compose([f"{group}={name}"], folder)
    wrong = f"{group}/a.yaml"
    assert str(caught.value).startswith(f"{folder / wrong}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_a_message_about_what_is_typed_names_no_preset(tmp_path: Path) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": "model: {hidden: 4, activation: relu}\nseed: 3"})
    for typed in ("model.hidden=x", "seed=x", "model={hidden:x}", "optimizer.lr=1"):
        with pytest.raises(InputError, match=rf"^{typed.partition('=')[0]}[.=:]"):
            compose(["experiment=a", typed], folder)


@pytest.mark.parametrize(
    "text", ["", "# to be written", "# @package _global_", "defaults: []", "defaults: [override /model: mlp]"]
)
@pytest.mark.fast
def test_a_preset_may_set_nothing(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": text})
    (folder / "experiment" / "b.yaml").write_text("# to be written\n")
    assert compose(["experiment=a"], folder).config == compose(["experiment=b"], folder).config == compose([]).config


@pytest.mark.fast
def test_a_running_job_is_checked_without_the_part_of_hydra() -> None:
    composed = compose_values(["seed=1"], RunMode.RUN)
    with open_dict(composed):
        del composed["hydra"]
    assert check_composed(composed, None).seed == 1


@pytest.mark.fast
def test_a_preset_goes_to_the_processes_of_jobs_as_it_was_read(tmp_path: Path) -> None:
    folder = write(tmp_path, {"experiment/a.yaml": "seed: 3"})
    with user_choices(folder, ["experiment=a"]):
        sent = pickle.dumps(ConfigStore.instance())
    shutil.rmtree(folder)
    assert pickle.loads(sent).load("experiment/a.yaml").node == {"seed": 3}


@pytest.mark.fast
def test_a_choice_of_conf_is_not_replaced_in_silence(tmp_path: Path) -> None:
    folder = write(tmp_path, {"model/cnn.yaml": "hidden: 1", "experiment/a.yaml": "defaults: [override /model: cnn]"})
    assert compose(["seed=1"], folder).config == compose(["seed=1"]).config
    for typed in ("model=cnn", "experiment=a"):
        with pytest.raises(InputError, match=r"cnn\.yaml: model=cnn is a choice of this project"):
            compose([typed], folder)


@pytest.mark.fast
def test_a_program_reads_it_too(tmp_path: Path) -> None:
    said, files = HOSTILE["callback"]
    stranger = write(tmp_path, files)
    for call in (run, sweep):
        with pytest.raises(InputError, match=re.escape(said)):
            call("experiment=evil", config_dir=stranger)
    assert {path.name for path in tmp_path.iterdir()} == {"stranger"}


@pytest.mark.fast
@pytest.mark.parametrize("name", ["../../../elsewhere", "/tmp/elsewhere"])
def test_a_preset_does_not_lead_the_output_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "dir" / "experiment").mkdir(parents=True)
    (tmp_path / "dir" / "experiment" / "evil.yaml").write_text(
        f"# @package _global_\ntracking: {{experiment: {name}}}\n"
    )
    folder = "hydra.run.dir='${tracking.experiment}'"
    done = in_process("--config-dir", "dir", "experiment=evil", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert f"leads to {name} through another value; type the folder itself" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["dir"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-path", "stranger"), "--config-path: would let Hydra read settings that can run code"),
        (("-cp=stranger",), "--config-path: would let Hydra"),
        (("--config-name", "evil"), "--config-name: would let Hydra"),
        (("--config-di", "stranger"), "--config-dir: would let Hydra"),
        (("hydra.searchpath=[file://stranger]",), "hydra.searchpath: would let Hydra"),
        (("++hydra.searchpath=[file://stranger]",), "hydra.searchpath: would let Hydra"),
        (("hydra/searchpath=[file://stranger]",), "hydra.searchpath: would let Hydra"),
        (("-m", "seed=0,1", "hydra.searchpath=[file://stranger]"), "hydra.searchpath: would let Hydra"),
        (("--help", "hydra.searchpath=[file://stranger]"), "hydra.searchpath: would let Hydra"),
        (("--config-dir",), "--config-dir: needs a folder"),
        (("--config-dir", "nowhere"), "--config-dir nowhere: must be an existing folder"),
    ],
)
@pytest.mark.fast
def test_hydra_is_sent_to_no_other_folder(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write(tmp_path, {"evil.yaml": f"hydra: {{callbacks: {{x: {CALL}}}}}", **HOSTILE["hydra's own groups"][1]})
    done = in_process(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
    assert "--config-dir DIR" in done.stderr or "--config-dir nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"stranger"}
    with pytest.raises(InputError, match="would let Hydra"):
        compose(["hydra.searchpath=[file://stranger]"])


def test_a_preset_says_what_belongs_to_an_experiment(tmp_path: Path) -> None:
    presets = write(
        tmp_path,
        {
            "experiment/narrow.yaml": """
defaults:
  - override /model: tiny
  - override /optimizer: sgd
  - _self_
seed: 3
dataset: {limit: 1000, validation: 100}
optimizer: {learning_rate: 1e-2, momentum: 0.9}
training: {epochs: 2, batch_size: 100, callbacks: {EarlyStopping: {patience: 5}}}
tracking: {experiment: mine, run_name: narrow, tags: {team: vision, level: 3}, note: about this, keep: all}
""",
            "experiment/narrower.yaml": "defaults: [narrow, _self_]\nmodel: {hidden: 2}",
            "model/tiny.yaml": "defaults: [mlp, _self_]\nhidden: 4",
            "README.md": "About these presets.",
            "data/notes.yaml": "hydra: {}",
        },
    )
    done = in_process("--config-dir", str(presets), "experiment=narrow", "model.activation=relu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [one] = runs_in(tmp_path, "mine")
    assert (one.info.run_name, one.data.tags["team"], one.data.tags["level"]) == ("narrow", "vision", "3")
    assert one.data.params["model.hidden"] == "4"
    assert one.data.params["optimizer.learning_rate"] == "0.01"
    assert one.data.params["training.callbacks.EarlyStopping.patience"] == "5"
    assert one.data.params["model.activation"] == "relu"
    assert (
        compose(["experiment=narrower"], config_dir=presets).config.model
        == compose(["experiment=narrow", "model.hidden=2"], config_dir=presets).config.model
    )
    help_text = in_process("--config-dir", str(presets), "--help", cwd=tmp_path).stdout
    assert "narrow, narrower" in help_text
    assert "tiny" in help_text
    with pytest.raises(InputError, match="experiment=narow: no such choice; did you mean narrow"):
        compose(["experiment=narow"], config_dir=presets)
    with pytest.raises(InputError, match="experiment=narrow: no such choice"):  # nothing stays in the process
        compose(["experiment=narrow"])


def test_a_copy_of_any_choice_in_conf_works_as_a_preset(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    groups = ("dataset", "preprocessing", "model", "optimizer", "training", "experiment", "sweep")
    for group in groups:
        (presets / group).mkdir(parents=True)
        for path in (CONF / group).glob("*.yaml"):
            shutil.copy(path, presets / group / f"my_{path.name}")
    folder = PresetFolder.of(presets)
    assert len(folder.files) == sum(len(list((CONF / group).glob("*.yaml"))) for group in groups)
    assert all(folder.load(*file).values for file in folder.files)
    for typed in (
        ("dataset=npz", f"dataset.path={tmp_path}"),
        ("model=layers", "preprocessing=image"),
        ("optimizer=sgd", "training=default"),
        ("experiment=convnet",),
    ):
        ours = compose(typed).config
        assert (
            compose([text.replace("=", "=my_") if "." not in text else text for text in typed], presets).config == ours
        )


def test_a_copy_of_any_sweep_in_conf_works_as_a_preset(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    (presets / "sweep").mkdir(parents=True)
    for path in (CONF / "sweep").glob("*.yaml"):
        shutil.copy(path, presets / "sweep" / f"my_{path.name}")
        typed = ["model.hidden=2,32"] if path.stem == "race" else []
        (ours, kind), (theirs, their_kind) = (
            planned([f"sweep={prefix}{path.stem}", *typed], folder) for prefix, folder in (("", None), ("my_", presets))
        )
        assert replace(theirs, folder=ours.folder, overrides=ours.overrides) == ours, path
        if isinstance(kind, Race) and isinstance(their_kind, Race):  # its overrides name the preset
            their_kind = replace(their_kind, overrides=kind.overrides)
        assert their_kind == kind, path
    small = (*QUICK, "dataset.limit=200", "dataset.validation=9", "training.epochs=1", "tracking=none")
    done = in_process("--config-dir", str(presets), "-m", "sweep=my_grid", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 done" in done.stdout


def planned(overrides: list[str], config_dir: Path | None) -> tuple[Sweep, Kind]:
    with user_choices(config_dir, overrides, in_sweep=True) as code:
        return plan(compose_values(overrides, RunMode.MULTIRUN), overrides, code, JobLoader.of_conf())


SPY = """
from pathlib import Path
Path({hacked!r}).touch()
raise SystemExit("a module of the current folder was imported")
"""


@pytest.mark.slow
def test_nothing_of_the_current_folder_is_imported(tmp_path: Path) -> None:
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


def test_a_program_that_imports_the_package_keeps_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import mnist_exp, mine\nprint(mine.value)\n")
    (tmp_path / "mine.py").write_text("value = 'from my own folder'\n")
    assert command(cwd=tmp_path, module="program").stdout == "from my own folder\n"
