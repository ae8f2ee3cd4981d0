"""A run as tables and rankings need it, from a folder or a store. Imports nothing heavy."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mnist_exp.errors import printable

REUSED = "mnist_exp.reused."  # begins a sweep's tags for earlier runs that count as its jobs
_LARGEST = 1e50  # its fourth power is a number


@dataclass(frozen=True)
class Job:
    """A run as it was recorded.

    `values` has what varies, by full key. `status` is FINISHED, FAILED, KILLED or RUNNING; unless it is FINISHED,
    `objective` is None and `scores`, the `test_` metrics, are empty. `seconds` is the wall time of `fit`, `reason` a
    line about a failure. A run that was stopped as hopeless has FINISHED, and `pruned` is its last epoch, from 1.
    `run_id` and `parent` are MLflow's, empty without tracking. The files are in `output` on `host`. `data` has the
    `name`, `digest` and `profile` of the dataset, if they are known.
    """

    values: dict[str, str]
    status: str
    objective: float | None = None
    scores: Mapping[str, float] | None = None
    seconds: float | None = None
    reason: str = ""
    run_id: str = ""
    output: str = ""
    host: str = ""
    parent: str = ""
    pruned: int | None = None
    data: Mapping[str, str] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it finished, and was not stopped as hopeless."""
        return self.status == "FINISHED" and self.pruned is None


def make_job(
    tags: Mapping[str, str],
    scores: Mapping[str, float],
    status: str,
    run_id: str = "",
    data: Mapping[str, str] | None = None,
) -> Job:
    """Return a job with these tags, and these scores at its end."""
    finished = status == "FINISHED"
    scores = {name: usable(value) for name, value in scores.items() if isinstance(value, float)}  # or text, in a store
    pruned = tags.get("mnist_exp.pruned", "")
    return Job(
        values=swept_values(tags.get("mnist_exp.swept", "{}")),
        status=status,
        objective=scores.get("objective") if finished else None,
        scores={name: value for name, value in scores.items() if name.startswith("test_")} if finished else {},
        seconds=scores.get("fit_seconds"),
        reason=tags.get("mnist_exp.error", ""),
        run_id=run_id,
        output=tags.get("mnist_exp.output", ""),
        host=tags.get("mnist_exp.host", ""),
        parent=tags.get("mlflow.parentRunId", ""),
        pruned=int(pruned) if finished and re.fullmatch("[0-9]{1,9}", pruned) else None,
        data=data,
    )


def usable(number: float) -> float:
    """Return a number whose square and inverse are numbers, too: zero or infinity where it is out of all proportion.

    >>> usable(0.25), usable(-1e308), usable(5e-324)
    (0.25, -inf, 0.0)
    """
    if abs(number) > _LARGEST:
        return math.copysign(math.inf, number)
    return 0.0 if abs(number) < 1 / _LARGEST else number


def mean(numbers: Sequence[float]) -> float:
    """Return the mean; NaN of plus and minus infinity."""
    return math.nan if {math.inf, -math.inf} <= set(numbers) else fmean(numbers)


def swept_values(tag: str) -> dict[str, str]:
    """Return the map of texts in a tag, such as the values that vary; empty for any other text."""
    return {str(key): str(value) for key, value in _json_map(tag).items()}


def count_images(data: Mapping[str, str] | None, part: str) -> int:
    """Return the number of `training`, `validation` or `test` images in recorded data, or 0 if it is not there.

    >>> count_images({"profile": '{"training": 50000, "validation": 10000, "test": 10000}'}, "test")
    10000
    """
    count = _json_map((data or {}).get("profile", "")).get(part)
    return count if isinstance(count, int) else 0


def digest_of_test_set(data: Mapping[str, str] | None) -> str:
    """Return the digest of the test set in recorded data, or "" if it is not there."""
    return str(_json_map((data or {}).get("profile", "")).get("test_digest", ""))


def advised_validation(jobs: Iterable[Job]) -> str:
    """Return an override that holds out a sixth of the jobs' training images, 10000 at most.

    It is a share where their number is not known, or not the same for all. The jobs have held out none so far.
    """
    match list({count for job in jobs if (count := count_images(job.data, "training"))}):
        case [count] if count > 0:
            return f"dataset.validation={max(1, min(int(float(f'{count / 6:.0e}')), 10_000))}"
    return "dataset.validation=0.2"


def _json_map(text: str) -> dict[str, Any]:
    """Return the map in a JSON text, or an empty one for any other text, which anybody may have written."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def no_formula(text: str) -> str:
    """Return a text on one line, after an apostrophe if a spreadsheet would take it for a formula.

    >>> no_formula("=1+1"), no_formula("-1.5e-3")
    ("'=1+1", '-1.5e-3')
    """
    text = printable(text)
    is_number = re.fullmatch(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", text)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} and not is_number else text


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Map each key to its last part, or to all of it where that is ambiguous.

    >>> short_names(["model.hidden", "seed", "dataset.seed"])
    {'model.hidden': 'hidden', 'seed': 'seed', 'dataset.seed': 'dataset.seed'}
    """
    keys = list(keys)
    lasts = [key.replace("/", ".").rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Map each id to its beginning, eight characters or as many more as tell all of them apart.

    >>> short_ids(["3f2a1c22d5e64f7f", "a7c5b2a13f2a1c22"])
    {'3f2a1c22d5e64f7f': '3f2a1c22', 'a7c5b2a13f2a1c22': 'a7c5b2a1'}
    """
    whole, length = dict.fromkeys(ids), 8
    while len({one[:length] for one in whole}) < len(whole):
        length += 1
    return {one: one[:length] for one in whole}


def job_name(values: Mapping[str, str], keys: Iterable[str]) -> str:
    """Return a job's name, made of the values that vary in its sweep.

    >>> job_name({"model.hidden": "32", "model.activation": "relu"}, ["model.hidden", "model.activation"])
    'hidden=32 activation=relu'
    """
    names = short_names(keys)
    return printable(" ".join(f"{names.get(key, key)}={shown_value(value)}" for key, value in values.items()))


def typed_value(text: str) -> str | float | bool | None:
    """Return the number, true, false or None that a recorded value is, or the text; infinity and NaN are texts.

    >>> [typed_value(text) for text in ("16", "1e-5", "True", "null", "[16, 32]", "016", "1e999")]
    [16, 1e-05, True, None, '[16, 32]', '016', '1e999']
    """
    try:
        value = json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
    is_plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else text


def shown_value(value: str) -> str:
    """Return a value as it is typed, with four digits of a long number, such as a random one."""
    if value in {"True", "False"}:
        return value.lower()
    try:
        return f"{float(value):.4g}" if len(value) > 10 else value
    except ValueError:
        return value
