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
from mnist_exp.errors import InputError
from mnist_exp.logs import log_file, package_logs
from mnist_exp.text import has_password, redact, traceback_text

from .conftest import QUICK, Server, in_process, installed, start, wait_for_line

pytestmark = pytest.mark.slow

SECRETS = ("hunter2", "t0ken-of-mine", "qu3ry-secret", "somebody")


def with_login(uri: str) -> str:
    return uri.replace("http://", "http://somebody:hunter2@")


def assert_no_secret(folder: Path, *outputs: str) -> None:
    """Look at all that was printed and at every byte of every file below a folder."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in SECRETS:
        assert all(secret not in output for output in outputs), outputs
        assert not any(secret.encode() in content for content in files)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "API request to http://me:secret@h:5/a failed, see http://h",
            "API request to http://h:5/a failed, see http://h",
        ),
        ("postgresql+psycopg://me:secret@/db", "postgresql+psycopg:///db"),
        ("http://127.0.0.1:5000/#/experiments/1 of me@host", "http://127.0.0.1:5000/#/experiments/1 of me@host"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("403: bearer t0ken-of-mine is not known", "403: bearer ... is not known"),
    ],
)
@pytest.mark.fast
def test_text_loses_logins_and_tokens(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    assert redact(text) == shown
    assert str(InputError(text)) == shown


@pytest.mark.fast
@pytest.mark.parametrize("password", ["hunter2%40home", "hunter2@home"])
def test_text_loses_the_password_of_the_environment(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    address = f"postgresql://somebody:{password}@host/db?sslkey=qu3ry-secret"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for text in (f"{address}: no host hunter2@home", "wrong: hunter2%40home", '"hunter2@home", sslkey=qu3ry-secret'):
        assert not any(secret in redact(text) for secret in SECRETS)
    assert redact("tracking=mlflow of anna@home") == "tracking=mlflow of anna@home"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("tracking.uri='http://127.0.0.1:9/?token=hunter2'", True),
        ("tracking.uri=[http://me:my hunter2@h/]", True),
        ("tracking.uri=postgresql://me@home:hunter2@h/db", True),
        ("tracking.uri=postgresql://me:hun/ter2@h/db", True),
        ("tracking.uri=http://anna@h:5000", False),
        ("tracking.note='see http://localhost:5000/#/experiments/1, ask anna@lab.org'", False),
        ("sqlite:////home/me@work/mlflow.db", False),
    ],
)
def test_a_typed_password_is_found(typed: str, *, found: bool) -> None:
    assert has_password(typed) == found


@pytest.mark.fast
@pytest.mark.parametrize(
    ("module", "flag"), [("mnist_exp", ""), ("mnist_exp", "--"), ("mnist_exp.sync", "--"), ("mnist_exp.tidy", "")]
)
def test_a_typed_password_is_refused_and_not_repeated(tmp_path: Path, module: str, flag: str) -> None:
    typed = f"{flag}tracking.urii=http://somebody:hunter2{'x' * 4100}@h/"
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
def test_messages_tracebacks_and_logs_show_no_secret(tmp_path: Path) -> None:
    text = "http://me:hunter2@host\x1b[2J\u202e\u200b\x9b1A\r" + "x" * 10_000
    try:
        raise RuntimeError(f"first\t{text}") from OSError(text)
    except RuntimeError as error:
        shown = traceback_text(error)
        with package_logs(), log_file(tmp_path):
            logging.getLogger("mnist_exp.somewhere").exception("to %s", text)
    log = (tmp_path / "run.log").read_text()
    assert "ERROR to http://host?[2J" in log
    assert all("OSError: http://host?[2J" in text and "hunter2" not in text for text in (log, shown))
    assert all(line.isprintable() for line in (log + shown).split("\n"))
    message = str(InputError(f"key={text}: must be short"))
    assert message.isprintable()
    assert len(message) < 2000
    assert (message[:8], message[-15:]) == ("key=http", ": must be short")


ON_A_CLUSTER = pytest.param(
    ("-m", "training.epochs=2,60", "hydra/launcher=submitit_local"),  # it writes jobs down
    marks=[pytest.mark.release, pytest.mark.skipif(not installed("hydra-submitit-launcher"), reason="needs Submitit")],
)


@pytest.mark.parametrize("typed", [("training.epochs=60",), ("-m", "training.epochs=2,60"), ON_A_CLUSTER])
def test_an_outage_shows_no_password(tmp_path: Path, server: Server, typed: tuple[str, ...]) -> None:
    uri, process = server
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_URI": with_login(uri)}
    training = start(*QUICK, *typed, cwd=tmp_path, **environment)
    wait_for_line(training, "1 of 2 done" if typed[0] == "-m" else "Epoch 3/")
    os.killpg(process.pid, signal.SIGKILL)
    stdout, stderr = training.communicate(timeout=300)
    assert (training.returncode, stderr) == (0, "")
    assert ("2 jobs, largest val_accuracy first" if typed[0] == "-m" else "Epoch 60/60") in stdout
    last = stdout.splitlines()[-1]
    assert last.startswith("Not all of ")
    assert f" has reached {uri} (" in last
    assert last.endswith(f" tracking.uri={uri} sends the rest")
    assert_no_secret(tmp_path, stdout, stderr)


class Refusing(BaseHTTPRequestHandler):
    """A server that knows nobody."""

    def do_GET(self) -> None:
        """Answer as MLflow does where a password is missing or wrong."""
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_wants_a_password_names_the_variables(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        done = in_process(cwd=tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_PASSWORD="hunter2")
        server.shutdown()
    assert done.returncode == 1
    assert done.stderr.startswith(f"tracking.uri={uri}: ")
    assert "401" in done.stderr
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "hunter2" not in done.stderr


def test_no_password_in_error_of_a_foreign_server(
    tmp_path: Path, used_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, but with no MLflow behind the address that the query makes of it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{with_login(used_server)}/?token=qu3ry-secret")
    done = in_process(cwd=tmp_path, module="mnist_exp.compare")
    assert done.returncode == 1
    assert f"{used_server}/" in done.stderr
    with pytest.raises(InputError) as caught:
        run(*QUICK)
    causes = "".join(traceback.format_exception(caught.value))  # a notebook shows them
    assert_no_secret(tmp_path, done.stdout, done.stderr, causes)


@pytest.mark.fast
@pytest.mark.parametrize("flags", [("--cfg", "job", "--resolve"), ("--info", "all")])
def test_no_password_in_hydras_output(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = in_process(*flags, cwd=tmp_path, MLFLOW_TRACKING_URI="mysql://somebody:hunter2@h")
    assert done.returncode == 0, done.stderr
    assert "tracking" in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


def test_no_password_in_a_stored_run(tmp_path: Path, used_server: str, used_folder: Path) -> None:
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
