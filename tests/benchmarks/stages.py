"""Where the time of one run goes: python -m tests.benchmarks.stages [OVERRIDE ...]

Runs `python -m mnist_exp OVERRIDE ...` in this process and prints as JSON the seconds of each stage of its main thread,
without what other stages take within it.
"""

import functools
import importlib._bootstrap as bootstrap
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any

_IMPORTS = {"keras": "import Keras", "tensorflow": "import Keras", "jax": "import Keras"} | {
    name: f"import {label}" for name, label in (("mlflow", "MLflow"), ("matplotlib", "matplotlib"))
}
_FUNCTIONS = {
    "mnist_exp.config.hydra_compose": {"compose_values": "composing"},
    "mnist_exp.config.composition": {"check_composed": "composing"},
    "mnist_exp.training.split": {"load_data": "data"},
    "mnist_exp.training.models": {"build": "building the model", "serving_model": "building the model"},
    "mnist_exp.training.training": {
        "compile_model": "building the model",
        "predict": "predicting for the figures",
    },
    "mnist_exp.training.tensorflow_engine": {"Batches": "tracing", "fit": "tracing", "evaluate": "evaluating"},
    "mnist_exp.training.jax_engine": {"fit": "tracing and compiling", "evaluate": "evaluating"},
    "mnist_exp.tracking.store": {"connect": "tracking: store"},
    "mnist_exp.tracking.uploads": {"Uploads.begin": "tracking: run", "Uploads.finish": "tracking: wait for the store"},
    "mnist_exp.tracking.logged_models": {"save_model": "tracking: model"},
    "mnist_exp.tracking.run_figures": {"write_results": "figures"},
}
# What is called first when the first step, or with JAX the first epoch, has ended.
_FIRST_ENDED = {
    "mnist_exp.training.tensorflow_engine": "_Watch.on_train_batch_end",
    "mnist_exp.training.jax_program": "split_by_job",
}


class Clock:
    """Seconds by stage, a stage within another counting for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stages = ["rest"]
        self._since = time.perf_counter()

    def enter(self, stage: str) -> None:
        """Count for `stage` from here on."""
        if threading.current_thread() is threading.main_thread():
            self._count()
            self._stages.append(stage)

    def leave(self) -> None:
        """Count for the stage around this one again."""
        if threading.current_thread() is threading.main_thread():
            self._count()
            self._stages.pop()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            self.enter(stage)
            try:
                return function(*arguments, **named)
            finally:
                self.leave()

        return counted

    def steps_begin(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, from whose first call on what traced counts as steps."""

        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            if self._stages[-1].startswith("tracing"):
                self._count()
                self._stages[-1] = "steps and validation"
            return function(*arguments, **named)

        return counted

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stages[-1]] += now - self._since
        self._since = now


def replace(module: ModuleType, place: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function, or a method `Class.name`, by what `make` makes of it."""
    *owner, name = place.split(".")
    holder = getattr(module, owner[0]) if owner else module
    setattr(holder, name, make(getattr(holder, name)))


def main() -> None:
    """Run, and print the table as JSON."""
    clock = Clock()
    find_and_load: Any = bootstrap._find_and_load  # type: ignore[attr-defined]

    def counted(name: str, import_: Any) -> ModuleType:
        stage = _IMPORTS.get(name.partition(".")[0])
        if stage is not None:
            clock.enter(stage)
        try:
            module: ModuleType = find_and_load(name, import_)
        finally:
            if stage is not None:
                clock.leave()
        if name in _FUNCTIONS and name not in wrapped:
            wrapped.add(name)
            for place, its_stage in _FUNCTIONS[name].items():
                replace(module, place, functools.partial(clock.timed, its_stage))
            if name in _FIRST_ENDED:
                replace(module, _FIRST_ENDED[name], clock.steps_begin)
        return module

    wrapped: set[str] = set()
    bootstrap._find_and_load = counted  # type: ignore[attr-defined]
    sys.argv = ["mnist_exp", *sys.argv[1:]]
    from mnist_exp.__main__ import main as run

    try:
        run()
    finally:
        clock.enter("rest")
        print(json.dumps(clock.seconds))


if __name__ == "__main__":
    main()
