"""A run repeated from what the store holds of it; and configurations that somebody else changed there."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_exp.config.composition import compose, recompose
from mnist_exp.errors import InputError
from mnist_exp.predict import predict
from mnist_exp.rerun import rerun
from mnist_exp.tracking.environment import make_config
from mnist_exp.tracking.store import repository
from mnist_exp.training.families import CNN

from .conftest import QUICK, command, facts, in_process, runs_in, store, sweep_in
from .drawing import STYLES, draw

pytestmark = pytest.mark.slow


def recorded(*overrides: str) -> dict[str, Any]:
    """A configuration as config.yaml holds it."""
    return make_config(compose(overrides).config)


def test_a_baseline_run_repeated_is_identical_in_every_metric(tracked_folder: Path, tmp_path: Path) -> None:
    [first] = runs_in(tracked_folder)
    elsewhere = (f"tracking.uri=sqlite:///{tracked_folder}/mlflow.db", "tracking.experiment=again")
    done = command(first.info.run_id, *elsewhere, cwd=tmp_path, module="mnist_exp.rerun")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"Identical to {first.info.run_id}: all 43 values of 7 metrics"
    [second] = runs_in(tracked_folder, "again")
    assert facts(second)["rerun_of"] == first.info.run_id
    assert second.data.tags["mnist_exp.signature"] == first.data.tags["mnist_exp.signature"]
    assert second.info.run_name == first.info.run_name
    assert second.data.metrics["test_loss"] == first.data.metrics["test_loss"]


def test_rerun_names_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process(*QUICK, "model.hidden=8", cwd=tmp_path).returncode == 0
    [first] = runs_in(tmp_path)
    client = store(tmp_path)
    packages = first.data.tags["mnist_exp.packages"]
    client.set_tag(first.info.run_id, "mnist_exp.packages", packages.replace("numpy ", "numpy 9."))
    client.log_metric(first.info.run_id, "val_loss", 7.5, step=2)
    done = in_process(first.info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert done.returncode == 1
    assert f"Not identical to {first.info.run_id}: 1 of 11 values differ" in done.stdout
    assert "  val_loss, epoch 2: 7.5 then, " in done.stdout
    assert "  numpy: 9." in done.stdout.split("What differs between the two runs:")[1]
    assert not rerun(first.info.run_id, ["seed=5", "optimizer=sgd"])
    said = capsys.readouterr().out.split("What differs between the two runs:\n")[1]
    assert "  seed: 0 then, 5 now" in said
    assert "  optimizer.kind: Adam then, SGD now" in said
    assert "model.hidden" not in said
    client.set_terminated(first.info.run_id, "KILLED")
    assert not rerun(first.info.run_id, ["training.epochs=3"])
    said = capsys.readouterr().out
    assert f"{first.info.run_id} is KILLED; only what it logged is compared" in said
    assert " of 15 values differ" in said
    assert "  loss, epoch 3: none then, " in said
    Path(first.info.artifact_uri.removeprefix("file://"), "config.yaml").unlink()  # a kill before it was sent
    with pytest.raises(InputError, match=r"has no config\.yaml in the store yet; python -m mnist_exp\.sync sends it"):
        rerun(first.info.run_id)


def test_a_job_of_a_sweep_is_repeated_with_its_number_of_threads(tmp_path: Path) -> None:
    convolutions = ("model=cnn", "model.filters=4", "dataset.limit=1000", "training.epochs=2", "training.batch_size=50")
    assert command("-m", "seed=0,1", *convolutions, "dataset.validation=100", cwd=tmp_path).returncode == 0
    parent, jobs = sweep_in(tmp_path)
    assert {facts(job)["threads"] for job in jobs} == {"1"}
    done = command(jobs[1].info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Identical to {jobs[1].info.run_id}" in done.stdout
    assert facts(runs_in(tmp_path)[-1])["threads"] == "1"
    refused = in_process(parent.info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert refused.returncode == 1
    assert f"is a sweep; type the id of a job, such as the best, {facts(parent)['best_run']}" in refused.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("experiment=convnet",),
        ("experiment=best",),
        ("model=linear", "preprocessing.standardize=true", "preprocessing.one_hot=false"),
        ("model=layers", "model.layers=[{Dense:{units:8}}]", "preprocessing=flatten", "optimizer=schedule_free_adamw"),
        (
            "model=cnn",
            "model.filters=[4,8]",
            "optimizer=rmsprop",
            "training.callbacks={ReduceLROnPlateau:{factor:0.2}}",
        ),
        ("training.callbacks={ModelCheckpoint:{filepath:'{epoch:02d}.keras'}}", "training.loss=MeanSquaredError"),
        ("preprocessing.augment=[{RandomRotation:{factor:0.1}}]", "seed=3", "objective=val_loss", "direction=minimize"),
    ],
)
def test_recorded_configuration_is_recomposed_exactly(overrides: tuple[str, ...]) -> None:
    before = compose(overrides).config
    after = recompose(yaml.safe_load(yaml.safe_dump(recorded(*overrides))), []).config
    assert after == before


def test_rerun_overrides_change_the_recorded_run() -> None:
    after = recompose(recorded("experiment=convnet"), ["training.epochs=1", "optimizer.beta_1=0.8"]).config
    assert (after.training.epochs, after.training.batch_size, after.optimizer["beta_1"]) == (1, 128, 0.8)
    chosen = recompose(recorded("model.hidden=64"), ["model=cnn", "preprocessing=image", "model.filters=4"]).config
    assert isinstance(chosen.model, CNN)
    assert (chosen.model.filters, chosen.preprocessing.kind) == (4, "image")
    with pytest.raises(InputError, match=r"did you mean model\.hidden=3"):
        recompose(recorded(), ["model.hiden=3"])
    with pytest.raises(InputError, match="experiment: cannot be changed in a rerun"):
        recompose(recorded(), ["experiment=convnet"])


def changed(path: str, value: Any) -> dict[str, Any]:
    """A recorded configuration in which one key was set to something else."""
    config = recorded("training.callbacks={EarlyStopping:{patience:1}}")
    *folders, last = path.split("/")
    node = config
    for folder in folders:
        node = node[folder]
    node[last] = value
    return config


CALL = {"_target_": "subprocess.call", "args": ["touch", "HACKED"]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hydra", {"callbacks": {"x": CALL}}),
        ("hydra", {"job_logging": {"handlers": {"x": {"()": "subprocess.call", "args": ["touch", "HACKED"]}}}}),
        ("hydra", {"run": {"dir": "/tmp/elsewhere"}}),
        ("defaults", [{"override /hydra/launcher": "joblib"}]),
        ("_target_", "subprocess.call"),
        ("model", CALL),
        ("model/_target_", "subprocess.call"),
        ("optimizer/learning_rate", CALL),
        ("optimizer/name", "${oc.env:HOME}"),
        ("dataset/kind", "pickle"),
        ("dataset/kind", "../../mnist"),
        ("dataset/kind", ["mnist"]),
        ("seed", "${oc.decode:1}"),
        ("seed", "${training.epochs}"),
        ("training/callbacks/${oc.env:HOME}", {}),
        ("training/callbacks/RemoteMonitor", {"root": "http://elsewhere"}),
        ("training/callbacks/BackupAndRestore", {"backup_dir": "elsewhere"}),
        ("training/callbacks/ModelCheckpoint", {"filepath": "../HACKED.keras"}),
        ("training/callbacks/ModelCheckpoint", {"filepath": "/tmp/HACKED.keras"}),
        ("training/callbacks/CSVLogger", {"filename": "{epoch:c}tmp/HACKED"}),
        ("training/callbacks/CSVLogger", {"filename": "config.yaml"}),
        ("training/metrics", [{"Lambda": {}}]),
        ("preprocessing/augment", ["Lambda"]),
        ("preprocessing/augment", [{"Pipeline": {"layers": []}}]),
        ("model", {"kind": "layers", "layers": [{"Lambda": {"function": "print"}}]}),
        ("model", {"kind": "layers", "layers": [{"TFSMLayer": {"filepath": "elsewhere"}}]}),
        ("model", {"kind": "layers", "layers": [{"Bidirectional": {"layer": {"Lambda": {"function": "print"}}}}]}),
        ("model", {"kind": "layers", "layers": [{"Dense": {"units": 1, "kernel_initializer": CALL}}]}),
        ("model", "mlp"),
        ("model", {"kind": "layers", "layers": [{"Reshape": {"target_shape": [b"x", ["y"]]}}]}),
        ("training/callbacks/CSVLogger", {"filename": "figures"}),
        ("training/callbacks/ModelCheckpoint", {"filepath": "{epoch:99999999d}.keras"}),
        ("optimizer/learning_rate", 10**400),
        ("model/dropout", 10**400),
        ("model", {"kind": ["mlp"]}),
        ("training", None),
        ("seed", "???"),
    ],
)
def test_a_tampered_configuration_is_refused_before_use(tmp_path: Path, path: str, value: Any) -> None:
    for overrides in ([], ["seed=1"]):
        with pytest.raises(InputError) as caught:
            recompose(changed(path, value), overrides)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


def test_where_a_run_is_recorded_is_the_users_own_choice(tmp_path: Path) -> None:
    config = changed("tracking/uri", "sqlite:////tmp/elsewhere.db")
    config["tracking"]["tags"] = {"a": "b"}
    config["resume"] = True
    assert recompose(config, []).config.tracking == compose([]).config.tracking
    assert not recompose(config, []).config.resume
    assert recompose(config, []).output.is_relative_to(tmp_path)


def test_a_configuration_tampered_in_the_store_is_one_message(tmp_path: Path) -> None:
    assert in_process(*QUICK, cwd=tmp_path).returncode == 0
    [first] = runs_in(tmp_path)
    [path] = tmp_path.glob("mlruns/*/artifacts/config.yaml")
    honest = path.read_text()
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for text in (
        f"{honest}hydra: {{callbacks: {{x: {{_target_: subprocess.call, args: [touch, HACKED]}}}}}}\n",
        "!!python/object/apply:os.system ['touch HACKED']\n",
        honest.replace("kind: mlp", "kind: [mlp"),
        "[]\n",
        "[" * 3000,
        f"{honest}\xff",
        honest.replace("seed: 0", f"seed: 0x{'f' * 5000}"),
        honest.replace("activation: sigmoid", 'activation: "\\e[2J\\nIdentical"'),
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=first.info.run_id) as caught:
            rerun(first.info.run_id)
        assert len(str(caught.value)) < 10_000
    done = in_process(first.info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "\x1b" not in done.stderr
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match=r"no-such-run: no such run in sqlite:///mlflow\.db"):
        rerun("no-such-run")
    with pytest.raises(InputError, match="has no store"):
        rerun(first.info.run_id, ["tracking=none"])


def test_a_store_cannot_send_reads_and_writes_elsewhere(tmp_path: Path) -> None:
    assert in_process(*QUICK, cwd=tmp_path).returncode == 0
    [first] = runs_in(tmp_path)
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    database = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    redirect = f"begin update runs set artifact_uri = 'file://{elsewhere}' where run_uuid = new.run_uuid; end"
    database.execute(f"create trigger t after insert on runs {redirect}")
    assert rerun(first.info.run_id)  # the answer to its creation named an allowed place, which counts
    with pytest.raises(
        InputError, match=f"keeps artifacts in file://{elsewhere}; they must be below {tmp_path}/mlruns"
    ):
        rerun(runs_in(tmp_path)[1].info.run_id)
    draw(3, STYLES[3]).save("three.png")
    (tmp_path / first.data.tags["mnist_exp.output"] / "model.keras").unlink()  # predict would read it instead
    for location in (f"file://{elsewhere}", "http://127.0.0.1:1/api", f"{tmp_path}/mlruns/../../{elsewhere.name}"):
        database.execute("update runs set artifact_uri = ?", [location])
        database.execute("update logged_models set artifact_location = ?", [location])
        for read in (lambda: rerun(first.info.run_id), lambda: predict(first.info.run_id, [Path("three.png")])):
            with pytest.raises(InputError, match="keeps artifacts in"):
                read()
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("uri", "location", "allowed"),
    [
        ("sqlite:////a/mlflow.db", "file:///a/mlruns/1", True),
        ("sqlite:////a/mlflow.db", "/a/mlruns/1", True),
        ("sqlite:////a/mlflow.db", "file:///a/mlruns/../../b", False),
        ("sqlite:////a/mlflow.db", "file:///a/conf", False),
        ("postgresql://host/db", "mlruns/1", True),
        ("postgresql://host/db", "/elsewhere/mlruns/1", False),
        ("sqlite:////a/mlflow.db", "file:///a/%2e%2e/b", False),
        ("sqlite:////a/mlflow.db", "file://host/a/mlruns", False),
        ("sqlite:////a/mlflow.db", "http://host/a", False),
        ("sqlite:////a/mlflow.db", None, False),
        ("sqlite:////tmp/a%b/mlflow.db", "file:///tmp/a%25b/mlruns/1", True),
        ("sqlite:////a/mlflow.db", "/a/mlruns/1#/../../../b", False),
        ("sqlite:////a/mlflow.db", "file:///a/mlruns/1?/../../../b", False),
        ("sqlite:////a/mlflow.db", "file://[bad", False),
        ("sqlite:////a/mlflow.db", "/a/mlruns/\0", False),
        ("http://host:5000", "mlflow-artifacts:/1/2", True),
        ("http://me:secret@host:5000", "mlflow-artifacts://host:5000/1/2", True),
        ("http://host:5000", "mlflow-artifacts://other:5000/1/2", False),
        ("http://host:5000", "s3://bucket/1", True),
        ("http://host:5000", "file:///home/me", False),
        ("http://host:5000", "/home/me", False),
        ("http://host:5000", "http://other/1", False),
    ],
)
def test_where_artifacts_may_be(uri: str, location: str | None, allowed: bool) -> None:
    if allowed:
        repository(uri, location)
    else:
        with pytest.raises(InputError, match="keeps artifacts in"):
            repository(uri, location)


def test_a_stores_text_cannot_steer_terminal_or_environment(tmp_path: Path) -> None:
    assert in_process(*QUICK, cwd=tmp_path).returncode == 0
    [first] = runs_in(tmp_path)
    client = store(tmp_path)
    for tag in ("packages", "machine", "threads", "overrides", "code"):
        tag = f"mnist_exp.{tag}"
        client.set_tag(first.info.run_id, tag, "\x1b[2J\nIdentical " + "9" * 1000)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("UPDATE experiments SET name = ? WHERE name = 'mnist_exp'", ["mine\x1b[2J\x1b]0;owned\x07"])
        database.commit()
    done = in_process(first.info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert done.returncode == 0, done.stderr
    assert "in experiment mine?[2J?]0;owned?, files in outputs/" in done.stdout
    assert "\x1b[2J" not in done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("Identical")] == [
        f"Identical to {first.info.run_id}: all 11 values of 7 metrics"
    ]
    assert facts(runs_in(tmp_path, "mine\x1b[2J\x1b]0;owned\x07")[1])["threads"] == str(os.cpu_count())
