"""Decide which runs measure the same, so that they can be ranked together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from mnist_exp.config.overrides import flatten
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError, format_value
from mnist_exp.tracking.records import Record


def part_measured(objective: str, values: Mapping[str, str]) -> str:
    """Return the images of an objective: `training`, `validation` or `test`.

    >>> part_measured("val_accuracy", {"dataset.validation": "test"})
    'test'
    """
    if objective.startswith("test_"):
        return "test"
    if objective.startswith("val_"):
        return "test" if values.get("dataset.validation") == "test" else "validation"
    return "training"


def comparison_key(
    objective: str, values: Mapping[str, str], run: Record | None = None, tests: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the known facts that must be equal for objectives to be comparable.

    Args:
        objective: the metric.
        values: the configuration, by full key.
        run: has recorded the data, if it is known.
        tests: digests of test sets, by those of all data, for data that was recorded without.
    """
    part, metric = part_measured(objective, values), objective.removeprefix("val_").removeprefix("test_")
    keys = [] if objective.startswith("test_") else ["dataset.validation"]
    keys += [] if part == "test" else ["dataset.limit", "dataset.seed"]
    keys += [] if metric in {"loss", "accuracy"} else ["training.metrics"]
    same = {key: values[key] for key in keys if key in values}
    if metric == "loss":
        loss = {key: value for key, value in values.items() if f"{key}.".startswith("training.loss.")}
        same["training.loss"] = " ".join("=".join([key[14:], value]).lstrip("=") for key, value in loss.items())
    if run is not None and run.digest:
        test = run.test_digest or (tests or {}).get(run.digest, run.digest)
        same |= {"test_set": test} if part == "test" else {"data": run.digest}
    return same


def find_conflicts(found: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the values of each key whose values differ.

    A record without a key does not differ in it.
    """
    items = dict.fromkeys(item for job in found for item in job.items())
    values = {key: [value for other, value in items if other == key] for key, _ in items}
    return {key: several for key, several in values.items() if len(several) > 1}


def why_not_compared(objective: str, configs: Sequence[Config], jobs: Iterable[Record]) -> str:
    """Return a sentence if the jobs of a sweep do not measure the same, or nothing.

    Args:
        objective: the metric.
        configs: one for each value that varies.
        jobs: that ended.
    """
    values = [flatten(asdict(config)) for config in configs]
    known = [comparison_key(objective, job) for job in values]
    known += [comparison_key(objective, values[0], job) for job in jobs]
    what = " and ".join(keys := find_conflicts(known)) + (" vary" if len(keys) > 1 else " varies")
    return f"The rows are not compared, since they do not measure the same: {what}." if keys else ""


def check_comparable(configs: Sequence[Config]) -> None:
    """Raise InputError if configurations differ in data or in how they measure."""
    objective, values = configs[0].objective, [flatten(asdict(config)) for config in configs]
    data = [{key: value for key, value in job.items() if key.startswith("dataset.")} for job in values]
    for key, several in find_conflicts([comparison_key(objective, job) for job in values] + data).items():
        raise InputError(
            f"{key}={format_value(','.join(several))}: must have one value in a race, whose rows measure the same "
            f"{objective}; a sweep without sweep=race may vary it"
        )
