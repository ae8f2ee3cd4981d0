"""Configurations, from the schema."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from hypothesis import strategies as st

from mnist_exp.config import keras_names
from mnist_exp.config.conversion import KerasName
from mnist_exp.config.keras_source import REQUIRED, has_class, signature_of
from mnist_exp.config.overrides import as_typed
from mnist_exp.config.presets import CONF
from mnist_exp.config.schema import Config, MLflowTracking, Preprocessing, Training
from mnist_exp.config.values import PruneSettings
from mnist_exp.data.sources import KerasDataset, sources
from mnist_exp.training.families import families

from .outcome import Kind, typed

Any_ = st.SearchStrategy[Any]

words = st.sampled_from(["a", "b c", "units", "relu", "valid", "é", "1"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
whole = st.integers(-3, 40) | st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63, -(2**64), 10**400])
numbers = whole | st.floats() | st.floats(0, 1) | st.sampled_from([1e-300, 1e308])
plain = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


def often(likely: Any_, seldom: Any_ = plain) -> Any_:
    """Return a strategy that mostly draws what is right."""
    return st.integers(0, 14).flatmap(lambda n: seldom if n == 0 else likely)


def spec(kind: str, depth: int = 2) -> Any_:
    """Return a strategy for `Name` or `{Name: arguments}` of a kind of Keras's objects."""
    names = sorted(name for name in keras_names.ALLOWED[kind] if has_class(kind, name))
    if kind == "activations":
        return st.sampled_from(names)
    return st.sampled_from(names).flatmap(lambda name: arguments(kind, name, depth).map(lambda given: {name: given}))


def arguments(kind: str, name: str, depth: int = 2) -> Any_:
    """Return a strategy for the arguments of a class, those without a default always there."""
    defaults = signature_of(kind, name)
    values = {argument: often(_argument(argument, default, depth)) for argument, default in defaults.items()}
    needed = {argument for argument, default in defaults.items() if default is REQUIRED}
    optional = {argument: value for argument, value in values.items() if argument not in needed}
    some = st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True) if optional else st.just([])
    return some.flatmap(lambda more: st.fixed_dictionaries({one: values[one] for one in [*sorted(needed), *more]}))


def _argument(argument: str, default: Any, depth: int) -> Any_:
    if (nested := keras_names.argument_kind(argument)) is not None and depth:
        return spec(nested, depth - 1) | st.just(default if default is not REQUIRED else 0.001)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, str):
        return st.just(default) | st.sampled_from(["same", "valid", "channels_first", "nearest", "max", "sum"])
    if isinstance(default, tuple):
        return st.lists(whole, min_size=len(default), max_size=len(default)) | numbers
    return st.floats(0, 1) | st.integers(1, 8) | st.lists(st.integers(1, 8), min_size=1, max_size=3)


def of_type(wanted: Any) -> Any_:
    """Return a strategy for values of a type in the schema."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return spec(inner[1].kind) if isinstance(inner[1], KerasName) else of_type(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (list, dict):
        return st.lists(of_type(inner[0]), max_size=3) if origin is list else st.dictionaries(words, plain, max_size=3)
    if inner:
        return st.one_of(*map(of_type, inner))
    simple = {bool: st.booleans(), int: st.integers(0, 40) | whole, float: st.floats(0, 1) | numbers, str: words}
    return simple.get(wanted, st.none() if wanted is type(None) else plain)


def keys_of(prefix: str, one: type) -> dict[str, Any_]:
    """Return a strategy for each key of a dataclass, by its full name; `kind` is the choice of a group."""
    hints = get_type_hints(one, include_extras=True)
    return {f"{prefix}{field.name}": often(of_type(hints[field.name])) for field in fields(one) if field.name != "kind"}


def chosen(group: str, classes: Mapping[str, type]) -> Any_:
    """Return a strategy for a choice of a group and some of its keys."""
    return st.sampled_from(sorted(classes)).flatmap(
        lambda name: some_of(keys_of(f"{group}.", classes[name])).map(lambda keys: {group: name, **keys})
    )


def some_of(keys: Mapping[str, Any_], most: int = 3) -> Any_:
    """Return a strategy for a map with a few of the keys."""
    names = st.lists(st.sampled_from(sorted(keys)), max_size=most, unique=True) if keys else st.just([])
    return names.flatmap(lambda few: st.fixed_dictionaries({name: keys[name] for name in few}))


def _fitting(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return overrides with the preprocessing that the model needs, if no other was drawn."""
    return {"preprocessing": "image" if drawn.get("model") in ("cnn", "layers") else "flatten"} | drawn


def by_choice(classes: list[type]) -> dict[str, type]:
    return {get_args(get_type_hints(one)["kind"])[0]: one for one in classes}


optimizers = {path.stem: yaml.safe_load(path.read_text())["kind"] for path in (CONF / "optimizer").glob("*.yaml")}
optimizer = st.sampled_from(sorted(optimizers)).flatmap(
    lambda name: arguments("optimizers", optimizers[name]).map(
        lambda given: {"optimizer": name, **{f"optimizer.{key}": value for key, value in given.items()}}
    )
)
training = keys_of("training.", Training) | {
    "training.loss": often(spec("losses") | st.none()),
    "training.metrics": often(st.lists(spec("metrics") | st.just("accuracy"), max_size=2)),
    "training.callbacks": often(
        st.lists(spec("callbacks"), max_size=2).map(lambda all_: {k: v for one in all_ for k, v in one.items()})
    ),
}
top = keys_of("", Config)
parts = st.tuples(
    chosen("dataset", by_choice([one for one in sources() if one is not KerasDataset])),  # which would download
    chosen("preprocessing", {"flatten": Preprocessing, "image": Preprocessing}),
    chosen("model", by_choice(list(families()))),
    optimizer,
    some_of(training),
    some_of({key: top[key] for key in ("seed", "backend", "objective", "direction", "resume")}, 1),
    st.just({"tracking": "none"}) | some_of(keys_of("tracking.", MLflowTracking)),
    st.just({}) | chosen("prune", by_choice(list(get_args(PruneSettings)))),
)
configurations = st.tuples(parts, st.sets(st.integers(0, 7), min_size=1, max_size=4)).map(
    lambda drawn: _fitting({key: value for index in sorted(drawn[1]) for key, value in drawn[0][index].items()})
)

KINDS = {"configurations": Kind(configurations, lambda given, folder: typed(as_typed(given), folder))}
