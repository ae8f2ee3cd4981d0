"""Make the record of a run or sweep that starts."""

import getpass
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mnist_exp.config.overrides import flatten
from mnist_exp.config.own_code import CodeFile
from mnist_exp.config.schema import Config, MLflowTracking, NoTracking, objective_direction
from mnist_exp.data.datasets import Data
from mnist_exp.errors import format_value
from mnist_exp.experiment import Experiment, Sweep, code_digest, code_files, package_versions, result_settings
from mnist_exp.text import redact, redact_uri
from mnist_exp.tracking.names import job_name
from mnist_exp.tracking.records import DESCRIPTION, Record
from mnist_exp.tracking.store import shorten_address
from mnist_exp.version import __version__

_ROOT = Path(__file__).parents[2]
_MAX_PATCH_BYTES = 2**20


def make_config(config: Config) -> dict[str, Any]:
    """Return the content of `config.yaml`, without a password in the store's address."""
    values = asdict(config) | {"code": config.code and config.code.path}
    if "uri" in values["tracking"]:
        values["tracking"]["uri"] = redact_uri(values["tracking"]["uri"])
    return values


def describe_data(data: Data) -> dict[str, str]:
    """Return a dataset's origin, digest, shapes and sizes, as MLflow takes them."""
    schema = {"mlflow_tensorspec": {"features": _tensor_spec(data.x_train), "targets": _tensor_spec(data.y_train)}}
    sizes = {"training": len(data.x_train), "validation": len(data.x_validation), "test": len(data.x_test)}
    return {
        "name": data.name,
        "digest": data.digest,
        "source_type": "local",
        "source": json.dumps({"uri": data.source}),
        "schema": json.dumps(schema),
        "profile": json.dumps(sizes | {"test_digest": data.test_digest}),
    }


def _tensor_spec(array: npt.NDArray[Any]) -> str:
    spec = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
    return json.dumps([{"type": "tensor", "tensor-spec": spec}])


def run_record(experiment: Experiment, together: int = 1) -> Record:
    """Return the record of a run that starts.

    A sweep's job is named by the values that vary; any other run by its `tracking.run_name`, or by its overrides. A tag
    says how many experiments train `together` as one program, if there are several.
    """
    settings = experiment.config.tracking
    name = _own_name(settings) or " ".join(experiment.overrides) or "baseline"
    tags = _tags(experiment.overrides, settings, experiment.config.code)
    if experiment.child is not None:
        values = experiment.child.values
        name = job_name(values, values) or name
        tags |= {"mlflow.parentRunId": experiment.child.parent, "mnist_exp.swept": json.dumps(values)}
        tags["mnist_exp.parent"] = experiment.child.sweep
    else:
        tags["mnist_exp.code_files"] = json.dumps(code_files())
    if experiment.repeats is not None:
        tags["mnist_exp.rerun_of"] = experiment.repeats
    if together > 1:
        tags["mnist_exp.trained_together"] = str(together)
    return Record(name, tags, _parameters(experiment.config), tracking=describe_store(settings))


def _parameters(config: Config) -> dict[str, str]:
    return flatten(result_settings(make_config(config) | {"direction": objective_direction(config)}))


def sweep_record(sweep: Sweep, signature: str) -> Record:
    """Return the record of a starting sweep, with the parameters that its jobs share."""
    settings = sweep.config.tracking
    name = _own_name(settings) or " ".join(sweep.overrides)
    tags = _tags(sweep.overrides, settings, sweep.config.code)
    tags |= {"mnist_exp.sweep": signature, "mnist_exp.varied": json.dumps(sweep.swept)}
    tags |= {"mnist_exp.code_files": json.dumps(code_files())}
    first, *others = map(_parameters, sweep.configs)
    same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    parameters = {key: value for key, value in same.items() if key not in sweep.swept}
    return Record(name, tags, parameters, tracking=describe_store(settings))


def make_failed_record(
    values: Mapping[str, str], parent: str, sweep: str, settings: MLflowTracking | NoTracking, reason: str
) -> Record:
    """Return the record of a sweep's job that failed before it ran.

    Args:
        values: the varied keys of the job.
        parent: the id of the sweep's run in the store.
        sweep: the id of the sweep's record.
        settings: of `tracking`.
        reason: one line.
    """
    tags = {
        "mlflow.parentRunId": parent,
        "mnist_exp.parent": sweep,
        "mnist_exp.swept": json.dumps(values),
        "mnist_exp.error": reason,
    }
    return Record(job_name(values, values), _tags((), settings) | tags, tracking=describe_store(settings))


def describe_store(settings: MLflowTracking | NoTracking) -> dict[str, str]:
    """Return the store that mirrors runs with these settings, as `Record.tracking`."""
    if isinstance(settings, NoTracking):
        return {}
    return {"uri": shorten_address(settings.uri), "experiment": settings.experiment}


def _own_name(settings: MLflowTracking | NoTracking) -> str | None:
    return None if isinstance(settings, NoTracking) else settings.run_name


def _own_tags(settings: MLflowTracking | NoTracking) -> dict[str, str]:
    if isinstance(settings, NoTracking):
        return {}
    note = {} if settings.note is None else {DESCRIPTION: settings.note}
    return {key: format_value(value) for key, value in (settings.tags or {}).items()} | note


def _tags(
    overrides: Sequence[str], settings: MLflowTracking | NoTracking, code: CodeFile | None = None
) -> dict[str, str]:
    """Return the user's tags, and those for machine, packages, code and threads."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    commit = _commit()
    packages = {**package_versions(backend), "mnist_exp": __version__, "python": platform.python_version()}
    return {
        "mnist_exp.host": socket.gethostname(),
        "mnist_exp.process": str(os.getpid()),
        "mnist_exp.packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
        "mnist_exp.machine": f"{platform.system()} {platform.machine()}, {_processor()}",
        "mnist_exp.threads": threads(),
        "mnist_exp.code": code_digest(),
        "mlflow.source.name": "mnist_exp",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **({"mlflow.source.git.commit": commit} if commit else {}),
        **_own_tags(settings),
        "mnist_exp.overrides": " ".join(overrides),
        **({"mnist_exp.own_code": code.label} if code is not None else {}),
    }


def threads() -> str:
    """Return how many threads one operation computes with."""
    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS") if os.environ.get("KERAS_BACKEND") != "jax" else None
    return chosen or str(os.cpu_count())


@cache
def _processor() -> str:
    """Return the processor's name, if the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"  # Windows has none


@cache  # this process does not import what changes later
def _commit() -> str:
    """Return the commit of the code, with -dirty after a change.

    Return "" outside a checkout.
    """
    return _git("describe", "--always", "--abbrev=40", "--dirty", "--match=").strip()


@cache
def code_patch() -> str:
    """Return this checkout's `git diff`, or a notice above 1 MB.

    Return "" outside a checkout.
    """
    if not _commit().endswith("-dirty"):
        return ""
    patch = _git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    size = len(patch.encode(errors="replace"))
    if size > _MAX_PATCH_BYTES:
        return f"The changes are not kept: they have {size} bytes, more than 1 MB.\n"
    return redact(patch)


def _git(*arguments: str) -> str:
    """Return the output of a git command in this checkout, or "" outside one."""
    if not (_ROOT / ".git").exists():  # an installed copy may lie in another project's checkout
        return ""
    try:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=_ROOT, capture_output=True, text=True, errors="replace", check=True,
        ).stdout  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
