"""Declare the schema of conf/: types, ranges and marks.

`checks` has the checks between fields.
Defaults are in conf/ only, the keys of datasets in `data/`, those of models in `training/`. `dataclasses.asdict` of a
`Config` has the shape of the YAML.

A key may have marks: `no result` if it cannot change one, `shared` if all jobs of a sweep have it in common, and
`typed` if no preset may set it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

from mnist_exp.config import keras_names, own_code
from mnist_exp.config.conversion import KerasName, OneOf
from mnist_exp.config.overrides import refuse_passwords
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.values import Count, ModelName, PruneSettings, Seconds, Seed, Text
from mnist_exp.data.sources import Dataset, sources
from mnist_exp.errors import InputError
from mnist_exp.training.families import Model, families


def _marks(*names: Literal["no result", "shared", "typed"]) -> dict[str, tuple[str, ...]]:
    return {"marks": names}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    kind: Literal["flatten", "image"]
    scale: bool
    standardize: bool
    one_hot: bool
    augment: list[Annotated[Any, KerasName("augmentations")]]


@dataclass(frozen=True, kw_only=True)
class Training:
    epochs: Count
    batch_size: Count
    shuffle: bool
    loss: Annotated[Any, KerasName("losses")] | None
    metrics: list[Annotated[Any, KerasName("metrics")]]
    callbacks: dict[str, Any]
    checkpoint_seconds: Seconds | None = field(metadata=_marks("no result", "shared"))


@dataclass(frozen=True, kw_only=True)
class MLflowTracking:
    kind: Literal["mlflow"] = field(metadata=_marks("typed"))
    uri: str = field(metadata=_marks("typed"))
    experiment: Text
    run_name: Text | None
    tags: dict[str, Any] | None
    note: str | None
    keep: Literal["best", "all"]
    register: ModelName | None = field(metadata=_marks("typed"))

    def __post_init__(self) -> None:
        _check_address(self.uri)
        _check_tags(self.tags or {})


@dataclass(frozen=True, kw_only=True)
class NoTracking:
    kind: Literal["none"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of an experiment.

    `optimizer` has its class's name as `kind`, and its arguments.
    """

    dataset: Annotated[Dataset, OneOf(sources)]
    preprocessing: Preprocessing
    model: Annotated[Model, OneOf(families)]
    optimizer: dict[str, Any]
    training: Training
    tracking: Annotated[MLflowTracking | NoTracking, OneOf(lambda: (MLflowTracking, NoTracking))] = field(
        metadata=_marks("no result", "shared", "typed")
    )
    prune: Annotated[PruneSettings | None, OneOf(lambda: (None, *get_args(PruneSettings)))] = field(
        metadata=_marks("no result", "shared", "typed")
    )
    seed: Seed
    backend: Literal["tensorflow", "jax"] = field(metadata=_marks("shared"))
    objective: str = field(metadata=_marks("shared"))
    direction: Literal["maximize", "minimize"] | None = field(metadata=_marks("shared"))
    resume: bool = field(metadata=_marks("no result", "shared"))
    code: CodeFile | None = field(metadata=_marks("no result", "shared", "typed"))  # a signature has its digest


@cache
def keys(mark: str = "") -> frozenset[str]:
    """Return the keys with a mark, or all, at the top, of training and of a store."""
    parts = (("", Config), ("training.", Training), ("tracking.", MLflowTracking))
    return frozenset(
        f"{above}{field.name}"
        for above, part in parts
        for field in fields(part)
        if not mark or mark in field.metadata.get("marks", ())
    )


def takes_list(key: str) -> bool:
    """Return whether a value of this key may be a list."""
    group, _, name = key.partition(".")
    declared: dict[str, Sequence[type]] = {"model": families(), "training": [Training]}
    parts = declared.get(group, [Preprocessing] if group == "preprocessing" else [])
    return any("list" in str(get_type_hints(part).get(name)).lower() for part in parts)


def logged_metrics(training: Training) -> list[str]:
    """Return the names of the metrics of each epoch.

    >>> from types import SimpleNamespace
    >>> logged_metrics(SimpleNamespace(metrics=["accuracy"]))
    ['loss', 'accuracy', 'val_loss', 'val_accuracy']
    """
    names = ["loss", *map(keras_names.metric_name, training.metrics)]
    return [*names, *(f"val_{name}" for name in names)]


def objective_direction(config: Config) -> Literal["maximize", "minimize"]:
    """Return `direction`, or the direction of the metric if it is null."""
    if config.direction is not None:
        return config.direction
    metric = objective_metric(config)
    larger = metric is not None and keras_names.parse_spec(metric, "")[0] in keras_names.LARGER_IS_BETTER
    return "maximize" if larger else "minimize"


def objective_metric(config: Config) -> Any:
    """Return the spec of the metric that is the objective, None for the loss."""
    name = config.objective.removeprefix("val_").removeprefix("test_")
    return next((metric for metric in config.training.metrics if keras_names.metric_name(metric) == name), None)


def _check_address(uri: str) -> None:
    if uri != os.environ.get("MLFLOW_TRACKING_URI"):
        refuse_passwords([uri])
    # No message shows the address, which may hold a password.
    try:
        scheme = urlsplit(uri).scheme if urlsplit(uri).port != 0 else ""
    except ValueError:  # a port that is no number, an IPv6 address without its end
        scheme = ""
    known = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
    if scheme.partition("+")[0] not in known or ":memory:" in uri or len(uri) > 1000:
        raise InputError(
            "tracking.uri: must be the address of a store, such as sqlite:///mlflow.db or http://127.0.0.1:5000 "
            f"({', '.join(known)}), of at most 1000 characters; tracking=none trains without a store"
        )


def _check_tags(tags: Mapping[str, Any]) -> None:
    for tag in tags:
        if str(tag).lower().startswith(("mlflow.", "mnist_exp.")):
            raise InputError(
                f"tracking.tags.{tag}: begins with mlflow. or mnist_exp., as the program's own tags do; rename it"
            )
        if not re.fullmatch(r"[\w. /-]{1,250}", str(tag)):
            raise InputError(f"tracking.tags.{tag}: a tag's name may have only letters, digits, _ - . / and spaces")


def callbacks_within_epochs(training: Training) -> list[str]:
    """Return the callbacks that act within an epoch, or before its validation."""
    own = own_code.own_classes("callbacks")
    return [
        name
        for name, arguments in training.callbacks.items()
        if (own_code.acts_on_batches(own[name]) if name in own else name in {"SwapEMAWeights", "TerminateOnNaN"})
        or (arguments or {}).get("save_freq", "epoch") != "epoch"
    ]


def require_store(settings: MLflowTracking | NoTracking) -> MLflowTracking:
    """Return the settings of a store that can be read.

    Raises:
        InputError: for `tracking=none`.
    """
    if isinstance(settings, NoTracking):
        raise InputError("tracking=none: has no store to read; tracking=mlflow, the default, has one")
    return settings
