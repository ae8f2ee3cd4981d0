"""Run a sweep from start to end: Hydra runs its jobs, and they are ranked."""

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from mnist_exp import signals
from mnist_exp.config.backend import choose_backend, compute_with_one_thread
from mnist_exp.config.checks import check
from mnist_exp.config.files import read_text, write_text
from mnist_exp.config.hydra_api import JobLoader, launch_jobs
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.config.overrides import pick_values, quote
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.presets import parse_values
from mnist_exp.config.schema import objective_direction
from mnist_exp.ends import as_folder_error, find_end
from mnist_exp.errors import InputError
from mnist_exp.experiment import Experiment, Sweep, SweepResult, identity, signature
from mnist_exp.resume import claim, find_earlier, make_record, resume
from mnist_exp.runner import complete, identify
from mnist_exp.sweeps.formats import as_csv
from mnist_exp.sweeps.jobs import Propose, SweepProgress, Task
from mnist_exp.sweeps.kind import Kind
from mnist_exp.sweeps.outcome import make_sweep_table
from mnist_exp.sweeps.progress import Progress, announce
from mnist_exp.sweeps.table import Table
from mnist_exp.tracking.environment import sweep_record
from mnist_exp.tracking.folder import Folder, relative_path
from mnist_exp.tracking.locks import working
from mnist_exp.tracking.record import failure_reason
from mnist_exp.tracking.records import Record
from mnist_exp.tracking.sweep_record import SweepRecord
from mnist_exp.tracking.tracker import open_sweep
from mnist_exp.training.split import load_data

log = logging.getLogger(__name__)


def run_planned(sweep: Sweep, kind: Kind, overrides: Sequence[str], loader: JobLoader) -> SweepResult:
    """Run a sweep's plan, and rank the jobs, however the sweep ends.

    Args:
        sweep: the checked settings.
        kind: a grid, a race or a search.
        overrides: of the command, for messages and the record.
        loader: loads the configuration of each job.

    Raises:
        InputError: if the store cannot be reached or written.
    """
    choose_backend(sweep.config.backend)
    same = signature([identity(sweep.config), sweep.swept, kind.signature()])
    with ExitStack() as opened:
        if sweep.config.resume:
            wanted = sweep_record(sweep, same)
            answer = opened.enter_context(claim(same, wanted, sweep.folder, partial(announce, sweep)))
            if answer.folder is not None:
                sweep = replace(sweep, folder=answer.folder.path, resumes=True)
        else:
            opened.enter_context(working(sweep.folder))
        record = opened.enter_context(open_sweep(sweep, same))
        return _run_and_rank(sweep, kind, record, overrides, loader)


def _run_and_rank(
    sweep: Sweep, kind: Kind, record: SweepRecord, overrides: Sequence[str], loader: JobLoader
) -> SweepResult:
    stage = SweepProgress(jobs=kind.jobs)
    try:
        announce(sweep, kind.opening())
        before, line = _find_finished(sweep, kind, record) if sweep.config.resume else (0, "")
        if line:
            announce(sweep, line)
        task = Task(record.parent, stage, sweep.config.code, _proposals(sweep, kind, record, stage))
        try:
            with Progress(record, sweep, kind, stage, before):
                launch_jobs(compose_values([*overrides, *_settings(sweep)]), loader, task)
        except ValueError as error:
            if len(sweep.launcher) == 1 or record.jobs():  # it has no settings but _target_
                raise
            raise InputError(f"hydra.launcher: {next(iter(str(error).splitlines()), error)}") from error
        return _finish(sweep, kind, record, stage)
    except BaseException as error:
        with signals.shield_end():
            _end_early(sweep, kind, record, error)
        failure = as_folder_error(error, sweep.folder)
        if failure is not error:
            raise failure from None
        raise


def _find_finished(sweep: Sweep, kind: Kind, record: SweepRecord) -> tuple[int, str]:
    """Return how many jobs had finished, and a line on them or on the first new one."""
    compute_with_one_thread()  # before a dataset imports TensorFlow
    known = [found for config in sweep.configs if (found := identify(config, record.parent)) is not None]
    finished = [job for job in record.jobs() if job.status == "FINISHED"]
    data = {identity.data for identity in known}
    if number := sum((job.is_whole and job.digest in data) or not (kind.goes_back and data) for job in finished):
        return number, f"{number} of {'its jobs' if kind.is_open else max(number, kind.jobs)} finished before"
    if sweep.resumes and not finished:
        return 0, f"The sweep in {relative_path(sweep.folder)} goes on; none of its jobs finished before"
    if not known:
        return 0, ""
    wanted = make_record(Experiment(sweep.config, sweep.overrides, sweep.folder), known[0])
    answer = resume(find_earlier(known[0].key, wanted, or_newest=True), wanted)
    return 0, f"none finished before: {answer.line}" if answer.state == "new" else ""


def _proposals(sweep: Sweep, kind: Kind, record: SweepRecord, stage: SweepProgress) -> Propose:
    """Return a function that gets the next jobs from the kind, given the ended ones."""
    earlier = [job for job in record.jobs() if job.status in {"FINISHED", "KILLED"}] if kind.draws else []
    direction, launched = objective_direction(sweep.config), list[dict[str, str]]()

    def propose() -> Sequence[Sequence[str]] | None:
        finished = {frozenset(job.values.items()): job for job in record.jobs() if job.status == "FINISHED"}
        failed = Record("", {}, status="FAILED")
        ended = [finished.get(frozenset(values.items())) or failed.with_values(values) for values in launched]
        jobs = kind.propose([*earlier, *ended], direction)
        stage.news += kind.report(sweep.folder)
        launched.extend(pick_values(record.parent.keys, job) for job in jobs or ())
        stage.jobs = max(stage.jobs, len(launched))
        return jobs

    return propose


def _settings(sweep: Sweep) -> list[str]:
    """Return overrides for Hydra beside those typed."""
    settings = [f"hydra.sweep.dir={quote(str(sweep.folder))}"]
    ray = sweep.launcher.get("ray")
    if ray is not None and "working_dir" not in (ray["init"].get("runtime_env") or {}):
        # By default, Ray's workers import from the current folder.
        empty = sweep.folder / ".ray"
        empty.mkdir(exist_ok=True)
        settings.append(f"+hydra.launcher.ray.init.runtime_env.working_dir={quote(str(empty))}")
    return settings


def _end_early(sweep: Sweep, kind: Kind, record: SweepRecord, error: BaseException) -> None:
    """Close a sweep after a signal, or an error of a launcher."""
    status = find_end(error).status
    try:
        record.close_jobs(status)
        outcome = make_sweep_table(sweep, record, record.jobs(), kind)
        try:
            _draw(sweep, record, outcome)
        except Exception as second:
            announce(sweep, f"The report could not be written: {failure_reason(second)}", sys.stderr)
        record.end(status, outcome.markdown)
        _show(sweep, outcome)  # only now, as the terminal may be gone
        _print_location(sweep, record)
    except Exception as second:  # the first error is the one to show
        announce(sweep, f"The sweep could not be closed as {status}: {failure_reason(second)}", sys.stderr)
    announce(sweep, f"The sweep is {status}; the same command with resume=true continues it", sys.stderr)


def _finish(sweep: Sweep, kind: Kind, record: SweepRecord, stage: SweepProgress) -> SweepResult:
    record.close_jobs()
    record.settle()
    jobs = [job for job in record.jobs() if kind.goes_back or job.status != "KILLED"]
    outcome = make_sweep_table(sweep, record, jobs, kind)
    _show(sweep, outcome)
    _draw(sweep, record, outcome)
    record.log_scores(outcome.scores())
    complete_best = partial(_complete, sweep.config.code)
    if (best := outcome.best) is not None:
        record.log_best(best, complete_best)
    unfinished = kind.count_unfinished(jobs, stage.jobs)
    record.end("FAILED" if unfinished else "FINISHED", outcome.markdown)
    _print_location(sweep, record)
    run_id = record.parent.run_id or None
    return SweepResult(outcome.records, outcome.verdict, run_id, sweep.folder, stage.jobs, unfinished)


def _show(sweep: Sweep, outcome: Table) -> None:
    """Print a ranking, and log its verdict."""
    if sweep.verbose:
        print(f"\n{outcome.text()}")
    if outcome.verdict:
        log.info("%s", outcome.verdict, extra={"output": sweep.folder})


def _draw(sweep: Sweep, record: SweepRecord, outcome: Table) -> None:
    """Write `ranking.csv`, `figures/` and `report.html`."""
    from mnist_exp.sweeps.page import write_report  # imports matplotlib

    write_text(sweep.folder / "ranking.csv", as_csv(outcome.records))
    write_report(sweep, record, outcome)


def _print_location(sweep: Sweep, record: SweepRecord) -> None:
    if (report := sweep.folder / "report.html").exists():
        announce(sweep, f"Report: {relative_path(report)}")
    announce(sweep, record.describe())


def _complete(code: CodeFile | None, folder: Folder) -> None:
    """Make a job's figures, predictions, and model for the store, in its folder."""
    from mnist_exp.training import saved_models

    path = folder.path / "config.yaml"
    data = load_data(check(parse_values(read_text(path, folder=folder.path), str(path)), code).dataset)
    complete(folder, data, saved_models.load(folder.path / "model.keras", code, folder.path))
