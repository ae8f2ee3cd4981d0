"""What `resume=true` makes of a run, a job or a sweep: it has finished, goes on, still runs, or is new."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mnist_exp.config.files import NoFileError
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Result
from mnist_exp.runner import Identity, identify, run_experiment
from mnist_exp.text import say
from mnist_exp.tracking import index, locks
from mnist_exp.tracking.environment import run_record
from mnist_exp.tracking.folder import Folder, from_here, no_locks, working
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.tracker import send_rest

_SECONDS_BETWEEN_LOOKS = 0.5


Earlier = tuple[Folder, Record]


@dataclass(frozen=True)
class Answer:
    """What is known of a run or a sweep that is wanted.

    Attributes:
        state: what it is.
        folder: the earlier one, which has finished, goes on or still runs; None for a new one.
        line: a sentence for the user; "" if there is nothing to say.
    """

    state: Literal["finished", "resumes", "runs", "new"]
    folder: Folder | None
    line: str = ""


def resume(known: Sequence[Earlier], wanted: Record) -> Answer:
    """Say what to make of a run, a job or a sweep.

    Args:
        known: earlier ones, the newest first.
        wanted: as it would be recorded now, with its signature. A job goes on in its own sweep only.

    Returns:
        The earlier run that has finished; else one that still runs; else the newest that was interrupted and has the
        same number of threads, if possible after a checkpoint; else why it is new. A sweep that ended goes on, too.
    """
    # What was interrupted before its data were known has no signature.
    same = [(folder, record) for folder, record in known if record.signature in (wanted.signature, "")]
    is_sweep = wanted.is_sweep
    if not is_sweep and (done := [folder for folder, record in same if record.is_whole]):
        return Answer("finished", done[0])
    sweep = wanted.fact("parent")
    if runs := [one for one in same if one[1].status == "RUNNING" and not one[0].is_left(sweep)]:
        folder, record = runs[0]
        what = f"{'still runs' if is_sweep else 'still trains'}, in process {record.fact('process')} on {record.host}"
        return Answer("runs", folder, f"{name_of(record)} {what}; waiting for it")
    of_the_same = [one for one in same if one[1].job == wanted.job]
    left = [one for one in of_the_same if is_sweep or one[1].status in ("RUNNING", "KILLED")]
    left.sort(key=lambda one: one[1].stage == "begun" and not (one[0].path / "checkpoint.npz").exists())
    for folder, record in left:
        if is_sweep or record.fact("threads") == wanted.fact("threads"):
            return Answer("resumes", folder, f"{name_of(record)} was interrupted, and goes on")
    return Answer("new", None, why_new(known, wanted))


def why_new(known: Sequence[Earlier], wanted: Record) -> str:
    """Return which of configuration, data, code, packages and threads differ from those of the nearest earlier run.

    >>> why_new([], Record("run", {}))
    'no earlier run is like it'
    """
    found = [(differences(record, wanted), record) for _, record in known]
    if not found:
        return "no earlier run is like it"
    differing, nearest = min(found, key=lambda one: len(one[0]))
    if not differing:
        return f"{name_of(nearest)} is of another version, or failed"
    listed = " and ".join(filter(None, [", ".join(differing[:-1]), differing[-1]]))
    return f"other {listed} than {name_of(nearest)}"


def differences(earlier: Record, wanted: Record) -> list[str]:
    """Return which of configuration, data, code and packages differ between two runs, or else whether threads do."""

    def packages(record: Record) -> set[str]:
        listed = record.fact("packages").split(", ")
        return {one for one in listed if not one.startswith(("python ", "mnist_exp "))}

    def differ_in(*names: str) -> bool:
        return any(earlier.fact(name) != wanted.fact(name) for name in names)

    differ = {
        "configuration": earlier.parameters != wanted.parameters,
        "data": earlier.digest not in ("", wanted.digest) and wanted.digest != "",
        "code": differ_in("code", "own_code"),
        "packages": packages(earlier) != packages(wanted),
    }
    if not any(differ.values()):  # only then does another number of threads keep a run from going on
        differ = {"number of threads": differ_in("threads")}
    return [name for name, differs in differ.items() if differs]


def name_of(record: Record) -> str:
    """Return what a run or a sweep is called: by its id in a store, or else by its folder."""
    return f"{'sweep' if record.is_sweep else 'run'} {record.run_id or from_here(Path(record.output))}"


def earlier(key: str, wanted: Record, *, prunes: bool = True, or_newest: bool = False) -> list[Earlier]:
    """Return the earlier runs with a key, the newest first, in the store that is wanted.

    One that was pruned but did not end needs `prunes`. Without any, `or_newest` asks for the newest runs of all keys.
    """
    found = []
    for folder in map(Folder, index.find(key) or (index.newest() if or_newest else [])):
        with suppress(InputError):  # it was removed meanwhile
            record = folder.read()
            was_pruned = record.status != "FINISHED" and record.fact("pruned") != ""
            is_alike = record.is_in(wanted.tracking) and record.is_sweep == wanted.is_sweep
            if is_alike and (prunes or not was_pruned):
                found.append((folder, record))
    return found


def wanted_record(experiment: Experiment, identity: Identity) -> Record:
    """Return the record that an experiment would have now, as `resume` takes it."""
    today = run_record(experiment)
    tags = today.tags | {"mnist_exp.signature": identity.signature}
    return replace(today, tags=tags, data={"digest": identity.data})


@contextmanager
def claimed(key: str, wanted: Record, output: Path, say: Callable[[str], object]) -> Iterator[Answer]:
    """Yield what to make of a run or a sweep, and hold the lock of the folder that goes on, or else of the new one.

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
            with index.locked():
                if begins := index.find_beginning(key):
                    answer = Answer("runs", Folder(begins[0]), "the same command begins in another process")
                else:
                    answer = resume(earlier(key, wanted, or_newest=True), wanted)
                if answer.state == "resumes" and answer.folder is not None:
                    work.enter_context(working(answer.folder.path))
                elif answer.state == "new":
                    work.enter_context(working(output))
                    index.add(key, output)
            if answer.state != "runs" or answer.folder is None:
                break
            say(answer.line)
            wait_for(answer.folder)
        yield answer


def wait_for(folder: Folder, sweep: str | None = None) -> None:
    """Wait until nobody works on a run, or it has ended; `sweep` is as for `is_left`.

    Raises:
        InputError: if that cannot be known, since its file system has no locks.
    """
    with locks.held(folder.path) as found:
        if found is None:
            raise InputError(no_locks(folder))
    while not folder.is_left(sweep):
        with suppress(NoFileError):  # it is about to begin
            if folder.read().status != "RUNNING":
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def finish(experiment: Experiment) -> Result | Record:
    """Run an experiment to its end; with `resume`, return the run that has finished it, if any, or go on with one.

    Raises:
        InputError: as `run_experiment` does.
    """
    identity = identify(experiment.config) if experiment.config.resume else None
    if identity is None:  # nothing is looked for, or the run says why its data cannot be read
        return _run(experiment)
    wanted = wanted_record(experiment, identity)
    with claimed(identity.key, wanted, experiment.output, partial(_print, experiment)) as answer:
        if answer.state == "new":
            _print(experiment, f"Starts anew: {answer.line}")
            return _run(experiment)
        assert answer.folder is not None
        with suppress(OSError):
            experiment.output.rmdir()
        if answer.state == "finished":
            _print(experiment, send_rest(experiment.config.tracking, answer.folder))
            return answer.folder.read()
        _print(experiment, answer.line)
        return _run(replace(experiment, output=answer.folder.path, resumes=True))


def _run(experiment: Experiment) -> Result:
    try:
        return run_experiment(experiment)
    except InputError:
        with suppress(OSError):
            experiment.output.rmdir()  # no run needs it
        raise


def load(job: Record, experiment: Experiment) -> Result | None:
    """Return what a finished run of an experiment gave, or None if its files cannot be read here."""
    from mnist_exp.training import saved_models

    folder = Folder(Path(job.output))
    if not folder.has_weights():
        return None
    scores = dict(folder.read().scores)
    objective = scores.pop("objective")
    code = experiment.config.code
    model = saved_models.load(folder.path / "model.keras", code, folder.path)
    return Result(folder.history(), scores, objective, model, job.run_id or None, experiment.config, folder.path)


def _print(experiment: Experiment, text: str) -> None:
    if experiment.prints and text:
        say(f"{text[0].upper()}{text[1:]}")
