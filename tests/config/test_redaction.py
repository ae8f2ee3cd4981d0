"""No password reaches a terminal, a file or a store, whatever goes wrong."""

import logging
import os
import signal
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.config.redaction import SecretsFilter, traceback_text, without_secrets
from mnist_exp.errors import InputError
from mnist_exp.tracking.folder import log_file, package_logs

from ..conftest import QUICK, Server, in_process, installed, start, wait_for_line

pytestmark = pytest.mark.slow

SECRETS = ("hunter2", "t0ken-of-mine", "qu3ry-secret", "somebody")


def with_login(uri: str) -> str:
    return uri.replace("http://", "http://somebody:hunter2@")


def assert_no_secret(folder: Path, *outputs: str) -> None:
    """Look at all that was printed and at every byte of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for secret in SECRETS:
        assert all(secret not in output for output in outputs), outputs
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/x", "https://host/x"),
        (
            "API request to http://me:secret@h:5/api failed, see http://h",
            "API request to http://h:5/api failed, see http://h",
        ),
        ("postgresql+psycopg://me:secret@/db", "postgresql+psycopg:///db"),
        ("http://127.0.0.1:5000/#/experiments/1 of me@host", "http://127.0.0.1:5000/#/experiments/1 of me@host"),
        ("'https://token@host'", "'https://host'"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("optimizer=sgd: did you mean adam?", "optimizer=sgd: did you mean adam?"),
    ],
)
@pytest.mark.fast
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(InputError(text)) == shown


@pytest.mark.fast
@pytest.mark.parametrize("password", ["hunter2%40home", "hunter2@home"])
def test_the_address_in_the_environment_is_taken_out(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    address = f"postgresql://somebody:{password}@host/db?sslkey=qu3ry-secret"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for text in (
        address,
        f"{address}: no host hunter2@home",
        "wrong: hunter2%40home",
        '"hunter2@home", sslkey=qu3ry-secret',
    ):
        assert not any(secret in without_secrets(text) for secret in SECRETS)
    assert without_secrets("tracking=mlflow of anna@home") == "tracking=mlflow of anna@home"


@pytest.mark.fast
@pytest.mark.parametrize("module", ["mnist_exp", "mnist_exp.sync", "mnist_exp.tidy", "mnist_exp.compare"])
@pytest.mark.parametrize(
    "typed",
    [
        "tracking.uri=http://somebody:hunter2@127.0.0.1:9",
        "tracking.uri='http://127.0.0.1:9/?token=hunter2'",
        "tracking.uri=[http://somebody:my hunter2@h/]",
        "tracking.uri=http:/somebody:hunter2@h",
        "tracking.uri=postgresql://somebody@home:hunter2@h/db",
        "tracking.uri=https://hunter2hunter2hunter2@h",
        "tracking.note='see http://somebody:hunter2@h'",
        "+tracking.uri=[a,http://somebody:my,hunter2@h/]",
        "tracking.uri:http://somebody:my hunter2@h/",
        f"tracking.uri=http://somebody:hunter2{'x' * 4100}@h/",
        "tracking.urii=mysql://somebody:hunter2@h",
        "hydra.sweeper.storage=postgresql://somebody:hunter2@h/db",
        "--tracking.uri=http://somebody:hunter2@h",
    ],
)
def test_a_typed_password_is_refused_and_not_repeated(tmp_path: Path, module: str, typed: str) -> None:
    done = in_process(typed, *["outputs"] * (module == "mnist_exp.tidy"), cwd=tmp_path, module=module)
    assert done.returncode in (1, 2)
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fast
def test_a_password_in_a_preset_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ntracking:\n  note: http://somebody:hunter2@h\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        compose(["experiment=mine"], config_dir=str(tmp_path))
    assert "hunter2" not in str(caught.value)


@pytest.mark.fast
def test_a_token_of_the_environment_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    assert without_secrets("403: bearer t0ken-of-mine is not known") == "403: bearer ... is not known"


@pytest.mark.fast
def test_a_logged_error_has_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(SecretsFilter())
    try:
        try:
            raise OSError("http://me:hunter2@host does not answer")
        except OSError as error:
            raise RuntimeError("sending failed") from error
    except RuntimeError:
        logging.getLogger("somewhere").exception("to %s", "http://me:hunter2@host/a")
    assert "hunter2" not in caplog.text
    assert "to http://host/a" in caplog.text
    assert "OSError: http://host does not answer" in caplog.text


@pytest.mark.fast
def test_neither_a_message_nor_a_traceback_controls_a_terminal(tmp_path: Path) -> None:
    text = "wrong\x1b[2J\u202e\u200b\x9b1A\r" + "x" * 10_000
    try:
        raise RuntimeError(f"first\t{text}") from OSError(text)
    except RuntimeError as error:
        shown = traceback_text(error)
    with package_logs(), log_file(tmp_path):
        logging.getLogger("mnist_exp.somewhere").warning("%s", text)
    shown += (tmp_path / "run.log").read_text()
    assert all(line.isprintable() for line in shown.split("\n"))
    message = str(InputError(f"key={text}: must be short"))
    assert message.isprintable()
    assert len(message) < 2000
    assert (message[:5], message[-15:]) == ("key=w", ": must be short")


@pytest.mark.fast
def test_the_log_of_a_run_has_none(tmp_path: Path) -> None:
    with package_logs(), log_file(tmp_path):
        logging.getLogger("mnist_exp.somewhere").warning("%s does not answer", "http://me:hunter2@host")
    assert (tmp_path / "run.log").read_text().endswith(" WARNING http://host does not answer\n")


def test_a_server_that_goes_away_does_not_take_the_training_with_it(tmp_path: Path, server: Server) -> None:
    uri, process = server
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_URI": with_login(uri)}
    training = start(*QUICK, "training.epochs=60", cwd=tmp_path, **environment)
    wait_for_line(training, "Epoch 3/")
    os.killpg(process.pid, signal.SIGKILL)
    stdout, stderr = training.communicate(timeout=300)
    assert (training.returncode, stderr) == (0, "")
    assert "Epoch 60/60" in stdout
    [model] = tmp_path.glob("outputs/*/*/model.keras")
    folder = model.parent.relative_to(tmp_path)
    last = stdout.splitlines()[-1]
    assert last.startswith(f"Not all of {folder} has reached {uri} (")
    assert last.endswith(f"; python -m mnist_exp.sync {folder} tracking.uri={uri} sends the rest")
    assert "the store did not take everything" in (model.parent / "run.log").read_text()
    assert_no_secret(tmp_path, stdout, stderr)


# Marks, so that no server is started for a test that is skipped.
LAUNCHERS = [
    "basic",
    *(
        pytest.param(
            name,
            marks=[
                pytest.mark.release,
                pytest.mark.skipif(not installed(distribution), reason=f"needs {distribution}"),
            ],
        )
        for name, distribution in (
            ("joblib", "hydra-joblib-launcher"),
            ("submitit_local", "hydra-submitit-launcher"),
        )
    ),
]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_outage_while_a_sweep_trains(tmp_path: Path, server: Server, launcher: str) -> None:
    uri, process = server
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_URI": with_login(uri)}
    sweep = ("-m", *QUICK, "training.epochs=2,60", f"hydra/launcher={launcher}")
    training = start(*sweep, cwd=tmp_path, **environment)
    wait_for_line(training, "1 of 2 done")
    os.killpg(process.pid, signal.SIGKILL)
    stdout, stderr = training.communicate(timeout=300)
    assert (training.returncode, stderr) == (0, "")
    assert "2 jobs, largest val_accuracy first" in stdout
    assert_no_secret(tmp_path, stdout, stderr)


class Refusing(BaseHTTPRequestHandler):
    """A server that knows nobody."""

    def do_GET(self) -> None:
        """Answer as MLflow does where a password is missing or wrong."""
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("module", ["mnist_exp", "mnist_exp.compare"])
def test_a_server_that_wants_a_password_names_the_variables(tmp_path: Path, module: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        done = in_process(
            cwd=tmp_path, module=module, MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_USERNAME="somebody",
            MLFLOW_TRACKING_PASSWORD="hunter2",
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 1
    assert done.stderr.startswith(f"tracking.uri={uri}: ")
    assert "401" in done.stderr
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_server_that_is_none(tmp_path: Path, used_server: str) -> None:
    """It answers, but with no MLflow behind the address that the query makes of it."""
    (tmp_path / "a.png").write_bytes(b"")
    environment = {
        "MLFLOW_TRACKING_URI": f"{with_login(used_server)}/?token=qu3ry-secret",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_TRACKING_TOKEN": "t0ken-of-mine",
    }
    for module, *arguments in (
        ("mnist_exp", *QUICK),
        ("mnist_exp.compare",),
        ("mnist_exp.rerun", "0" * 32),
        ("mnist_exp.predict", "0" * 32, "a.png"),
    ):
        done = in_process(*arguments, cwd=tmp_path, module=module, **environment)
        assert done.returncode == 1
        assert module == "mnist_exp.predict" or f"{used_server}/" in done.stderr
        assert_no_secret(tmp_path, done.stdout, done.stderr)


def test_a_notebook_shows_none_in_the_errors_behind_an_error(used_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{with_login(used_server)}/?token=qu3ry-secret")
    with pytest.raises(InputError) as caught:
        run(*QUICK)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.fast
@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--cfg", "job", "--resolve"), ("--info", "all")])
def test_hydra_shows_none(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = in_process(*flags, cwd=tmp_path, MLFLOW_TRACKING_URI="mysql://somebody:hunter2@h")
    assert done.returncode == 0, done.stderr
    assert "tracking" in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


def test_what_a_run_stores_has_none(tmp_path: Path, used_server: str, used_folder: Path) -> None:
    diverging = ("optimizer=sgd", "optimizer.learning_rate=1e30", "model.activation=linear")
    for arguments in (QUICK, (*QUICK, *diverging), ("-m", *QUICK, "seed=0,1")):
        in_process(*arguments, cwd=tmp_path, MLFLOW_TRACKING_URI=with_login(used_server))
    client = MlflowClient(used_server)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert len(runs) >= 5
    for recorded in runs:
        assert not any(secret in str(recorded.to_dictionary()) for secret in SECRETS)
    assert_no_secret(tmp_path)
    assert_no_secret(used_folder)  # the server keeps its artifacts there
