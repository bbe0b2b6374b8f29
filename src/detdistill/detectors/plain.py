"""Dataclasses from the plain values that `dataclasses.asdict` and JSON make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

Record = TypeVar("Record")


def from_plain(kind: type[Record], values: object) -> Record:
    """An instance of a dataclass, and of those in its fields; absent fields take their defaults.

    Raises:
        TypeError: the values are not this dataclass's.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{kind.__name__} has entries, not {values!r}")
    hints = get_type_hints(kind)
    return kind(**{name: _restored(hints.get(name), value) for name, value in values.items()})


def _restored(kind: Any, value: Any) -> Any:  # noqa: ANN401 - as JSON has it
    """A value of a field: a nested dataclass, or a tuple where JSON has a list."""
    if is_dataclass(kind) and isinstance(kind, type):
        return from_plain(kind, value)
    return tuple(_restored(None, item) for item in value) if isinstance(value, list) else value
