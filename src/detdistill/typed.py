"""Settings, wherever they come from: whether they are what annotations say, and all by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from detdistill.errors import UserError

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
    NoneType: "null",
}
_LISTS = (tuple, list, Sequence)
_MAPPINGS = (dict, Mapping)


def check(settings: Any, prefix: str = "") -> None:  # noqa: ANN401 - any dataclass
    """Refuses a dataclass with a value of another type than its field's.

    Raises:
        UserError: names the field.
    """
    kinds = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        require(f"{prefix}{field.name}", value, kinds[field.name])
        if is_dataclass(value):
            check(value, f"{prefix}{field.name}.")


def require(name: str, value: object, kind: Any) -> None:  # noqa: ANN401 - any annotation
    """Refuses a value of another type.

    Raises:
        UserError: names what was given.
    """
    if not fits(value, kind):
        raise UserError(f"{name} is {value!r}, but must be {described(kind)}.")


def fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether a value is what an annotation says; lists pass for tuples."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin in _LISTS:
        kinds = inner if origin is tuple else (*inner, ...)
        return isinstance(value, (tuple, list)) and _each_fits(value, kinds)
    if origin in _MAPPINGS:
        return isinstance(value, Mapping) and all(
            fits(name, inner[0]) and fits(own, inner[1]) for name, own in value.items()
        )
    if kind is Any or isinstance(value, bool):
        return kind in (Any, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def described(kind: Any) -> str:  # noqa: ANN401 - any annotation
    """An annotation in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(map(described, inner))
    if origin is tuple:
        count = "any number" if inner[-1] is Ellipsis else str(len(inner))
        return f"a list of {count}, each {described(inner[0])}"
    if origin in _LISTS:
        return f"a list, each {described(inner[0])}"
    if origin in _MAPPINGS:
        return "settings by name"
    return _WORDS.get(kind, "settings of its own")


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"optimizer": {"lr": 1}}` -> `optimizer.lr` and 1; an empty mapping stays one."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _each_fits(values: tuple[Any, ...] | list[Any], kinds: tuple[Any, ...]) -> bool:
    if kinds[-1] is Ellipsis:
        return all(fits(value, kinds[0]) for value in values)
    return len(values) == len(kinds) and all(map(fits, values, kinds))
