"""Real data, real stores, real processes: what the tests share."""

import fcntl
import gc
import io
import json
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from mlflow import MlflowClient
from mlflow.entities import Run

import mnist_exp
from mnist_exp.data.datasets import Data
from mnist_exp.data.sources import MnistDataset
from mnist_exp.tracking import store as tracking_store
from mnist_exp.tracking.records import Record, parse_map
from mnist_exp.training.split import load_data

Command = Callable[..., subprocess.CompletedProcess[str]]
SharedFolder = Callable[..., Path]
OnJax = Callable[..., Any]
Server = tuple[str, subprocess.Popen[str]]
Arrays = dict[str, Any]


def recorded_job(
    values: Mapping[str, str],
    status: str = "FINISHED",
    objective: float | None = None,
    scores: Mapping[str, float] | None = None,
    seconds: float | None = None,
    *,
    reason: str = "",
    pruned: int | None = None,
    **fields: Any,
) -> Record:
    """Return the record of a job with the values that vary, and further fields."""
    facts = {"error": reason, "pruned": pruned, "swept": json.dumps(dict(values))}
    tags = {f"mnist_exp.{name}": str(fact) for name, fact in facts.items() if fact not in ("", None)}
    ends = {"objective": objective, "fit_seconds": seconds, **(scores or {})}
    found = {name: score for name, score in ends.items() if score is not None}
    return Record("job", tags, status=status, scores=found, **fields)


def facts(run: Run) -> dict[str, str]:
    """Return the tags of this project's that a store has of a run, without their prefix, and those within `record`."""
    tags = {key.removeprefix("mnist_exp."): value for key, value in run.data.tags.items()}
    return tags | parse_map(tags.get("record", ""))


# Two epochs on a slice of MNIST: for tests that need a whole run, not a good one.
QUICK = ("dataset.limit=2000", "training.epochs=2", "training.batch_size=100")
# The sweep that the README types, on few images.
SIX = (
    "model.hidden=16,32,64",
    "model.activation=sigmoid,relu",
    "dataset.limit=2000",
    "training.batch_size=50",
    "training.epochs=6",
)


# The longest tests, which come first, so that at the end no worker waits long for the other.
LONGEST = ("reads_drawn_digits", "what_a_page_shows", "what_help_shows", "first_commands_of_the_readme")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what XLA compiles for the next test and the next time, which halves the time of a test on JAX.

    MLflow's servers start six processes each for jobs, which no test has. A file that is named runs whole, but for what
    is for a release.
    """
    typed = config.invocation_params.args
    if any(".py" in text for text in typed) and not any(text.startswith("-m") for text in typed):
        config.option.markexpr = "not release"
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    if (cache := getattr(config, "cache", None)) is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, and beside each other those that share what takes long to make, so that one worker does.

    Examples in docstrings are fast, but for those of `training/`, which brings TensorFlow.
    """
    for fixture in ("sweep_folder", "on_jax", "used_server"):
        items.sort(key=lambda item: fixture not in getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: not any(name in item.name for name in LONGEST))
    for item in items:
        if isinstance(item, pytest.DoctestItem) and "training" not in item.path.parts:
            item.add_marker(pytest.mark.fast)


make_tables = tracking_store.make_tables


@cache
def _new_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        make_tables(f"sqlite:///{path}")
        return path.read_bytes()


def _copy_tables(uri: str) -> None:
    Path(uri.removeprefix("sqlite:///")).write_bytes(_new_store())


# MLflow's migrations, which take a second, make the first store of a worker; the others are copies.
tracking_store.make_tables = _copy_tables


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write below the folder that they start in."""
    monkeypatch.chdir(tmp_path)
    for variable in ("KERAS_BACKEND", "MLFLOW_TRACKING_URI", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def installed(distribution: str) -> bool:
    """Whether an extra's package is there."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def start(*arguments: str, cwd: Path, module: str = "mnist_exp", **env: str) -> subprocess.Popen[str]:
    """Start `python -m mnist_exp` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(mnist_exp.__file__).parents[1]), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*arguments: str, cwd: Path, module: str = "mnist_exp", **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m mnist_exp` to its end."""
    process = start(*arguments, cwd=cwd, module=module, **env)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


class Terminal(io.StringIO):
    """What a program takes for a terminal, and draws its progress on."""

    def isatty(self) -> bool:
        return True


def in_process(*arguments: str, cwd: Path, module: str = "mnist_exp", **env: str) -> subprocess.CompletedProcess[str]:
    """Run what `command` does, to its end, in this process, which has imported TensorFlow and MLflow already.

    For all but what an own process is part of: signals, threads, imports, another backend, what C++ prints. With
    `COLUMNS`, it prints on a terminal of that width.
    """
    program = [f"-m {module}", *arguments]
    screen = Terminal if "COLUMNS" in env else io.StringIO
    stdout, stderr, status = screen(), screen(), 0
    with _process_as_it_was(), chdir(cwd), redirect_stdout(stdout), redirect_stderr(stderr):
        os.environ.update(env)
        sys.argv = program
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):  # Python does so when it ends
                print(end.code, file=sys.stderr)
    return subprocess.CompletedProcess(program, status, stdout.getvalue(), stderr.getvalue())


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Take away what Hydra keeps of an earlier command; put back what a command sets for a whole process."""
    environment, arguments, thresholds = dict(os.environ), sys.argv, gc.get_threshold()
    of_hydra = dict(Singleton._instances)
    # When Hydra sets logging up, it closes all handlers, and absl's, which TensorFlow brings, closes pytest's streams.
    logging_handlers = logging._handlerList[:]  # type: ignore[attr-defined]
    logging._handlerList.clear()  # type: ignore[attr-defined]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for kind in (GlobalHydra, HydraConfig):
        Singleton._instances.pop(kind, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = arguments
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        logging._handlerList[:] = logging_handlers  # type: ignore[attr-defined]
        for number, handler in handlers.items():
            signal.signal(number, handler)
        Singleton._instances.clear()
        Singleton._instances.update(of_hydra)


@pytest.fixture(scope="session")
def on_jax() -> Iterator[OnJax]:
    """Calls a function, with arguments, in a process of this session whose Keras runs on JAX."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:

        def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            return pool.submit(_in_folder, Path.cwd(), function, *arguments, **named).result()

        yield call


def _in_folder(folder: Path, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    os.chdir(folder)
    os.environ["KERAS_BACKEND"] = "jax"
    return function(*arguments, **named)


@pytest.fixture
def jax_command(on_jax: OnJax) -> Command:
    """Runs a command as `in_process` does, in that process."""
    return partial(on_jax, in_process)


def runs_in(folder: Path, experiment: str = "mnist_exp") -> list[Run]:
    """All runs of the store in `folder`, oldest first."""
    client = store(folder)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time"]))


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    """Read the process's output up to a line that starts with `beginning`."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    pytest.fail(f"no line starts with {beginning}; stderr: {process.communicate()[1]}")


@pytest.fixture(scope="session")
def mnist() -> Data:
    """All of MNIST, the test set watched."""
    return load_data(MnistDataset(kind="mnist", validation="test", limit=None, seed=0))


@pytest.fixture
def small(mnist: Data) -> Arrays:
    """The first images of MNIST, in the form of an npz file."""
    return {
        "x_train": mnist.x_train[:200],
        "y_train": mnist.y_train[:200].astype(np.uint8),
        "x_test": mnist.x_test[:100],
        "y_test": mnist.y_test[:100].astype(np.uint8),
    }


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> SharedFolder:
    """Makes a folder in which a command ran once, whichever of pytest-xdist's workers asks for it first."""
    own = tmp_path_factory.getbasetemp()
    root = own if worker_id == "master" else own.parent

    def share(name: str, run: Command, *arguments: str) -> Path:
        folder = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                folder.mkdir()
                done = run(*arguments, cwd=folder)
                assert done.returncode == 0, done.stderr
                (folder / "stdout").write_text(done.stdout)
                (folder / "stderr").write_text(done.stderr)
        assert (folder / "stderr").exists(), "the command failed in another worker"
        return folder

    return share


@pytest.fixture(scope="session")
def tracked_folder(shared_folder: SharedFolder) -> Path:
    """A folder in which `python -m mnist_exp` ran the baseline once, with its store."""
    return shared_folder("baseline", command, "tracking.note=first", "tracking.tags={team: vision}")


@pytest.fixture(scope="session")
def quick_folder(shared_folder: SharedFolder) -> Path:
    """A folder in which a network was trained on few images, with its store."""
    return shared_folder("quick", in_process, *QUICK)


@pytest.fixture(scope="session")
def sweep_folder(shared_folder: SharedFolder) -> Path:
    """A folder in which six networks were compared."""
    return shared_folder("sweep", command, "-m", *SIX)


def sweep_in(folder: Path, experiment: str = "mnist_exp") -> tuple[Run, list[Run]]:
    """The one parent run of the store in `folder`, and its jobs, oldest first."""
    recorded = runs_in(folder, experiment)
    [parent] = [run for run in recorded if "mnist_exp.sweep" in run.data.tags]
    return parent, [run for run in recorded if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    """The paths of all artifacts of a run, but for what a checkout has that was changed."""
    found: set[str] = set()
    for item in client.list_artifacts(run_id, folder):
        found |= artifacts(client, run_id, item.path) if item.is_dir else {item.path}
    return found - {"code.patch"}


def store(folder: Path) -> MlflowClient:
    """The store in `folder`."""
    return MlflowClient(f"sqlite:///{folder.absolute()}/mlflow.db")


def wait_until_an_epoch_is_recorded(folder: Path, seconds: float = 300.0) -> None:
    """Until a run that is not over has a metric."""
    client, deadline = store(folder), time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = client.get_experiment_by_name("mnist_exp")
        running = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'") if found else []
        if any("loss" in run.data.metrics for run in running):
            return
    pytest.fail("no epoch was recorded")


@contextmanager
def alone_with_ray() -> Iterator[None]:
    """Let one test at a time use Ray, which joins a cluster that it finds and stops all that run on a machine."""
    with (Path(tempfile.gettempdir()) / "mnist_exp-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of `used_server` keeps what it gets."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def used_server(used_folder: Path) -> Iterator[str]:
    """The address of an MLflow server that goes on: one for all tests that end none."""
    with serving(used_folder) as (uri, _):
        yield uri


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An MLflow server of a test's own."""
    with serving(tmp_path) as started:
        yield started


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """An MLflow server in a folder: its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stderr is not None
    try:
        next(line for line in server.stderr if "Uvicorn running on" in line)
        yield uri, server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
