"""Past runs are chosen by words: ids, `KEY=VALUE`, and `METRIC>NUMBER`."""

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import Override, refuse_passwords
from mnist_exp.config.parsing import parse
from mnist_exp.config.schema import MLflowTracking, require_store
from mnist_exp.errors import InputError, did_you_mean, format_value
from mnist_exp.sweeps.race import is_race
from mnist_exp.tracking.names import parse_value
from mnist_exp.tracking.reading import find_run, queries_by_id, read_jobs, search
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONDITION = re.compile(r"([^<>=]+)(>=|<=|>|<|=)(.*)", re.DOTALL)
_SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_WHERE = ("tracking", "tracking.uri", "tracking.experiment")
_PROGRAMS_TAGS = ("mlflow.", "mnist_exp.")


@dataclass(frozen=True)
class Condition:
    """A condition on runs: `model.hidden=16,32`, `status=FAILED`, `val_accuracy>0.9`.

    Attributes:
        text: as it was typed.
        name: a key of the configuration or its end, a tag, `status`, or a metric.
        sign: `=`, or how a metric, or a key with a number, compares with the number.
        wanted: the values, one of which a run must have.
    """

    text: str
    name: str
    sign: str
    wanted: tuple[Any, ...]

    def read_value(self, run: Record) -> Any:
        """Return the value of a run, or None."""
        facts = run.parameters | {tag: text for tag, text in run.tags.items() if not tag.startswith(_PROGRAMS_TAGS)}
        facts |= {"status": run.status}
        ends = [key for key in facts if key.endswith(f".{self.name}")]
        keys = [key for key in (self.name, f"{self.name}.kind") if key in facts] or ends[: len(ends) == 1]
        value = _plain(facts[keys[0]]) if keys else None
        if self.sign == "=":
            return value
        number = run.scores.get(self.name, value)
        return number if isinstance(number, int | float) else None

    def holds(self, run: Record) -> bool:
        """Return whether a run fulfils the condition."""
        value = self.read_value(run)
        if value is None or self.sign == "=":
            return value in self.wanted
        return bool(_SIGNS[self.sign](value, self.wanted[0]))


@dataclass(frozen=True)
class Words:
    """The words of a command that choose runs.

    Attributes:
        ids: of runs and sweeps, or their beginnings.
        conditions: all of which must hold.
        tracking: where the runs are.
    """

    ids: Sequence[str]
    conditions: Sequence[Condition]
    tracking: MLflowTracking

    @classmethod
    def parse(cls, typed: Iterable[str]) -> "Words":
        """Parse words, and raise InputError for one that cannot be used."""
        ids: list[str] = []
        conditions: list[Condition] = []
        where: list[str] = []
        for text in typed:
            refuse_passwords([text])
            found = _CONDITION.fullmatch(text)
            if found is None:
                ids.append(text)
            elif found[1] in _WHERE and found[2] == "=":
                where.append(text)
            else:
                conditions.append(_condition(text, *found.groups()))
        if ids and any(Override.parse(text).key == "tracking.experiment" for text in where):
            raise InputError("tracking.experiment: is not used with ids, which are looked up in all experiments")
        return cls(ids, conditions, require_store(compose(where).config.tracking))


@dataclass(frozen=True)
class Found:
    """The chosen runs, and the sweeps that they belong to.

    Attributes:
        runs: at least one, the newest first.
        others: runs of the same sweeps that were not chosen.
        sweeps: the id of its sweep by that of a run.
        races: the ids of those sweeps that are races.
        are_picked: whether somebody chose the runs by more than their age.
    """

    runs: Sequence[Record]
    others: Sequence[Record] = ()
    sweeps: Mapping[str, str] = field(default_factory=dict)
    races: frozenset[str] = frozenset()
    are_picked: bool = False


def find_runs(client: "MlflowClient", words: Words, last: int | None) -> Found:
    """Return the runs that words choose.

    Args:
        client: of the store.
        words: the ids and conditions.
        last: the number of newest runs; None for all.

    Raises:
        InputError: if there are none, or a condition names a key that no run has.
    """
    parents: dict[str, str] = {}
    read: dict[str, Record] = {}

    def fulfil() -> Iterator[Record]:
        for run, sweep in _candidates(client, words, last):
            read[run.run_id], parents[run.run_id] = run, sweep
            if all(condition.holds(run) for condition in words.conditions):
                yield run

    runs = {run.run_id: run for run in (fulfil() if words.ids else islice(fulfil(), last))}
    newest = sorted(runs.values(), key=lambda run: run.start, reverse=True)[:last]
    if not newest:
        raise _nothing(words, list(read.values()))
    are_picked = bool(words.ids or words.conditions)
    ids = {parents[run.run_id] for run in newest if re.fullmatch("[0-9a-f]{32}", parents[run.run_id])}
    experiments = dict.fromkeys(run.tracking["experiment_id"] for run in newest)
    queries = queries_by_id(sorted(ids))
    sweeps = [
        run
        for experiment in experiments
        for query in queries
        for run in search(client, experiment, query)
        if run.is_sweep
    ]
    shown = {run.run_id for run in newest}
    is_part = are_picked or last is not None
    unread = [sweep for sweep in sweeps if is_part and not sweep.run_id.startswith(tuple(words.ids) or "-")]
    jobs = (read if words.ids else {}) | {job.run_id: job for sweep in unread for job in read_jobs(client, sweep)}
    known = {sweep.run_id for sweep in sweeps}
    return Found(
        newest,
        [job for run_id, job in jobs.items() if run_id not in shown],
        {run.run_id: parents[run.run_id] for run in newest if parents[run.run_id] in known},
        frozenset(sweep.run_id for sweep in sweeps if is_race(sweep.fact("varied"))),
        are_picked,
    )


def _candidates(client: "MlflowClient", words: Words, last: int | None) -> Iterator[tuple[Record, str]]:
    """Yield the named runs or all of the experiment, newest first, with sweeps' ids."""
    for run in [find_run(client, words.tracking.uri, run_id) for run_id in words.ids]:
        for job in read_jobs(client, run) if run.is_sweep else [run]:
            yield job, run.run_id if run.is_sweep else job.tags.get("mlflow.parentRunId", "")
    if words.ids:
        return
    experiment = client.get_experiment_by_name(words.tracking.experiment)
    if experiment is None:
        names = ", ".join(experiment.name for experiment in client.search_experiments())
        raise InputError(f"tracking.experiment={words.tracking.experiment}: no such experiment; the store has {names}")
    at_once = 1000 if last is None or words.conditions else min(last + 10, 1000)  # some of them are sweeps
    for run in search(client, experiment.experiment_id, "", "attributes.start_time DESC", at_once):
        if not run.is_sweep:
            yield run, run.tags.get("mlflow.parentRunId", "")


def _condition(text: str, name: str, sign: str, value: str) -> Condition:
    if sign == "=":
        [parsed] = parse([f"{name.strip()}={value}"])
        several = parsed.sweep_string_iterator() if parsed.is_sweep_override() else [format_value(parsed.value())]
        return Condition(text, name.strip(), sign, tuple(map(_plain, several)))
    number = parse_value(value.strip())
    if not isinstance(number, int | float):
        raise InputError(f"{text}: must compare a metric with a number, such as 'val_accuracy>0.9'")
    return Condition(text, name.strip(), sign, (number,))


def _plain(text: str) -> Any:
    value = parse_value(text)
    return value.replace(" ", "").strip("'\"").casefold() if isinstance(value, str) else value


def _nothing(words: Words, read: Sequence[Record]) -> InputError:
    """Return the error that no run fulfils the conditions."""
    for condition in words.conditions:
        if read and all(condition.read_value(run) is None for run in read):
            if condition.sign == "=":
                keys = {key for run in read for key in (*run.parameters, *run.tags)}
                keys = {key for key in keys if not key.startswith(_PROGRAMS_TAGS)}
                names = keys | {key.rpartition(".")[2] for key in keys}
                if any(condition.name in run.scores for run in read):
                    return InputError(
                        f"{condition.text}: is a metric; compare it, such as '{condition.name}>{condition.wanted[0]}'"
                    )
            else:
                names = {name for run in read for name in run.scores}
            known = (
                "--help shows what chooses runs" if condition.sign == "=" else f"there are {', '.join(sorted(names))}"
            )
            quote, (_, sign, value) = "" if condition.sign == "=" else "'", condition.text.partition(condition.sign)
            hint = did_you_mean(condition.name, names, quote, f"{sign}{value}{quote}") or f"; {known}"
            return InputError(f"{condition.text}: no run has {condition.name}{hint}")
    where = " ".join([*words.ids, *(condition.text for condition in words.conditions)])
    return InputError(f"{where or f'tracking.experiment={words.tracking.experiment}'}: there is no such run")
