"""Decide for `resume=true` whether work has finished, resumes, runs, or is new."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Result
from mnist_exp.runner import Identity, identify, run_experiment
from mnist_exp.text import say
from mnist_exp.tracking import index
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Folder, relative_path
from mnist_exp.tracking.locks import has_no_owner, wait_until_idle, working
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.tracker import send_rest


@dataclass(frozen=True)
class Answer:
    """The state of a wanted run or sweep.

    Attributes:
        state: the answer itself.
        folder: the earlier one, which has finished, goes on or still runs; None for a new one.
        line: a sentence for the user; "" if there is nothing to say.
    """

    state: Literal["finished", "resumes", "runs", "new"]
    folder: Folder | None
    line: str = ""


def resume(known: Sequence[Record], wanted: Record) -> Answer:
    """Decide how to continue a run, a job or a sweep.

    Args:
        known: earlier ones, the newest first.
        wanted: as it would be recorded now, with its signature. A job goes on in its own sweep only.

    Returns:
        The earlier run that has finished; else one that still runs; else the newest that was interrupted and has the
        same number of threads, if possible after a checkpoint; else why it is new. A sweep that ended goes on, too.
    """
    # What was interrupted before its data were known has no signature.
    same = [record for record in known if record.signature in (wanted.signature, "")]
    is_sweep, sweep = wanted.is_sweep, wanted.fact("parent")
    if not is_sweep and (done := [record for record in same if record.is_whole]):
        return Answer("finished", _folder(done[0]))
    for record in same:
        if record.status == "RUNNING" and not has_no_owner(_folder(record), sweep):
            what = "still runs" if is_sweep else "still trains"
            where = f"in process {record.fact('process')} on {record.host}"
            return Answer("runs", _folder(record), f"{run_name(record)} {what}, {where}; waiting for it")
    left = [
        record
        for record in same
        if record.job == wanted.job
        and (is_sweep or (record.status in ("RUNNING", "KILLED") and record.fact("threads") == wanted.fact("threads")))
    ]
    left.sort(key=lambda record: record.stage == "begun" and not (Path(record.output) / "checkpoint.npz").exists())
    if left:
        return Answer("resumes", _folder(left[0]), f"{run_name(left[0])} was interrupted, and goes on")
    return Answer("new", None, why_new(known, wanted))


def why_new(known: Sequence[Record], wanted: Record) -> str:
    """Return the differences from the nearest earlier run, such as code or packages.

    >>> why_new([], Record("run", {}))
    'no earlier run is like it'
    """
    if not known:
        return "no earlier run is like it"
    nearest = min(known, key=lambda record: len(record.differences(wanted)))
    differing = nearest.differences(wanted)
    if not differing:
        return f"{run_name(nearest)} is of another version, or failed"
    listed = " and ".join(filter(None, [", ".join(differing[:-1]), differing[-1]]))
    return f"other {listed} than {run_name(nearest)}"


def run_name(record: Record) -> str:
    """Return the name of a run or sweep for people: its id in a store, or its folder."""
    return f"{'sweep' if record.is_sweep else 'run'} {record.run_id or relative_path(Path(record.output))}"


def _folder(record: Record) -> Folder:
    return Folder(Path(record.output))


def find_earlier(key: str, wanted: Record, *, prunes: bool = True, or_newest: bool = False) -> list[Record]:
    """Return the earlier runs with a key, newest first, in the wanted store.

    Args:
        key: under which a run is listed.
        wanted: the run that is to begin.
        prunes: whether a pruned run is one, too.
        or_newest: whether to return the newest runs of all keys if there is none.
    """
    found = []
    for path in index.find(key) or (index.newest() if or_newest else []):
        with suppress(InputError):  # it was removed meanwhile
            record = Folder(path).read()
            was_pruned = record.status != "FINISHED" and record.fact("pruned") != ""
            is_alike = record.is_in(wanted.tracking) and record.is_sweep == wanted.is_sweep
            if is_alike and (prunes or not was_pruned):
                found.append(record)
    return found


def make_record(experiment: Experiment, identity: Identity) -> Record:
    """Return the record that an experiment would have now, as `resume` takes it."""
    today = run_record(experiment)
    tags = today.tags | {"mnist_exp.signature": identity.signature}
    return replace(today, tags=tags, data={"digest": identity.data})


@contextmanager
def claim(key: str, wanted: Record, output: Path, say: Callable[[str], object]) -> Iterator[Answer]:
    """Lock the folder of a resumed or new run or sweep, and yield how to continue it.

    The key is locked meanwhile, so that two equal commands do not both begin. A run that still runs is waited for.

    Args:
        key: of the run in the index.
        wanted: as for `resume`.
        output: the folder of a new one.
        say: called with a line before waiting.

    Raises:
        InputError: as `working` does, or if an earlier run may still run in a folder without locks.
    """
    with ExitStack() as work:
        while True:
            with index.lock_key():
                if begins := index.find_beginning(key):
                    answer = Answer("runs", Folder(begins[0]), "the same command begins in another process")
                else:
                    answer = resume(find_earlier(key, wanted, or_newest=True), wanted)
                if answer.state == "resumes" and answer.folder is not None:
                    work.enter_context(working(answer.folder.path))
                elif answer.state == "new":
                    work.enter_context(working(output))
                    index.add(key, output)
            if answer.state != "runs" or answer.folder is None:
                break
            say(answer.line)
            wait_until_idle(answer.folder)
        yield answer


def finish(experiment: Experiment) -> Result | Record:
    """Run an experiment to its end, or with `resume` reuse or continue an earlier run.

    Raises:
        InputError: as `run_experiment` does.
    """
    output = experiment.output
    try:
        identity = identify(experiment.config) if experiment.config.resume else None
        if identity is None:  # nothing is looked for, or the run says why its data cannot be read
            return run_experiment(experiment)
        wanted, tell = make_record(experiment, identity), partial(_print, experiment)
        with claim(identity.key, wanted, output, tell) as answer:
            if answer.folder is None:
                tell(f"Starts anew: {answer.line}")
                return run_experiment(experiment)
            if answer.state == "finished":
                tell(send_rest(experiment.config.tracking, answer.folder))
                return answer.folder.read()
            tell(answer.line)
            return run_experiment(replace(experiment, output=answer.folder.path, resumes=True))
    finally:
        with suppress(OSError):
            output.rmdir()  # it is empty if no run needs it


def _print(experiment: Experiment, text: str) -> None:
    if experiment.prints and text:
        say(f"{text[0].upper()}{text[1:]}")
