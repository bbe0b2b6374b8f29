"""The index of a folder of figures: which there are, their words and their files."""

from __future__ import annotations

from pathlib import Path

from detdistill.errors import UserError
from detdistill.files import read_json

INDEX = "index.json"
FORMATS = ("png", "svg", "json", "csv")
WORDS = ("name", "title", "caption", "source", "alt", "group", "tab")

Entry = dict[str, str]
"""A figure's words, the `figure` that was asked for, and its files by format."""


def index(folder: Path) -> list[Entry]:
    """What `explain` wrote of the figures in a folder; nothing where it drew none.

    Raises:
        UserError: the index cannot be read, or is another file.
    """
    path = folder / INDEX
    if not path.exists():
        return []
    entries = read_json(path)
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(
            f"{path} is not an index of figures: remove it, and make the figures anew with "
            "'detdistill explain'."
        )
    return entries


def _is_entry(found: object) -> bool:
    names = ("figure", *WORDS, *FORMATS)
    return isinstance(found, dict) and all(isinstance(found.get(name), str) for name in names)
