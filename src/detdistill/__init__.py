"""Knowledge distillation for object detectors: a small one learns from a big one.

Every command except `data` is a function of the same name:
`detdistill.distill(teacher="runs/teacher", method="crosskd+pkd", crosskd={"cut": 1})`; `import`, a
word of Python's, is `import_checkpoint`, and `data` is the package of data sets. Some verbs are
also the name of a folder of code (`detdistill.train.loop`), so those modules can be called. Nothing
heavy is imported before use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

VERBS = (
    "demo",
    "train",
    "distill",
    "compare",
    "evaluate",
    "predict",
    "explain",
    "export",
    "import_checkpoint",
    "report",
    "methods",
    "detectors",
    "recipes",
    "doctor",
)
"""The commands that are also functions of this package."""

__all__ = ["VERBS", "__version__"]


def _verb(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module("detdistill.cli.verbs"), name)
    return function


class _CallableModule(ModuleType):
    """A module that shares its name with a verb; calling it calls the verb."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401 - the verb's own
        return _verb(self.__name__.rpartition(".")[2])(*arguments, **settings)


class _Package(ModuleType):
    """This package; modules in it that share a verb's name become callable when imported."""

    def __setattr__(self, name: str, value: object) -> None:
        """The import system comes here when a submodule was imported."""
        if name in VERBS and isinstance(value, ModuleType):
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a function or a module
    """Verbs appear on first use."""
    if name not in VERBS:
        raise AttributeError(f"module 'detdistill' has no attribute {name!r}")
    if importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    return _verb(name)


def __dir__() -> list[str]:
    """What there is, verbs included."""
    return sorted({*globals(), *VERBS})


sys.modules[__name__].__class__ = _Package
