"""Say what differs between an earlier run or sweep and today's, which could not use it. Imports nothing heavy."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from mnist_exp.errors import printable
from mnist_exp.tracking.job import swept_values
from mnist_exp.tracking.reading import data_digest, queries_of, recorded_job, search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mnist_exp.tracking.folder import Record

_MOST_SHOWN, _LONGEST = 3, 60  # things of a kind; characters of a value
_LOOKED_AT = 300  # runs or sweeps, each of which takes 6 ms
_NEWEST_FIRST = ("attributes.start_time DESC", 50)


def facts(parameters: Mapping[str, str], tags: Mapping[str, str], data: str) -> dict[str, str]:
    """Return what a record says of parameters, packages, code, each of its files, own code, and data by its digest."""
    packages = [one.rpartition(" ")[::2] for one in tags.get("mnist_exp.packages", "").split(", ") if one]
    codes = {name: tags[f"mnist_exp.{name}"] for name in ("code", "own_code") if f"mnist_exp.{name}" in tags}
    files = swept_values(tags.get("mnist_exp.code_files", "{}"))
    return {**parameters, **dict(packages), **codes, **files, **({"data": data[:12]} if data else {})}


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the keys whose values differ; first those with a value then and now."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return sorted(keys, key=lambda key: not (key in then and key in now))


def in_words(earlier: str, then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what can change a result and differs between the facts of an `earlier` run or sweep and today's, or "".

    >>> in_words("run 3f2a1c22", {"seed": "0", "keras": "3.14"}, {"seed": "0", "keras": "3.15.1"})
    'keras 3.14 in run 3f2a1c22, 3.15.1 now'
    """
    keys = changed(then, now)
    code = [key for key in keys if key.endswith(".py")] if any(key.endswith(".py") for key in then) else []
    code = code or ["something"] * ("code" in keys)  # an older version records no files
    listed = ", ".join(code[:_MOST_SHOWN] + ["more"] * (len(code) > _MOST_SHOWN))
    parts = [f"{listed} differ{'s' * (len(code) == 1)} from the code of {earlier}"] if code else []
    values = [key for key in keys if not key.endswith(".py") and key not in {"code", "python", "mnist_exp"}]
    for key in values[:_MOST_SHOWN]:
        old, new = (known.get(key, "none")[:_LONGEST] for known in (then, now))
        parts.append(f"{key} {old} {'then' if parts else f'in {earlier}'}, {new} now")
    return printable("; ".join(parts) + "; and more" * (len(values) > _MOST_SHOWN))


def why_not_continued(earlier: str, then: "Record", now: "Record") -> str:
    """Return what lets an interrupted run, called `earlier`, not go on as today's, with another number of threads."""
    facts_then, facts_now = (
        facts(one.parameters, one.tags, "") | {"threads": one.tags.get("mnist_exp.threads", "")} for one in (then, now)
    )
    return f"not continued: {in_words(earlier, facts_then, facts_now) or f'{earlier} is of another version'}"


def why_not(client: "MlflowClient", experiment_id: str, record: "Record", data: str) -> str:
    """Return why no finished run counts as one with this record and the data of this digest."""
    typed = _typed(record.tags["mnist_exp.overrides"])
    longest = max((one for one in typed if re.fullmatch(r"[\w.=,/-]+", one)), key=len, default="")
    query = f"attributes.status = 'FINISHED' AND tags.mnist_exp.overrides LIKE '%{longest}%'"
    found = search(client, experiment_id, query, *_NEWEST_FIRST)
    for run in islice(found, _LOOKED_AT):
        tags = run.data.tags
        is_run = "mnist_exp.sweep" not in tags and recorded_job(run).is_whole
        if is_run and _typed(tags.get("mnist_exp.overrides", "?")) == typed:
            earlier, then = f"run {run.info.run_id[:8]}", facts(run.data.params, tags, data_digest(run))
            said = in_words(earlier, then, facts(record.parameters, record.tags, data))
            return said or f"{earlier} is of another version"
    return "no run with these overrides has finished"


def _typed(overrides: str) -> list[str]:
    return sorted(one for one in overrides.split() if not one.startswith("resume="))  # as older runs have it


def why_none(client: "MlflowClient", experiment_id: str, record: "Record", data: set[str]) -> str:
    """Return why no finished job counts as one of the sweep with this record; `data` has the digests of its data.

    It is compared with the newest sweep that varied the same, or else the same keys, and has a finished job.
    """
    varied = swept_values(record.tags["mnist_exp.varied"])
    sweeps = islice(search(client, experiment_id, "tags.mnist_exp.sweep LIKE '%'", *_NEWEST_FIRST), _LOOKED_AT)
    known = [(run, swept_values(run.data.tags.get("mnist_exp.varied", ""))) for run in sweeps]
    alike = [(run, before) for run, before in known if before.keys() == varied.keys()]
    for run, before in sorted(alike, key=lambda one: one[1] != varied):
        if used := _data_of_jobs(client, experiment_id, run):
            old, new = (min(used), min(data)) if not used & data else ("", "")
            then, now = facts(run.data.params, run.data.tags, old), facts(record.parameters, record.tags, new)
            earlier = f"sweep {run.info.run_id[:8]}"
            return in_words(earlier, then, now) or in_words(earlier, before, varied) or f"{earlier} had other jobs"
    return "there is no such sweep with a finished job"


def _data_of_jobs(client: "MlflowClient", experiment_id: str, sweep: "Run") -> set[str]:
    """Return the digests of the data of a sweep's finished jobs, of which the newest are looked at."""
    runs = (run for query in queries_of(sweep) for run in search(client, experiment_id, query, *_NEWEST_FIRST))
    return {data_digest(run) for run in islice(runs, _LOOKED_AT) if recorded_job(run).is_whole}
