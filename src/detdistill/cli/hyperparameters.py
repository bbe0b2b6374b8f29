"""A method's hyper-parameters as options: name, type, default, meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

import docstring_parser

from detdistill.cli.parser import Parser
from detdistill.methods import Method


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """One setting of a method."""

    name: str
    type: Any
    default: Any
    meaning: str


def of(method: type[Method]) -> Iterator[Hyperparameter]:
    """The fields of a method, in the order in which they are written."""
    types, meanings = get_type_hints(method), _meanings(method)
    for field in dataclasses.fields(method):  # type: ignore[arg-type] # every Method is one
        yield Hyperparameter(
            name=field.name,
            type=types[field.name],
            default=_default(field),
            meaning=meanings.get(field.name, ""),
        )


def add_options(parser: Parser, method: type[Method], prefix: str) -> None:
    """Adds `--prefix.name` for each hyper-parameter."""
    title = (method.__doc__ or prefix).partition("\n")[0].rstrip(".")
    group = parser.add_argument_group(title)
    for setting in of(method):
        group.add_argument(
            f"--{prefix}.{setting.name}",
            type=setting.type,
            default=setting.default,
            help=setting.meaning.replace("%", "%%"),
        )


def _meanings(method: type[Method]) -> dict[str, str]:
    """What stands below each field; nothing where the source is not at hand."""
    meanings: dict[str, str] = {}
    for kind in reversed(method.__mro__):
        if kind is not Method and issubclass(kind, Method):
            meanings |= _written_in(kind)
    return meanings


def _written_in(method: type[Method]) -> dict[str, str]:
    """The same, of one class."""
    try:
        documented = docstring_parser.parse_from_object(method).params
    except OSError:
        return {}
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented}


def _default(field: dataclasses.Field[Any]) -> Any:  # noqa: ANN401 - of the field's type
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
