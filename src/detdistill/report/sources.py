"""What a page says of the methods that its runs used: idea, settings, paper, BibTeX."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from detdistill import methods
from detdistill.report.runs import Run

_NAME = re.compile(r"^[\w+-]+:\s+")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One method as the page shows it."""

    name: str
    idea: str
    settings: tuple[tuple[str, str], ...]
    """What was set, and what was left at its default."""
    paper: str
    differs: str
    """Where it departs from the authors' code."""
    reading: str
    """Set where the authors published no code or no formula: whose reading it is."""
    citation: str
    """BibTeX."""


def sources(runs: Sequence[Run]) -> list[Source]:
    """Each method with each of its settings, once, in the order of the runs."""
    found = [
        _source(name, settings) for run in runs for name, settings in sorted(run.methods.items())
    ]
    return list(dict.fromkeys(found))


def our_readings(names: Iterable[str]) -> list[str]:
    """Those methods of this package that had no code or no formula to go by."""
    ours = methods.names()
    return [name for name in names if name in ours and methods.find(name).reading]


def _source(name: str, settings: dict[str, Any]) -> Source:
    """A method of this package; of others only the settings, since nothing foreign is imported."""
    if name not in methods.names():
        return _foreign(name, settings)
    method = methods.find(name)
    about = {part: _sentence(text) for part, text in methods.about(method).items()}
    return Source(
        name=name,
        idea=_sentence(_NAME.sub("", about["idea"])),
        settings=_written({**method().settings(), **settings}),
        paper=about["Paper"],
        differs=about["Differs"],
        reading=method.reading,
        citation=inspect.cleandoc(getattr(method, "citation", "")),
    )


def _foreign(name: str, settings: dict[str, Any]) -> Source:
    idea = "A method from outside this package; its own documentation describes it."
    written = _written(settings)
    return Source(
        name=name, idea=idea, settings=written, paper="", differs="", reading="", citation=""
    )


def _sentence(text: str) -> str:
    """Without code marks, with a capital letter in front."""
    line = text.replace("`", "")
    return line[:1].upper() + line[1:]


def _written(settings: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in settings.items())
