"""Press Ctrl-C in a sweep on two nodes of Ray, or kill one of them; they share files, and no process sees the other's.

A try takes minutes.
"""

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from signal import SIGINT
from time import monotonic, sleep

from mlflow import MlflowClient

from mnist_exp.tracking.folder import Folder

from ..conftest import alone_with_ray, installed, serving
from . import namespaces
from .left import THE_SWEEP, Found, finished_once, left, runs_of_folders
from .process import Fault, Process, environment
from .table import Row, row

OWN = (*namespaces.OWN, "--mount", "--uts", "--kill-child")
SECOND = "second"  # the host name of the second node
RAY = str(Path(sys.executable).with_name("ray"))
NODE = ("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block")
JOBS, EPOCHS = 4, 60
SWEEP = (
    *("-m", f"seed=range({JOBS})", "dataset.limit=2000", "training.batch_size=10", f"training.epochs={EPOCHS}"),
    *("hydra/launcher=ray", "hydra.launcher.ray.init.address=auto", "tracking=server"),
)
STARTS = 3  # of a node, since Ray gives its helpers 15 seconds, which a busy machine may need
SECONDS_TO_SEE = 10  # a job on another node then knows that the sweep has ended


@dataclass(frozen=True)
class Cluster:
    """Two nodes, of which the second is to be killed, and the folder of a sweep with its store."""

    folder: Path
    client: MlflowClient
    second: subprocess.Popen[bytes]
    variables: tuple[str, ...]
    started: list[Process] = field(default_factory=list)

    def sweep(self, *more: str) -> Process:
        """Start the sweep, or go on with it."""
        self.started.append(Process((*SWEEP, *more), self.folder, at=("env", *self.variables)))
        return self.started[-1]

    def train(self) -> bool:
        """Return whether a job trains on each node."""
        return self.nodes("RUNNING") == {True, False}

    def nodes(self, status: str) -> set[bool]:
        """Return whether jobs with a status and an epoch were on the second node."""
        runs = [run for run in runs_of_folders(self.folder) if run.job != THE_SWEEP and run.points]
        hosts = {Folder(run.files).read().tags["mnist_exp.host"] for run in runs if run.status == status}
        return {host == SECOND for host in hosts}

    def running(self) -> list[str]:
        """Return the runs of folders and store that are RUNNING."""
        return left(self.folder, None, self.client).get("running", [])


def tries(count: int, seed: int) -> Iterator[Row]:
    """Try `count` sweeps, beginning with kind `seed`: one is interrupted, two lose a node."""
    if not (namespaces.may() and installed("hydra-ray-launcher")):
        yield Row("ray (skipped: needs hydra-ray-launcher, and the right to make namespaces)", tries=0)
        return
    kinds: tuple[Callable[[Cluster], Row], ...] = (
        interrupted,
        without_a_node,
        partial(without_a_node, typed=("resume=true",)),
    )
    for one_try in islice(cycle(kinds), seed, seed + count):
        with tempfile.TemporaryDirectory(prefix="faults-") as name, serving(Path(name)) as (uri, server):
            threading.Thread(target=list, args=(server.stderr,), daemon=True).start()  # or the pipe would be full
            with alone_with_ray(), two_nodes(Path(name), uri) as cluster:
                yield one_try(cluster)


def interrupted(cluster: Cluster) -> Row:
    """Press Ctrl-C while a job trains on each node, and look whether both see it; then go on."""
    sweep = cluster.sweep()
    sweep.wait_until(cluster.train)
    found: Found = {"wrong": [] if sweep.lives() else ["the sweep ended before Ctrl-C"]}
    sweep.hurt(Fault((SIGINT,)))
    start = monotonic()
    if (code := sweep.end()) != 130:
        found["wrong"].append(f"exit code {code}: {sweep.last_line()}")
    ended = monotonic()
    while (running := cluster.running()) and monotonic() < ended + SECONDS_TO_SEE:
        sleep(1)
    if cluster.nodes("KILLED") != {True, False}:
        found["wrong"].append("no job is KILLED on one of the nodes")
    note = f"ended after {ended - start:.0f} s, its jobs {monotonic() - ended:.0f} s later"
    found["running"] = [f"{line}, after Ctrl-C" for line in running]
    return _resumed("Ctrl-C in a sweep on two nodes", note, cluster, sweep, found)


def without_a_node(cluster: Cluster, typed: tuple[str, ...] = ()) -> Row:
    """Kill the second node while a job trains on each; then go on with the first alone.

    Ray runs the job of the node again, on the other.
    """
    sweep = cluster.sweep(*typed)
    sweep.wait_until(cluster.train)
    found: Found = {"wrong": [] if sweep.lives() else ["the sweep ended before the node"]}
    cluster.second.kill()
    start = monotonic()
    code = sweep.end()
    note = f"exit code {code} {monotonic() - start:.0f} s later{f': {sweep.last_line()}' if code else ''}"
    return _resumed(", ".join(("a node of two is killed", *typed)), note, cluster, sweep, found)


def _resumed(what: str, note: str, cluster: Cluster, sweep: Process, found: Found) -> Row:
    """Go on with a sweep, and return what is wrong then: a job that has not finished once, or is open."""
    again = cluster.sweep("resume=true")
    if (code := again.end()) != 0:
        found["wrong"].append(f"exit code {code} of resume=true: {again.last_line()}")
    found["wrong"] += [line for one in (sweep, again) for line in (*one.errors(), *one.remains())]
    for more in (left(cluster.folder, None, cluster.client), finished_once(cluster.folder, JOBS)):
        for count, lines in more.items():
            found.setdefault(count, []).extend(lines)
    counted = row(f"Ray: {what}", found)
    return replace(counted, notes=(note, *counted.notes))


@contextmanager
def two_nodes(root: Path, uri: str) -> Iterator[Cluster]:
    """Start two nodes with a CPU each, and make the folder of the sweep in `root`."""
    [port] = free_ports(1)
    address, folder = f"127.0.0.1:{port}", root / "sweep"
    folder.mkdir()
    named = ("sh", "-c", 'hostname "$0" && exec "$@"', SECOND)
    variables = ("RAY_AUTH_MODE=disabled", f"RAY_ADDRESS={address}", f"MLFLOW_TRACKING_URI={uri}")
    with (
        a_node("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={root}/ray", log=root / "first"),
        a_node(f"--address={address}", "--node-ip-address=127.0.0.2", at=named, log=root / "second") as second,
    ):
        cluster = Cluster(folder, MlflowClient(uri), second, variables)
        try:
            yield cluster
        finally:
            for process in cluster.started:
                process.remains(0)


@contextmanager
def a_node(*options: str, log: Path, at: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node in namespaces of its own, in which nothing is left of it in the end."""
    for last in (*[False] * (STARTS - 1), True):
        names = ("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port")
        ports = [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
        with log.open("wb") as file:
            node = subprocess.Popen(
                [*OWN, *at, RAY, "start", *options, *ports, *NODE],
                stdout=file,
                stderr=file,
                env=environment(RAY_AUTH_MODE="disabled"),
                start_new_session=True,
            )
        try:
            while node.poll() is None and b"Ray runtime started" not in log.read_bytes():
                sleep(0.2)
            if node.poll() is None:
                yield node
                return
        finally:
            node.kill()
            node.wait()
        assert not last, log.read_text()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in opened]
    finally:
        for one in opened:
            one.close()
