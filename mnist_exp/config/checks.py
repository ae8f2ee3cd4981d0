"""Check a composed configuration: its types, then the rules between its fields."""

import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import Any

from mnist_exp.config import keras_names, own_code
from mnist_exp.config.conversion import convert
from mnist_exp.config.files import OWN_FILES
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.schema import Config, Training, callbacks_within_epochs, logged_metrics, objective_metric
from mnist_exp.errors import InputError, did_you_mean, format_value


def check(values: Mapping[str, Any], code: CodeFile | None = None) -> Config:
    """Return the `Config` of a composed and resolved configuration.

    The user's own file `code`, whose names it may use, stays in use until the next check.

    Raises:
        InputError: for an unknown or missing key, a value that cannot be used, or values that do not fit each other.
    """
    if values.get("code") != (code.path if code is not None else None):
        raise InputError(f"code={format_value(values.get('code'))}: can only be typed, such as code=mine.py")
    own_code.use(code)
    config: Config = convert(Config, {**values, "code": code}, "")
    _check_optimizer(config.optimizer)
    _check_training(config.training, one_hot=config.preprocessing.one_hot)
    _check_callbacks(config.training, config.optimizer)
    _check_backend(config)
    _check_objective(config)
    _check_pruning(config)
    limit, held_out = config.dataset.limit, config.dataset.validation
    if isinstance(held_out, int) and limit is not None and held_out >= limit:
        raise InputError(
            f"dataset.validation={held_out}: must be less than dataset.limit={limit}, or a share such as 0.2"
        )
    if (fits := config.model.preprocessing) not in {None, config.preprocessing.kind}:
        needs = {"flatten": "vectors", "image": "images"}[fits]
        raise InputError(
            f"preprocessing={config.preprocessing.kind}: model={config.model.kind} needs {needs}; preprocessing={fits} "
            "fits"
        )
    return config


def _check_objective(config: Config) -> None:
    logged = logged_metrics(config.training)
    names = [*logged, *(name.replace("val_", "test_", 1) for name in logged if name.startswith("val_"))]
    if config.objective not in names:
        fits = did_you_mean(config.objective, names) or f"; it logs {', '.join(names)}"
        raise InputError(f"objective={config.objective}: this run logs no such metric{fits}")
    metric = objective_metric(config)
    if metric is not None and keras_names.is_own("metrics", metric) and config.direction is None:
        raise InputError(
            f"objective={config.objective}: is a metric of {config.code and config.code.path}; say which is better, "
            "direction=maximize or direction=minimize"
        )


def _check_pruning(config: Config) -> None:
    if config.prune is None:
        return
    if importlib.util.find_spec("optuna") is None:
        raise InputError(
            f"prune={config.prune.kind}: needs Optuna; pip install -e '.[optuna]' in the project's folder brings it"
        )
    if config.objective.startswith("test_"):
        measured = config.objective.replace("test_", "val_", 1)
        raise InputError(
            f"objective={config.objective}: is known after the last epoch, and prune={config.prune.kind} compares "
            f"epochs; type objective={measured}"
        )


def _check_optimizer(optimizer: dict[str, Any]) -> None:
    if "kind" not in optimizer:
        raise InputError("optimizer.kind: is missing; choose an optimizer such as optimizer=adam")
    keras_names.check_name("optimizers", optimizer["kind"], "optimizer.kind")
    arguments = {key: value for key, value in optimizer.items() if key != "kind"}
    keras_names.check_arguments("optimizers", optimizer["kind"], arguments, "optimizer")
    if "learning_rate" not in arguments:
        raise InputError("optimizer.learning_rate: is missing; it must be a number greater than 0, such as 0.001")
    rate = arguments["learning_rate"]
    is_positive = isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0
    if not is_positive and not isinstance(rate, str | Mapping):
        raise InputError(f"optimizer.learning_rate={format_value(rate)}: must be greater than 0, such as 0.001")


def _check_training(training: Training, *, one_hot: bool) -> None:
    if training.loss is not None:
        _check_labels(training.loss, "training.loss", one_hot=one_hot)
    for index, metric in enumerate(training.metrics):
        if metric == "accuracy":
            continue
        key = f"training.metrics[{index}]"
        _check_labels(metric, key, one_hot=one_hot)
        name, arguments = keras_names.parse_spec(metric, key)
        if name == "F1Score" and arguments.get("average") is None:
            raise InputError(
                f"{key}={format_value(metric)}: gives a value per class; use {{F1Score: {{average: macro}}}} for one"
            )
    _check_metric_names(training.metrics)


def _check_metric_names(metrics: list[Any]) -> None:
    """Check that no two metrics are logged under one name."""
    # A run and its callbacks log these, too.
    taken = {"loss", "val_loss", "test_loss", "objective", "fit_seconds", "learning_rate", "epoch"}
    for index, metric in enumerate(metrics):
        name = keras_names.metric_name(metric)
        names = {name, f"val_{name}", f"test_{name}"}
        if clash := sorted(taken & names):
            raise InputError(
                f"training.metrics[{index}]={format_value(metric)}: would be logged as {clash[0]}, which this run uses "
                "already; give it another name by {NAME: {name: mine}}"
            )
        taken |= names


def _check_callbacks(training: Training, optimizer: Mapping[str, Any]) -> None:
    names, taken = logged_metrics(training), set(OWN_FILES)
    for name, arguments in training.callbacks.items():
        key = f"training.callbacks.{name}"
        keras_names.check_name("callbacks", name, key)
        keras_names.check_spec("callbacks", {name: arguments}, "training.callbacks")
        paths = {path: str(arguments[path]) for path in keras_names.PATH_ARGUMENTS & (arguments or {}).keys()}
        for path, template in paths.items():
            if template.casefold() in taken:
                wanted = "must be the name of a new file; the run, or another callback, writes this one"
                raise InputError(f"{key}.{path}={template}: {wanted}")
            taken.add(template.casefold())
            for metric in re.findall(r"\{(\w+)", template):
                if metric not in {"epoch", *names}:
                    raise InputError(
                        f"{key}: no such metric as {metric} in {template}; this run logs {', '.join(names)}"
                    )
        monitor = (arguments or {}).get("monitor", names[0])
        if monitor not in names:
            hint = did_you_mean(str(monitor), names) or f"; this run logs {', '.join(names)}"
            raise InputError(f"{key}.monitor={format_value(monitor)}: no such metric{hint}")
    rate = optimizer["learning_rate"]
    if "ReduceLROnPlateau" in training.callbacks and isinstance(rate, Mapping):
        raise InputError(
            f"training.callbacks.ReduceLROnPlateau: cannot change optimizer.learning_rate={format_value(rate)}, a "
            "schedule; choose one of the two"
        )
    if "SwapEMAWeights" in training.callbacks and not optimizer.get("use_ema"):
        raise InputError("training.callbacks.SwapEMAWeights: needs optimizer.use_ema=true")


def _check_backend(config: Config) -> None:
    if config.backend == "jax" and importlib.util.find_spec("jax") is None:
        raise InputError("backend=jax: is not installed; pip install -e '.[jax]' in the project's folder brings it")
    if config.code is not None and config.backend != (imported := sys.modules["keras"].backend.backend()):
        raise InputError(
            f"backend={config.backend}: a preset says so, but code={config.code.path} was imported with {imported}; "
            f"type backend={config.backend}"
        )
    if config.backend == "jax" and (within := callbacks_within_epochs(config.training)):
        raise InputError(
            f"training.callbacks.{within[0]}: acts within an epoch, but backend=jax runs each epoch as one program; "
            "type backend=tensorflow"
        )


def _check_labels(spec: Any, key: str, *, one_hot: bool) -> None:
    """Check that Sparse... losses and metrics get integers, others one-hot vectors."""
    name, _ = keras_names.parse_spec(spec, key)
    if keras_names.is_own("losses", spec) or keras_names.is_own("metrics", spec):
        return  # takes any labels
    if name.startswith("Sparse") == one_hot:
        wanted = str(not one_hot).lower()
        raise InputError(
            f"{key}={name}: does not fit preprocessing.one_hot={str(one_hot).lower()}; preprocessing.one_hot={wanted} "
            "does, and training.loss=null always fits"
        )
