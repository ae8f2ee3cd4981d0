"""No password reaches a terminal, a file or a store, whatever goes wrong."""

import json
import logging
import os
import shlex
import signal
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import yaml
from mlflow import MlflowClient

from mnist_exp import run
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import quoted
from mnist_exp.config.redaction import SecretsFilter, remember, traceback_text, without_secrets
from mnist_exp.errors import InputError, printable
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
        ("https://me:pa@ss@host/x", "https://host/x"),
        (
            "API request to http://me:secret@h:5/api failed, see http://h",
            "API request to http://h:5/api failed, see http://h",
        ),
        ("postgresql+psycopg://me:secret@/db", "postgresql+psycopg:///db"),
        ("postgresql://me:pa/ss?w#rd@host/db is closed", "postgresql://host/db is closed"),
        ("http://127.0.0.1:5000/#/experiments/1 of me@host", "http://127.0.0.1:5000/#/experiments/1 of me@host"),
        ("http://host/?token=a:b: cannot be read", "http://host/?token=...: cannot be read"),
        ("'https://token@host'", "'https://host'"),
        ("url: /api?token=secret&run_id=1 (Caused by", "url: /api?token=...&run_id=... (Caused by"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("optimizer=sgd: did you mean adam?", "optimizer=sgd: did you mean adam?"),
    ],
)
@pytest.mark.fast
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(InputError(text)) == shown


ODD = [
    "my hunter2 word",
    "my hunter2 word " * 9,
    'it\'s "hunter2"',
    "a/b@hunter2?c#d&e",
    "[hunter2]{x}, y: z",
    "two\nlines of hunter2",
    "pä\x1b\u200bhunter2€😀",
    "100%25 hunter2",
    "back\\slash hunter2",
]


@pytest.mark.fast
@pytest.mark.parametrize("password", ODD)
def test_a_known_address_is_found_however_it_is_written(password: str) -> None:
    address = f"postgresql://somebody:{password}@host/db"
    remember([f"tracking.uri='{address}'"])
    spelled = [
        address, repr(address), json.dumps(address), quoted(address), shlex.quote(address), printable(address),
        quote(address), quote_plus(address), yaml.dump({"uri": address}), yaml.dump([address], allow_unicode=True),
        yaml.dump([address], default_style='"'), f"no host {password.rpartition('@')[2]}",
    ]  # fmt: skip
    shown = [without_secrets(text) for text in spelled]
    assert not [text for text in shown for secret in SECRETS if secret in text]


@pytest.mark.fast
def test_words_that_a_user_or_a_password_is_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEYOND", "ssh://anna@server")
    remember(["tracking.uri=postgresql://mlflow:mlflow@host/db", "tracking.note='see https://wiki/x, or a@b'"])
    text = "tracking=mlflow of /home/anna, see https://wiki/x, or a@b"
    assert without_secrets(text) == text


@pytest.mark.fast
@pytest.mark.parametrize("module", ["mnist_exp", "mnist_exp.sync", "mnist_exp.tidy"])
@pytest.mark.parametrize(
    "typed",
    [
        "tracking.uri=[http://somebody:my hunter2@h/]",
        "tracking.uri={a: http://somebody:my hunter2@h/}",
        "+tracking.uri=[a,http://somebody:my,hunter2@h/]",
        "tracking.uri:http://somebody:my hunter2@h/",
        "tracking.uri = http://somebody:my hunter2@h/",
        f"tracking.uri=http://somebody:hunter2{'x' * 4100}@h/",
        f"tracking.uri=[http://somebody:{'my hunter2 ' * 500}@h/]",
    ],
)
def test_an_address_that_cannot_be_read_is_not_repeated(tmp_path: Path, module: str, typed: str) -> None:
    done = in_process(typed, *["outputs"] * (module == "mnist_exp.tidy"), cwd=tmp_path, module=module)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not any(secret in done.stderr for secret in SECRETS)


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


@pytest.mark.parametrize("override", ["tracking.uri=[{}]", "tracking.urii={}", "tracking.note=[{}", "model.hidden={}"])
@pytest.mark.fast
def test_a_message_about_bad_input_has_none(override: str) -> None:
    for address in ("http://somebody:hunter2@host/?token=qu3ry-secret", *(f"mysql://somebody:{odd}@h" for odd in ODD)):
        with pytest.raises(InputError) as caught:
            compose([override.format(quoted(address))])
        assert not any(secret in str(caught.value) for secret in SECRETS)


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


def test_a_server_that_is_none(tmp_path: Path, used_server: str) -> None:
    """It answers, but with no MLflow behind the address that the query makes of it."""
    uri = used_server
    (tmp_path / "a.png").write_bytes(b"")
    secret = f"{with_login(uri)}/?token=qu3ry-secret"
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_TOKEN": "t0ken-of-mine"}
    for arguments in ((f"tracking.uri='{secret}'",), (f"tracking.uri='{secret}'", "resume=true")):
        done = in_process(*QUICK, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 1
        assert f"tracking.uri={uri}/: " in done.stderr
        assert_no_secret(tmp_path, done.stdout, done.stderr)
    for module in ("compare", "rerun", "predict"):
        names = {"compare": (), "rerun": ("0" * 32,), "predict": ("0" * 32, "a.png")}[module]
        done = in_process(*names, f"tracking.uri='{secret}'", cwd=tmp_path, module=f"mnist_exp.{module}", **environment)
        assert done.returncode == 1
        assert module == "predict" or f"{uri}/" in done.stderr
        assert_no_secret(tmp_path, done.stdout, done.stderr)


def test_a_notebook_shows_none_in_the_errors_behind_an_error(used_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    address = f"tracking.uri='{with_login(used_server)}/?token=qu3ry-secret'"
    with pytest.raises(InputError) as caught:
        run(*QUICK, address)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.fast
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:my hunter2@127.0.0.1:1/db",
        "postgresql://me:12/a'hunter2@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?password='hunter2",
        "postgresql://127.0.0.1:1/db?password=ab)hunter2",
        "postgresql://127.0.0.1:1/db?user=a&password=my hunter2",
        "http://127.0.0.1:1/?hunter2",
        "http://127.0.0.1:1/?a[b]=hunter2",
        "http://127.0.0.1:1/#token=hunter2",
    ],
)
def test_an_address_is_shown_without_them_whatever_they_are(tmp_path: Path, address: str) -> None:
    done = in_process(*QUICK, cwd=tmp_path, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    assert "tracking.uri=" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.mark.fast
@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--cfg", "job", "--resolve"), ("--info", "all")])
def test_hydra_shows_none(tmp_path: Path, flags: tuple[str, ...]) -> None:
    for arguments, variable in (
        ((f"tracking.uri={with_login('http://127.0.0.1:9')}",), ""),
        ((), "http://a:hunter2@h"),
        *(((f"tracking.uri={quoted(f'mysql://somebody:{odd}@h')}",), "") for odd in ODD),
        *(((), f"mysql://somebody:{odd}@h") for odd in ODD),
    ):
        environment = {"MLFLOW_TRACKING_URI": variable} if variable else {}
        done = in_process(*flags, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        assert "tracking" in done.stdout
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


@pytest.mark.fast
@pytest.mark.parametrize(
    "override", ["hydra.output_subdir=.hydra", "hydra.run.dir='outputs/${hydra.job.override_dirname}'"]
)
def test_hydra_writes_none_down(tmp_path: Path, override: str) -> None:
    done = in_process(override, f"tracking.uri={with_login('http://127.0.0.1:9')}", cwd=tmp_path)
    assert done.returncode == 1
    assert "Hydra would write what you type into a file" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fast
def test_a_sweep_takes_no_password_that_it_would_write_down(tmp_path: Path) -> None:
    for uri in ("http://somebody:hunter2@127.0.0.1:9", "mysql://127.0.0.1/db?password=qu3ry-secret"):
        done = in_process("-m", "seed=0,1", f"tracking.uri='{uri}'", cwd=tmp_path)
        assert done.returncode == 1
        assert "put an address with a password or parameters into MLFLOW_TRACKING_URI" in done.stderr
        assert not any(secret in done.stderr for secret in SECRETS)
    assert list(tmp_path.iterdir()) == []


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
