"""The papers' figures for finished runs, one per file; a file in this folder is found by its name.

A figure's module says first, in one line, what it shows, then `Source:`, the paper and figure it
follows. Its function `figures` takes a `Subject` and yields each `Figure`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from detdistill.errors import unknown_name

if TYPE_CHECKING:
    from detdistill.explain.figure import Figure
    from detdistill.explain.subject import Subject

    Maker = Callable[[Subject], Iterator[Figure]]

_NOT_FIGURES = {"figure", "folder", "make", "parts", "roles", "subject"}

__all__ = ["about", "find", "names"]


def names() -> list[str]:
    """The figures that can be asked for, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_FIGURES)


def find(name: str) -> Maker:
    """What makes the figures called `name`.

    Raises:
        UserError: there is no such figure.
    """
    if name not in names():
        raise unknown_name("figure", name, names())
    maker: Maker = importlib.import_module(f"{__name__}.{name}").figures
    return maker


def about(name: str) -> tuple[str, str]:
    """What a figure's module says first: what it shows, and its `Source`.

    Raises:
        UserError: there is no such figure.
    """
    text = inspect.getdoc(inspect.getmodule(find(name))) or ""
    shows, _, rest = text.partition("\n")
    _, _, source = rest.partition("Source:")
    return shows, " ".join(source.partition("\n\n")[0].split())
