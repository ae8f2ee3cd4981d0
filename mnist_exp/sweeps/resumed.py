"""What a sweep with `resume=true` need not run again."""

from collections.abc import Sequence

from mnist_exp.config.backend import compute_with_one_thread
from mnist_exp.config.composition import check_job
from mnist_exp.config.hydra_api import JobLoader
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.overrides import values_of
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep
from mnist_exp.resume import earlier, resume, wanted_record
from mnist_exp.runner import identify
from mnist_exp.sweeps.kind import Kind
from mnist_exp.tracking.folder import from_here
from mnist_exp.tracking.sweep_record import SweepRecord
from mnist_exp.training.split import load_data


def find_finished(
    sweep: Sweep, kind: Kind, record: SweepRecord, overrides: Sequence[str], loader: JobLoader
) -> tuple[list[dict[str, str]], str]:
    """Return the values of the jobs that have finished before, and a line that says how many, or why none has.

    Runs of other sweeps, and single ones, are recorded as jobs of this one.
    """
    compute_with_one_thread()  # before a dataset imports TensorFlow
    composed = compose_values(overrides)
    looked_up, found, reasons = [], [], list[str]()
    for job in sweep.first_jobs:
        values = values_of(record.parent.keys, job)
        try:
            config = check_job(loader, composed, job, sweep.config.code)
        except InputError:  # the job itself says why
            continue
        looked_up.append(values)
        if (identity := identify(config, record.parent)) is not None:
            experiment = Experiment(config, sweep.overrides, sweep.folder)
            wanted = wanted_record(experiment, identity)
            answer = resume(earlier(identity.key, wanted, or_newest=not reasons), wanted)
            if answer.state == "finished":
                found.append(values)
            reasons.append(answer.line)
    others = [
        job
        for job in record.jobs()
        if (job.is_whole or (job.status == "FINISHED" and not kind.goes_back)) and job.values not in looked_up
    ]
    data = _digests(sweep) if others or not found else set()
    found += [job.values for job in others if not (data and kind.goes_back) or job.digest in data]
    if found:
        least = "at least " if 0 < len(sweep.first_jobs) < kind.jobs and not kind.is_open else ""
        number = len(found)
        return found, f"{least}{number} of {'its jobs' if kind.is_open else max(number, kind.jobs)} finished before"
    if sweep.resumes and not any(job.status == "FINISHED" for job in record.jobs()):
        return [], f"The sweep in {from_here(sweep.folder)} goes on; none of its jobs finished before"
    reason = next(filter(None, reasons), "")
    return [], f"none finished before: {reason}" if reason else ""


def _digests(sweep: Sweep) -> set[str]:
    """Return the digests of the data of its first job and each other value; empty if some cannot be read."""
    try:
        return {load_data(one).digest for one in {repr(one.dataset): one.dataset for one in sweep.configs}.values()}
    except Exception:  # the user's own code raises anything
        return set()
