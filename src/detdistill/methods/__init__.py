"""Distillation methods, one per file; a file in this folder is found by its name."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import re

from detdistill.errors import UserError, unknown_name
from detdistill.methods.method import Method, UnsuitablePairError

_NOT_METHODS = {"method", "combine", "parts"}

ABOUT = ("idea", "Paper", "Reads", "Differs")
"""What a method's module says before anything else."""

_LINE = re.compile(r"^(Paper|Reads|Differs):\s*", re.MULTILINE)

__all__ = ["Method", "UnsuitablePairError", "about", "find", "names"]


def names() -> list[str]:
    """The methods that come with the package, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS)


def find(name: str) -> type[Method]:
    """The method called `name`, or the one in the module with that import path.

    Raises:
        UserError: there is no such method, or the module holds none or several.
    """
    path = f"{__name__}.{name}" if name in names() else name
    if "." not in path.strip(".") and not _is_a_module(path):
        raise unknown_name("method", name, names())
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):
            raise UserError(f"Module {path!r} needs {error.name!r}, which is not there.") from error
        raise UserError(f"No module {path!r} can be imported for method {name!r}.") from error
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Method) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"Module {path!r} must define exactly one Method, it has {len(found)}.")
    return found[0]


def _is_a_module(name: str) -> bool:
    """Whether something of this name stands beside the packages that Python finds."""
    return name.isidentifier() and importlib.util.find_spec(name) is not None


def about(method: type[Method]) -> dict[str, str]:
    """What a method's module says first: `idea`, and the lines `Paper`, `Reads`, `Differs`.

    Each is one line of text; what the module does not say is empty.
    """
    text = inspect.getdoc(inspect.getmodule(method)) or ""
    idea, *rest = _LINE.split(text)
    said = {"idea": idea, **dict(zip(rest[::2], rest[1::2], strict=True))}
    return {name: " ".join(said.get(name, "").split()) for name in ABOUT}
