"""The figures that `explain` left in run folders, as sections of the page: one, or behind tabs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from detdistill.errors import UserError
from detdistill.files import read_json
from detdistill.report.inline import data_uri, webp
from detdistill.report.runs import Run

_FOLDER = "figures"
_INDEX = "index.json"
_WORDS = ("name", "title", "caption", "alt", "png")
"""What an entry of the index must have."""

_WIDEST = 1600
"""Pixels: twice what the page has, for dense screens and print."""
_HEAVY = 200_000
"""Bytes: photographs rather than lines and areas."""
_ROLES = ("teacher", "student", "alone", "distilled")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawing with its words."""

    tab: str
    title: str
    caption: str
    source: str
    alt: str
    uri: str
    width: int
    height: int
    numbers: str
    """The file that has them; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Drawings that are variants of each other, or a single one."""

    anchor: str
    title: str
    pictures: tuple[Picture, ...]

    @property
    def kind(self) -> str:
        """How one is chosen: `single`, `tabs`, or `slider`, with which the eye sees changes."""
        if len(self.pictures) == 1:
            return "single"
        sizes = {(picture.width, picture.height) for picture in self.pictures}
        among_roles = all(
            any(role in picture.tab.lower() for role in _ROLES) for picture in self.pictures
        )
        return "slider" if among_roles and len(sizes) == 1 else "tabs"

    @property
    def common_caption(self) -> str:
        """The caption that all share; empty if they differ."""
        captions = {picture.caption for picture in self.pictures}
        return captions.pop() if len(captions) == 1 else ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """All figures of one run."""

    anchor: str
    heading: str
    families: tuple[Family, ...]


def sections(runs: Mapping[str, Run]) -> list[Section]:
    """A section for each run that has figures.

    Args:
        runs: by the name that they have in the tables.

    Raises:
        UserError: an index or a picture cannot be read.
    """
    explained = {label: run for label, run in runs.items() if are_there(run)}
    return [
        Section(
            anchor=f"figures-{number}",
            heading=f"Figures of {label}",
            families=tuple(_families(run, f"figures-{number}")),
        )
        for number, (label, run) in enumerate(explained.items())
    ]


def are_there(run: Run) -> bool:
    """Whether `explain` drew figures of the run."""
    index = run.folder / _FOLDER / _INDEX
    return index.exists() and bool(_entries(index))


def _families(run: Run, anchor: str) -> Iterator[Family]:
    """The figures of a run in the order of the index, those of a group together."""
    folder = run.folder / _FOLDER
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in _entries(folder / _INDEX):
        groups.setdefault(entry.get("group") or entry["name"], []).append(entry)
    for number, (group, entries) in enumerate(groups.items()):
        yield Family(
            anchor=f"{anchor}-{number}",
            title=_shared_title(group, entries),
            pictures=tuple(_picture(folder, entry) for entry in entries),
        )


def _entries(index: Path) -> list[dict[str, Any]]:
    entries = read_json(index)
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(word), str) for word in _WORDS)
        for entry in entries
    )
    if not whole:
        raise UserError(f"{index} is not an index of figures: {_again(index.parent)}")
    return list(entries)


def _shared_title(group: str, entries: Sequence[Mapping[str, Any]]) -> str:
    titles = {entry["title"] for entry in entries}
    if len(titles) == 1:
        return str(titles.pop())
    words = re.sub(r"[\W_]+", " ", group).strip()
    return words[:1].upper() + words[1:]


def _picture(folder: Path, entry: Mapping[str, Any]) -> Picture:
    uri, (width, height) = _smallest(folder, entry)
    return Picture(
        tab=str(entry.get("tab") or entry["title"]),
        title=entry["title"],
        caption=entry["caption"],
        source=str(entry.get("source") or ""),
        alt=entry["alt"] or entry["title"],
        uri=uri,
        width=width,
        height=height,
        numbers=str(folder / Path(entry["csv"]).name) if entry.get("csv") else "",
    )


def _smallest(folder: Path, entry: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    """The drawing inside the page, as SVG if that takes less room, and its size in pixels.

    An SVG in an `img` element can run no script and load nothing.
    """
    pixels, kind, size = _pixels(folder / Path(entry["png"]).name)
    svg = folder / Path(str(entry.get("svg") or "-")).name
    lines = svg.read_bytes() if svg.is_file() else b""
    if lines and len(lines) < len(pixels):
        return data_uri(lines, "svg+xml"), size
    return data_uri(pixels, kind), size


def _pixels(file: Path) -> tuple[bytes, str, tuple[int, int]]:
    """A picture as it lies there, or in fewer bytes and no wider than anybody can see."""
    try:
        content = file.read_bytes()
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except OSError as error:
        raise UserError(f"{file} cannot be shown ({error}): {_again(file.parent)}") from error
    if picture.width <= _WIDEST and len(content) <= _HEAVY:
        return content, "png", picture.size
    smaller = picture.convert("RGB")
    smaller.thumbnail((_WIDEST, picture.height))
    return webp(smaller), "webp", smaller.size


def _again(folder: Path) -> str:
    return f"make the figures anew with 'detdistill explain {folder.parent}'."
