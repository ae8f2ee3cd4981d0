"""Overrides in, a checked configuration out; and what people read when it cannot be had."""

import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.schema import Config, MLflowTracking
from mnist_exp.errors import InputError
from mnist_exp.sweeps.plan import plan
from mnist_exp.version import __version__

from ..conftest import command, in_process

HEAVY = ("tensorflow", "keras", "mlflow", "matplotlib", "jax")


def in_fresh_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line and print which heavy modules it left in sys.modules."""
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY} if m in sys.modules]))\n"
        "from mnist_exp.__main__ import main\n"
        "main()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.fast
def test_the_baseline_preset_is_the_default_spelt_out() -> None:
    default, preset = compose([]).config, compose(["experiment=baseline"]).config
    assert preset.training.loss == "CategoricalCrossentropy"
    assert (preset.model, preset.optimizer, preset.dataset) == (default.model, default.optimizer, default.dataset)
    assert preset.preprocessing == default.preprocessing
    assert preset.training == replace(default.training, loss=preset.training.loss)
    assert (preset.training.epochs, preset.training.batch_size) == (10, 1000)


@pytest.mark.parametrize("model", ["cnn", "layers"])
@pytest.mark.fast
def test_a_model_of_images_chooses_images(model: str) -> None:
    assert compose([f"model={model}"]).config.preprocessing.kind == "image"


@pytest.mark.fast
def test_an_explicit_choice_wins_over_the_models() -> None:
    stack = "model.layers=[{Dense:{units:8}}]"
    assert compose(["model=layers", "preprocessing=flatten", stack]).config.preprocessing.kind == "flatten"


@pytest.mark.fast
def test_a_callback_is_added_to_those_of_a_preset() -> None:
    callbacks = compose(["experiment=convnet", "training.callbacks={TerminateOnNaN:{}}"]).config.training.callbacks
    assert sorted(callbacks) == ["EarlyStopping", "TerminateOnNaN"]


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("# @package _global_\nmodel:\n hidden: 32\n  epochs: 1\n", "mine.yaml"),
        ("model:\n  hidden: 32\n", "mine.yaml: the first line of a preset must be: # @package _global_"),
    ],
)
@pytest.mark.fast
def test_a_preset_that_cannot_be_read_is_one_message(tmp_path: Path, preset: str, message: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(preset)
    done = in_process("--config-dir", str(tmp_path), "experiment=mine", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--epochs=3", "--epochs=3: no such flag; did you mean training.epochs=3?"),
        ("--resolve", "--resolve: shows a configuration without interpolations; type --cfg job --resolve"),
        ("--info=x", "--info/-i: invalid choice: 'x'"),
        ("--experimental-rerun config.pickle", "--experimental-rerun: reads a pickle"),
        ("--cfg=job -r", "--run and --cfg: are two commands; type one of them"),
        ("-sc", "--shell-completion : type -sc install=bash"),
    ],
)
def test_unknown_flag_is_one_message(tmp_path: Path, flag: str, message: str) -> None:
    done = in_process(*flag.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=cn", "model=cn: no such choice; did you mean model=cnn?"),
        ("modle.hidden=64", "modle.hidden=64: the configuration has no such key; did you mean model.hidden=64?"),
        ("experimnt=convnet", "experimnt=convnet: the configuration has no such key; did you mean experiment=convnet?"),
        ("dataset.swep=1", "dataset.swep=1: dataset (mnist) has no such key; its keys are validation, limit, seed"),
        ("model.hiden=3", "model.hiden=3: model (mlp) has no such key; did you mean model.hidden=3?"),
        ("hidden=3", "did you mean model.hidden=3?"),
        ("lr=0.1", "lr=0.1: the configuration has no such key; did you mean optimizer.learning_rate=0.1?"),
        ("optimizer.lr=0.1", "optimizer.lr=0.1: Adam has no such argument; did you mean optimizer.learning_rate=0.1?"),
        ("model=mine", "the choices are cnn, layers, linear, mlp; one of your own needs code=FILE.py"),
        ("model.hidden=[1", "model.hidden=[1: cannot be read; write KEY=VALUE"),
        ("model.hidden=16,", "model.hidden=16,: cannot be read; write KEY=VALUE, with no space after a comma: -m "),
        ("training.callbacks=[{A: {}}]", "training.callbacks=[{A: {}}]: must be a map of keys to values"),
        (
            "model.hidden=16,32",
            "model.hidden=16,32: has several values; add -m for a sweep over them, or type 'model.hidden=[16,32]'",
        ),
        ("sweep=grid", "sweep=grid: is a sweep; type python -m mnist_exp -m sweep=grid"),
        ("+extra=1", "extra=1: the configuration has no such key"),
        ("~seed", "seed: is missing; it must be a whole number"),
        ("dataset=npz", "dataset.path: is not set"),
        ("n_trials=10", "did you mean -m sweep=optuna hydra.sweeper.n_trials=10?"),
        ("hydra.sweeper.n_trials=10", "hydra.sweeper.n_trials=10: is for a sweep; add -m, or leave it out"),
        ("launcher=joblib", "launcher=joblib: the configuration has no such key; did you mean hydra/launcher=joblib?"),
        ("hydra.job.nme=a", "hydra.job.nme=a: hydra.job has no such key; did you mean hydra.job.name=a?"),
        ("dataset=/home/me/a.npz", "dataset=/home/me/a.npz: no such choice; the choices are"),
        (
            "dataset.path=a.npz",
            "dataset (mnist) has no such key; it is a key of dataset=folder, dataset=idx, dataset=npz",
        ),
        ("model/hidden=16", "did you mean model.hidden=16?"),
        ("~sed", "Could not delete from config. 'sed' does not exist."),
        ("Model.Hidden=16", "did you mean model.hidden=16?"),
        ("hydra.mode=x", "hydra.mode=x: Invalid value 'x', expected one of [RUN, MULTIRUN]"),
        ("hydra.sweeper.params={seed:'0,1'}", "is for a sweep; add -m, or leave it out"),
    ],
)
@pytest.mark.fast
def test_message_names_the_key_and_a_correction(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compose([override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_message_about_an_override_shows_only_that_override() -> None:
    with pytest.raises(InputError, match=r"^model=5: must be GROUP=CHOICE"):
        compose(["seed=3", "experiment=best", "model=5"])
    with pytest.raises(InputError, match=r"^seed=\{x: 5\}: must be a whole number from 0 to 4294967295$"):
        compose(["seed.x=5"])


@pytest.mark.parametrize(
    "typed",
    [
        ["tracking.tags.study=x", "tracking.tags.level=3"],
        ["tracking.tags={study: x, level: 3}"],
        ["tracking=server", "tracking.tags.study=x", "tracking.tags.level=3"],
    ],
)
@pytest.mark.fast
def test_tags_are_added_without_a_plus(typed: list[str]) -> None:
    tracking = compose(typed).config.tracking
    assert isinstance(tracking, MLflowTracking)
    assert tracking.tags == {"study": "x", "level": 3}
    swept = [*typed, "seed=0,1"]
    sweep, _ = plan(compose_values(swept), swept, None, JobLoader.of_conf())
    assert sweep.config.tracking == tracking


@pytest.mark.fast
def test_a_tag_that_is_typed_wins_over_a_presets(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    preset = "# @package _global_\ntracking: {tags: {study: preset, team: vision}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(preset)
    tracking = compose(["experiment=mine", "tracking.tags.study=typed"], config_dir=tmp_path).config.tracking
    assert isinstance(tracking, MLflowTracking)
    assert tracking.tags == {"study": "typed", "team": "vision"}


def in_bash(typed: str, folder: Path) -> str:
    """Return what `python -m mnist_exp` prints on standard error, typed with or without quotes in bash."""
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    line = ["bash", "-c", f"{sys.executable} -m mnist_exp {typed}"]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    "unquoted",
    [
        "training.callbacks={EarlyStopping:{patience:3,restore_best_weights:true}}",
        "-m model.hidden={16,32} seed=0,1",
    ],
)
@pytest.mark.fast
def test_braces_that_a_shell_split_are_recognised(tmp_path: Path, unquoted: str) -> None:
    said = in_bash(f"{unquoted} training.epochs=3", tmp_path)
    [key] = re.findall(r"([\w.]+)=\S*\{", unquoted)
    assert said.startswith(
        f"{key}: is given twice in a row; keep one. If a shell made two of braces, type '{key}={{...}}' in single"
    )
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fast
def test_a_key_may_be_given_again(tmp_path: Path) -> None:
    schedule = "{CosineDecay:{initial_learning_rate: 0.1, decay_steps: 9}}"
    typed = f"experiment=convnet optimizer.learning_rate=null 'optimizer.learning_rate={schedule}'"
    assert in_bash(f"{typed} --cfg job", tmp_path) == ""
    assert compose(["seed=1", "model.hidden=8", "seed=2"]).config.seed == 2


@pytest.mark.fast
def test_a_sweep_that_is_asked_for_at_the_end_is_not_shown(tmp_path: Path) -> None:
    assert (
        in_bash("seed=0,1 --cfg job -m", tmp_path)
        == "--cfg and --info: show the configuration of one run; leave -m out\n"
    )


@pytest.mark.fast
def test_cfg_shows_typed_overrides(tmp_path: Path) -> None:
    typed = ["+seed=3", "training.callbacks.TerminateOnNaN={}", "hydra.run.dir=${hydra.job.override_dirname}"]
    done = in_process(*typed, "--cfg", "all", "--resolve", cwd=tmp_path)
    shown = yaml.safe_load(done.stdout)
    assert shown["hydra"]["overrides"]["task"] == typed[:2]
    assert shown["hydra"]["run"]["dir"] == "+seed=3,training.callbacks.TerminateOnNaN={}"
    assert (shown["seed"], shown["training"]["callbacks"]) == (3, {"TerminateOnNaN": {}})


@pytest.mark.fast
def test_unusable_configurations_are_shown_and_refused(tmp_path: Path) -> None:
    done = in_process("modle.hidden=3", "--cfg", "job", "--package", "modle", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "# @package modle\nhidden: 3\n")
    assert "did you mean model.hidden=3?" in done.stderr


@pytest.mark.fast
def test_messages_list_only_available_choices() -> None:
    for group in ("dataset", "model", "optimizer", "experiment"):
        with pytest.raises(InputError) as caught:
            compose([f"{group}=zzz"])
        listed = str(caught.value).partition("the choices are ")[2].partition(";")[0].split(", ")
        assert sorted(listed) == sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--cfg", "job"], 0), (["model.hidden=0"], 1), (["optimizer=adma"], 1), (["model.hiden=1"], 1)],
)
@pytest.mark.fast
def test_help_and_errors_import_no_heavy_module(arguments: list[str], code: int) -> None:
    done = in_fresh_process(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("HEAVY []\n")


@pytest.mark.parametrize("arguments", [["--version"], ["-m", "model.hidden=0,1", "--version"]])
@pytest.mark.fast
def test_version_is_this_projects(arguments: list[str]) -> None:
    done = in_fresh_process(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mnist_exp {__version__}\nHEAVY []\n"


@pytest.mark.fast
def test_help_names_every_group_choice_and_key() -> None:
    text = in_fresh_process("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        assert f"{group}: " in text
        assert path.stem in text
        if group not in {"optimizer", "experiment", "sweep"}:
            for key in yaml.safe_load(path.read_text()):
                assert key in {"kind", "defaults", "kernel_size"} or key in text, (path, key)
    for field in fields(Config):
        assert re.search(rf"^ .*\b{field.name}\b", text, re.MULTILINE), field.name


@pytest.mark.fast
def test_bad_input_is_one_message_and_writes_no_file(tmp_path: Path) -> None:
    done = command("training.epochs=0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "training.epochs=0: must be a whole number, at least 1\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


# random text alone would rarely reach Hydra's grammar
NAMES = ["seed", "model.hidden", "training.callbacks", "range(", "${", "oc.env:HOME"]
PARTS = st.sampled_from([*NAMES, *"=+~@,:[]{}()'\\ 1"]) | st.text(max_size=3)


@pytest.mark.fast
@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.lists(PARTS, max_size=8).map("".join))
def test_any_override_is_used_or_refused_in_one_message(override: str) -> None:
    message = ""
    try:
        compose([override])
    except InputError as error:
        message = str(error)
    assert len(message) < 2000


@pytest.mark.fast
def test_the_console_command_completes(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("mnist_exp")
    for line, expected in {
        "mnist_exp model=": {"model=cnn", "model=mlp"},
        "mnist_exp model.hid": {"model.hidden="},
    }.items():
        done = subprocess.run(
            [script, "-sc", "query=bash"],
            env={"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert expected <= set(done.stdout.split()), done
