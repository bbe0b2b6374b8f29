"""What a paper that uses these runs cites: their methods, their detectors, the data by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from detdistill.report.runs import Run, family_of
from detdistill.report.sources import Source

_FILE = Path(__file__).with_name("references.bib")
_KEY = re.compile(r"@\w+\{[a-z]+\d{4}(\w+),")
"""Of an entry: the name of a detector or of a kind of data stands behind author and year."""


def citations(runs: Sequence[Run], sources: Iterable[Source]) -> str:
    """BibTeX, each entry once: first the methods, then detectors and data.

    A folder in COCO's layout need not be COCO: its entry is there where the name says so.
    """
    methods = (source.citation for source in sources)
    detectors = (_references().get(family_of(run.student)) for run in runs)
    data = (_references().get(_kind(run.data)) for run in runs)
    return "\n\n".join(dict.fromkeys(filter(None, (*methods, *detectors, *data))))


@cache
def _references() -> dict[str, str]:
    entries = re.split(r"\n\n+", _FILE.read_text(encoding="utf-8").strip())
    return {match[1]: entry for entry in entries if (match := _KEY.match(entry))}


def _kind(data: str) -> str:
    """`coco` for COCO itself, `voc` likewise; empty for others."""
    layout, _, place = data.partition(":")
    return layout if layout in place.lower() else ""
