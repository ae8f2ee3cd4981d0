"""Which runs measure the same, so that they can be ranked together. Imports nothing heavy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from mnist_exp.config.overrides import flatten
from mnist_exp.config.schema import Config
from mnist_exp.errors import InputError, show
from mnist_exp.tracking.job import digest_of_test_set

_FIXED = {"mnist", "npz", "idx", "keras"}  # datasets of which the seed does not choose the test set


def part_measured(objective: str, values: Mapping[str, str]) -> str:
    """Return on which images an objective is measured, `training`, `validation` or `test`, given a configuration.

    >>> part_measured("val_accuracy", {"dataset.validation": "test"})
    'test'
    """
    if objective.startswith("test_"):
        return "test"
    if objective.startswith("val_"):
        return "test" if values.get("dataset.validation") == "test" else "validation"
    return "training"


def measured(
    objective: str, values: Mapping[str, str], data: Mapping[str, str] | None, tests: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what must be equal in two runs so that their objectives can be compared, as far as it is known.

    Args:
        objective: the metric.
        values: the configuration, by full key.
        data: recorded data, empty if it is unknown; None before it is read, so that the keys of the dataset count.
        tests: digests of test sets, by those of all data, for data that was recorded without.
    """
    part = part_measured(objective, values)
    keys: list[str] = []
    if not objective.startswith("test_"):
        keys.append("dataset.validation")
    if part != "test":
        keys.append("dataset.limit")
        if values.get("dataset.validation") != "test":
            keys.append("dataset.seed")
    if data is None:
        apart = {"dataset.validation", "dataset.limit"}
        if values.get("dataset.kind") in _FIXED:
            apart.add("dataset.seed")
        keys += [key for key in values if key.startswith("dataset.") and key not in {*apart, *keys}]
    metric = objective.removeprefix("val_").removeprefix("test_")
    if metric not in {"loss", "accuracy"}:
        keys.append("training.metrics")
    same = {key: values[key] for key in keys if key in values}
    if metric == "loss":
        loss = {key: value for key, value in values.items() if f"{key}.".startswith("training.loss.")}
        same |= {"training.loss": " ".join("=".join([key[14:], value]).lstrip("=") for key, value in loss.items())}
    if digest := (data or {}).get("digest"):
        test = digest_of_test_set(data) or (tests or {}).get(digest, digest)
        same |= {"test_set": test} if part == "test" else {"data": digest}
    return same


def known_test_sets(data: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the digests of test sets, by those of all data, as far as they were recorded."""
    return {one["digest"]: test for one in data if (test := digest_of_test_set(one))}


def varying(found: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the different values of each key that not all have alike; who lacks a key does not differ in it."""
    values: dict[str, dict[str, None]] = {}
    for one in found:
        for key, value in one.items():
            values.setdefault(key, {})[value] = None
    return {key: list(several) for key, several in values.items() if len(several) > 1}


def why_not_compared(objective: str, configs: Sequence[Config], data: Iterable[Mapping[str, str] | None]) -> str:
    """Return a sentence if the jobs of a sweep do not measure the same, or nothing.

    `configs`: one for each value that varies; `data`: of the jobs that ran.
    """
    values, recorded = [_values(config) for config in configs], [one for one in data if one]
    tests = known_test_sets(recorded)
    known = [measured(objective, one, {}) for one in values]
    known += [measured(objective, values[0], one, tests) for one in recorded]
    if not (keys := varying(known)):
        return ""
    how = "in different ways" if keys.keys() <= {"training.loss", "training.metrics"} else "on different images"
    what = " and ".join(keys) + (" vary" if len(keys) > 1 else " varies")
    return f"The rows are not compared, since they are measured {how}: {what}."


def check_alike(configs: Sequence[Config]) -> None:
    """Raise InputError if a race with these configurations would compare what does not measure the same."""
    objective = configs[0].objective
    for key, values in varying(measured(objective, _values(config), None) for config in configs).items():
        what = "in different ways" if key.startswith("training.") else "on different images"
        raise InputError(
            f"{key}={show(','.join(values))}: must have one value in a race, or {objective} is measured {what}; a "
            "sweep without sweep=race may vary it"
        )


def _values(config: Config) -> dict[str, str]:
    training = {"loss": config.training.loss, "metrics": config.training.metrics}
    return flatten({"dataset": asdict(config.dataset), "training": training})
