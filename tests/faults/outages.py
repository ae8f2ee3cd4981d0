"""The store is away, hangs, or answers with errors, at each stage of a run and of a sweep.

A try takes a minute or two; one in which nothing is to come back half a minute more.
"""

import math
import os
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient

from ..conftest import command, serving
from .left import Found, left, runs_of_folders
from .proxy import Fault, Proxy, proxied
from .table import Row, row
from .watched import COMMANDS, SWEEP, Watched, watch

FAULTS = {
    "away for 3 s": Fault("refused", 3),
    "away for 60 s": Fault("refused", 60),
    "away for good": Fault("refused"),
    "hanging": Fault("hanging"),
    "10 % of answers 500": Fault(500, share=0.1),
    "10 % of answers 429": Fault(429, share=0.1),
    "10 % of answers lost": Fault("lost", share=0.1),
}
# The request with which a fault begins.
MOMENTS = {
    "before the start": "",
    "at a job's start": "POST .*/runs/create",
    "in training": r'POST .*/runs/log-batch .*"step": "?[1-9]',
    "while a figure is uploaded": r"PUT .*\.png",
    "while a model is uploaded": "PUT .*/models/",
    "at the end": "POST .*/runs/update .*FINISHED",
}
LONGEST_WAIT = 75  # seconds after the last score: 30 without progress, and those that one request may take
SYNC = "mnist_exp.sync"


def cases(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Return a fault, a moment and a command; after 42, each fault was tried at each moment, after 168 all was."""
    faults, moments, commands = list(FAULTS), list(MOMENTS), list(COMMANDS)
    for number in range(count):
        fault, moment = number % len(faults), number // len(faults) % len(moments)
        turn = fault + moment + number // (len(faults) * len(moments)) + seed
        yield faults[fault], moments[moment], commands[turn % len(commands)]


def tries(count: int, seed: int) -> Iterator[Row]:
    """Try so many outages of a server, then Ctrl-C while a server is waited for."""
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as (uri, server):
        threading.Thread(target=lambda: list(server.stderr or ()), daemon=True).start()  # a full pipe blocks
        for number, (fault, moment, typed) in enumerate(cases(count, seed)):
            folder = Path(name, f"try-{number}")
            folder.mkdir()
            with proxied(uri, seed + number) as proxy:
                yield try_one(proxy, folder, fault, moment, typed)
        for typed in ("run", "sweep")[: 1 + (count > 1)]:
            folder = Path(name, f"ctrl-c {typed}")
            folder.mkdir()
            with proxied(uri) as proxy:
                yield try_ctrl_c(proxy, folder, typed)


def try_one(proxy: Proxy, folder: Path, fault: str, moment: str, typed: str) -> Row:
    """Run a command, of which the store is taken away, then `sync`, and count what is missing."""
    found: Found = defaultdict(list)
    experiment = folder.name
    environment = {"MLFLOW_TRACKING_URI": proxy.uri}
    arguments = (*COMMANDS[typed], f"tracking.experiment={experiment}")
    if typed == "resumed sweep":
        _interrupted(folder, experiment, environment)
    if moment != "before the start":
        of_a_job = " .*parentRunId" if moment == "at a job's start" and typed != "run" else ""
        proxy.fail_at(FAULTS[fault], MOMENTS[moment] + of_a_job)
    else:
        proxy.fail(FAULTS[fault])
    began = time.time()
    ended = watch(*arguments, cwd=folder, environment=environment)
    in_time = proxy.began is not None
    proxy.heal()
    client = MlflowClient(proxy.uri)
    first_contact = moment == "before the start" or (moment == "at a job's start" and typed == "run")
    refused = ended.code == 1 and first_contact
    if refused:
        found["wrong"] += (
            [f"before training: {ended.messages()}"] if len(ended.err) != 1 or _has_trained(folder, began) else []
        )
    else:
        judge(ended, found)
        said = any(SYNC in line for _, line in (*ended.out, *ended.err))
        unsaid = not said and any(left(folder, None, client, experiment).values())
        found["wrong"] += [f"nothing says that python -m {SYNC} sends the rest"] if unsaid else []
        after(folder, client, experiment, found, typed, environment)
    note = f"{fault} {moment}, {typed}: {'refused' if refused else f'exit {ended.code}'}{shown(ended)}"
    found["wrong"] += ["the fault never began"] if not in_time else []
    return row(f"outages: {fault}", found, note)


def _interrupted(folder: Path, experiment: str, environment: dict[str, str]) -> None:
    """Leave a sweep whose first job has ended."""
    watch(
        *SWEEP,
        f"tracking.experiment={experiment}",
        cwd=folder,
        moment=lambda seen: any(line.startswith("1 of 4 done") for _, line in seen.out),
        act=lambda seen: seen.process.send_signal(signal.SIGTERM),
        environment=environment,
    )


def judge(ended: Watched, found: Found) -> None:
    """Count what is wrong with how a command ended whose store was away."""
    if ended.code is None:
        found["wrong"].append(f"had to be killed; {ended.messages()}")
        return
    found["wrong"] += [f"exit {ended.code}: {ended.messages()}"] if ended.code != 0 else []
    found["wrong"] += ["a traceback"] if any("Traceback" in line for _, line in ended.err) else []
    found["wrong"] += ["no scores are shown"] if ended.scores() is None else []
    if (scored := ended.scores()) is not None:
        found["wrong"] += [f"waited {ended.end - scored:.0f} s at the end"] if ended.end - scored > LONGEST_WAIT else []


def after(
    folder: Path, client: MlflowClient, experiment: str, found: Found, typed: str, environment: dict[str, str]
) -> None:
    """Upload the rest, twice, now that the store is back; count what is still missing, and use what there is."""
    jobs = 0 if typed == "run" else 4
    seen = []
    for _ in range(2):
        done = command(cwd=folder, module=SYNC, **environment)
        if done.returncode != 0:
            found["wrong"].append(f"sync: exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
            break
        seen.append(contents(client, experiment))
    found["wrong"] += ["the second sync changed something"] if len(seen) == 2 and seen[0] != seen[1] else []
    for count, lines in left(folder, jobs, client, experiment).items():
        found[count] += lines
    done = command(f"tracking.experiment={experiment}", cwd=folder, module="mnist_exp.compare", **environment)
    found["wrong"] += [f"compare: {done.stderr.strip()[-300:]}"] if done.returncode != 0 else []
    if typed == "run":
        known = client.get_experiment_by_name(experiment)
        runs = client.search_runs([known.experiment_id], order_by=["attributes.start_time"]) if known else []
        done = command(runs[0].info.run_id if runs else "0", cwd=folder, module="mnist_exp.rerun", **environment)
        found["wrong"] += [f"rerun: {done.stdout[-300:]} {done.stderr.strip()[-300:]}"] if done.returncode != 0 else []
    else:
        found["lost"] += ["report.html"] if not any(folder.glob("multirun/*/*/report.html")) else []


def contents(client: MlflowClient, experiment: str) -> list[str]:
    """Return all that a store has of an experiment's runs and models, without the files."""
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return []
    runs = client.search_runs([known.experiment_id], max_results=1000)
    models = client.search_logged_models([known.experiment_id])
    points = [
        sorted(
            (point.step, point.timestamp, str(point.value))
            for point in client.get_metric_history(run.info.run_id, name)
        )
        for run in runs
        for name in sorted(run.data.metrics)
    ]
    return [*(str(run.to_dictionary()) for run in runs), *(str(model.to_dictionary()) for model in models), str(points)]


def try_ctrl_c(proxy: Proxy, folder: Path, typed: str) -> Row:
    """Press Ctrl-C while a command that has shown its scores waits for its store."""
    found: Found = defaultdict(list)
    pressed = 0.0

    def press(seen: Watched) -> None:
        nonlocal pressed
        pressed = time.time()
        seen.process.send_signal(signal.SIGINT)

    def is_waiting(seen: Watched) -> bool:
        ended = [run for run in runs_of_folders(folder) if run.status == "FINISHED"]
        return len(ended) == (1 if typed == "run" else 5) and time.time() > (seen.scores() or math.inf) + 2

    proxy.fail_at(FAULTS["hanging"], MOMENTS["in training"])
    ended = watch(
        *COMMANDS[typed],
        "tracking.experiment=ctrl-c",
        cwd=folder,
        moment=is_waiting,
        act=press,
        environment={"MLFLOW_TRACKING_URI": proxy.uri},
    )
    proxy.heal()
    found["wrong"] += ["no scores are shown, or the store is not waited for"] if not pressed else []
    found["wrong"] += [f"went on for {ended.end - pressed:.0f} s"] if bool(pressed) and ended.end - pressed > 3 else []
    found["wrong"] += [f"exit {ended.code}: {ended.messages()}"] if ended.code not in (0, 130) else []
    return row("outages: Ctrl-C while a server is waited for", found, f"{typed}: exit {ended.code}")


def shown(ended: Watched) -> str:
    """Return how long a command waited after its last score."""
    scored = ended.scores()
    return "" if scored is None else f", {ended.end - scored:.0f} s after the scores"


def _has_trained(folder: Path, since: float) -> bool:
    return any(path.stat().st_mtime > since for path in folder.rglob("metrics.jsonl"))
