"""Make dataclasses from plain values, checked by the types of the fields."""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mnist_exp.config import keras_names
from mnist_exp.config.guesses import as_share, explain_unknown_key
from mnist_exp.errors import InputError, did_you_mean, format_value


@dataclass(frozen=True)
class Rule:
    """A condition beyond the type of a value, and its wording."""

    holds: Callable[[Any], bool]
    wanted: str


@dataclass(frozen=True)
class KerasName:
    """A Keras object of a kind of `ALLOWED`, as `Name` or `{Name: arguments}`."""

    kind: str


@dataclass(frozen=True)
class OneOf:
    """One of these dataclasses, chosen by its `kind`, or null if None is among them."""

    classes: Callable[[], Sequence[type | None]]


def convert(wanted: Any, value: Any, key: str) -> Any:
    """Check `value` against the type `wanted`, and return it with maps as dataclasses.

    Args:
        wanted: a type, such as `int | None` or a dataclass.
        value: read from YAML.
        key: of the value, for messages.

    Raises:
        InputError: if it does not fit.
    """
    if value == "???":
        raise InputError(f"{key}: is not set; it must be {describe(wanted)}")
    origin = get_origin(wanted)
    if origin is Annotated:
        return _convert_annotated(wanted, value, key)
    if origin in (Union, types.UnionType):
        return _convert_union(wanted, value, key)
    if is_dataclass(wanted) and isinstance(wanted, type) and not isinstance(value, wanted):
        return _convert_dataclass(wanted, value, key)
    if origin is list and isinstance(value, list):
        [item] = get_args(wanted)
        return [convert(item, element, f"{key}[{index}]") for index, element in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if not _has_form(wanted, value):
        hint = did_you_mean(str(value), get_args(wanted), f"{key}=") if origin is Literal else ""
        raise _refusal(key, value, describe(wanted), hint)
    if wanted is not float:
        return value
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{key}: must be a number of at most 300 digits") from None


def _convert_annotated(wanted: Any, value: Any, key: str) -> Any:
    base, rule = get_args(wanted)
    if isinstance(rule, KerasName):
        if rule.kind == "layers":
            _check_layer(value, key)
            return value
        spec = keras_names.canonical(rule.kind, value)
        keras_names.check_spec(rule.kind, spec, key)
        return spec
    if isinstance(rule, OneOf):
        return _convert_one_of(rule.classes(), value, key)
    try:
        converted = convert(base, value, key)
    except InputError:
        if isinstance(value, list):
            raise
        raise _refusal(key, value, rule.wanted) from None
    if not rule.holds(converted):
        raise _refusal(key, value, rule.wanted)
    return converted


def _check_layer(spec: Any, key: str) -> None:
    """Check an item of a list of layers: a layer or a block of them.

    `{Residual: [LAYERS]}` adds its input to the output of its layers; `{Branches: [[LAYERS], [LAYERS]]}` joins the
    outputs of its branches along their last axis.
    """
    match spec:
        case {"Residual": layers, **others} if not others:
            inner = {f"{key}.Residual": layers}
        case {"Branches": [_, _, *_] as branches, **others} if not others:
            inner = {f"{key}.Branches[{index}]": layers for index, layers in enumerate(branches)}
        case {"Branches": other}:
            raise InputError(
                f"{key}.Branches={format_value(other)}: must be two or more lists of layers, [[LAYERS], [LAYERS]]"
            )
        case _:
            keras_names.check_spec("layers", spec, key)
            return
    for where, layers in inner.items():
        if not isinstance(layers, list):
            raise InputError(
                f"{where}={format_value(layers)}: must be a list of layers, such as [Flatten, {{Dense: {{units: 64}}}}]"
            )
        for index, layer in enumerate(layers):
            _check_layer(layer, f"{where}[{index}]")


def _convert_one_of(classes: Sequence[type | None], value: Any, key: str) -> Any:
    if value is None and None in classes:
        return None
    kinds = _kinds(classes)
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{key}.kind={format_value(kind)}: must be one of {', '.join(kinds)}")
    return _convert_dataclass(kinds[kind], value, key)


def _kinds(classes: Sequence[type | None]) -> dict[str, type]:
    return {get_args(get_type_hints(part)["kind"])[0]: part for part in classes if part is not None}


def _convert_union(wanted: Any, value: Any, key: str) -> Any:
    choices = get_args(wanted)
    for choice in choices:
        if _has_form(choice, value):
            try:
                return convert(choice, value, key)
            except InputError:
                if _is_keras_name(choice) or (isinstance(value, list) and value):
                    raise
    raise _refusal(key, value, describe(wanted))


def _refusal(key: str, value: Any, wanted: str, hint: str = "") -> InputError:
    """Return the error for a value of a wrong type, with the override probably meant."""
    text, meant = format_value(value), ""
    if share := as_share(text):
        meant = f"{key}={share}"
    elif isinstance(value, float) and value.is_integer() and "whole" in wanted:
        meant = f"{key}={value:.0f}"
    elif ends := re.fullmatch(r"(\d{1,4}) ?(?:\.{2,3}|-|:) ?(\d{1,4})", text):
        numbers = range(int(ends[1]), int(ends[2]) + 1)
        listed = ",".join(map(str, numbers)) if len(numbers) <= 10 else f"range({numbers.start},{numbers.stop})"
        meant = f"-m {key}={listed}"
    elif wanted == "a list" and isinstance(value, str):
        meant = f"{key}=[{value}]"
    return InputError(f"{key}={text}: must be {wanted}{f'; did you mean {meant}?' if meant else hint}")


def _convert_dataclass(wanted: type, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{key or 'configuration'}={format_value(value)}: must be a map of keys to values")
    prefix = f"{key}." if key else ""
    hints = get_type_hints(wanted, include_extras=True)
    names = [field.name for field in fields(wanted)]
    for name in value:
        if name not in names:
            where = f"{key} ({value['kind']})" if "kind" in value else key or "the configuration"
            raise InputError(explain_unknown_key(f"{prefix}{name}", value[name], where, names))
    for name in names:
        if name not in value:
            raise InputError(f"{prefix}{name}: is missing; it must be {describe(hints[name])}")
    return wanted(**{name: convert(hints[name], value[name], f"{prefix}{name}") for name in names})


def _is_keras_name(wanted: Any) -> bool:
    return get_origin(wanted) is Annotated and isinstance(get_args(wanted)[1], KerasName)


def _has_form(wanted: Any, value: Any) -> bool:
    """Return whether `value` has the type `wanted`, whatever its range and elements."""
    origin = get_origin(wanted)
    if origin is Annotated:
        return value is not None if _is_keras_name(wanted) else _has_form(get_args(wanted)[0], value)
    if origin is Literal:
        return value in get_args(wanted) and not isinstance(value, bool)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return wanted is Any or isinstance(value, origin or wanted)


def describe(wanted: Any) -> str:
    """Return a type in words, such as "a whole number, or null"."""
    origin = get_origin(wanted)
    if origin is Annotated:
        rule = get_args(wanted)[1]
        if isinstance(rule, OneOf):
            return f"a choice, one of {', '.join(_kinds(rule.classes()))}"
        return rule.wanted if isinstance(rule, Rule) else f"a name from keras.{rule.kind}"
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(map(describe, get_args(wanted))))
    if origin is Literal:
        choices = get_args(wanted)
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if list in (origin, wanted):
        return "a list"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return f"one of {', '.join(wanted.__members__)}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    return names.get(wanted, "a map of keys to values, {KEY: VALUE}")
