"""The figures that `explain` left in run folders, as sections of the page: one, or behind tabs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from detdistill import run_files
from detdistill.errors import UserError
from detdistill.report.index import Entry, index
from detdistill.report.inline import data_uri, webp
from detdistill.report.runs import Run

_WIDEST = 1600
"""Pixels: twice what the page has, for dense screens and print."""
_HEAVY = 200_000
"""Bytes: photographs rather than lines and areas."""


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
    """The file that has them."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Drawings that are variants of each other, or a single one."""

    anchor: str
    title: str
    pictures: tuple[Picture, ...]

    @property
    def kind(self) -> str:
        """How one is chosen: `single` or `tabs`."""
        return "single" if len(self.pictures) == 1 else "tabs"

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
    groups: tuple[Group, ...]


def sections(runs: Iterable[tuple[str, Run]]) -> list[Section]:
    """A section for each run that has figures.

    Args:
        runs: behind what each is called in its heading.

    Raises:
        UserError: an index or a picture cannot be read.
    """
    explained = [(name, run) for name, run in runs if are_there(run)]
    return [
        Section(
            anchor=f"figures-{number}",
            heading=f"Figures of {name}",
            groups=tuple(_groups(run, f"figures-{number}")),
        )
        for number, (name, run) in enumerate(explained)
    ]


def are_there(run: Run) -> bool:
    """Whether `explain` drew figures of the run."""
    return bool(index(run.folder / run_files.FIGURES))


def _groups(run: Run, anchor: str) -> Iterator[Group]:
    """The figures of a run in the order of the index, those of a group together."""
    folder = run.folder / run_files.FIGURES
    by_group: dict[str, list[Entry]] = {}
    for entry in index(folder):
        by_group.setdefault(entry["group"] or entry["name"], []).append(entry)
    for number, (group, entries) in enumerate(by_group.items()):
        yield Group(
            anchor=f"{anchor}-{number}",
            title=_shared_title(group, entries),
            pictures=tuple(_picture(folder, entry) for entry in entries),
        )


def _shared_title(group: str, entries: Sequence[Entry]) -> str:
    titles = {entry["title"] for entry in entries}
    if len(titles) == 1:
        return titles.pop()
    words = re.sub(r"[\W_]+", " ", group).strip()
    return words[:1].upper() + words[1:]


def _picture(folder: Path, entry: Entry) -> Picture:
    uri, (width, height) = _smallest(folder, entry)
    return Picture(
        tab=entry["tab"] or entry["title"],
        title=entry["title"],
        caption=entry["caption"],
        source=entry["source"],
        alt=entry["alt"] or entry["title"],
        uri=uri,
        width=width,
        height=height,
        numbers=str(folder / Path(entry["csv"]).name),
    )


def _smallest(folder: Path, entry: Entry) -> tuple[str, tuple[int, int]]:
    """The drawing inside the page, as SVG if that takes less room, and its size in pixels.

    An SVG in an `img` element can run no script and load nothing.
    """
    pixels, kind, size = _pixels(folder / Path(entry["png"]).name)
    svg = folder / Path(entry["svg"]).name
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
        raise UserError(
            f"{file} cannot be shown ({error}): make the figures anew with 'detdistill explain "
            f"{file.parent.parent}'."
        ) from error
    if picture.width <= _WIDEST and len(content) <= _HEAVY:
        return content, "png", picture.size
    smaller = picture.convert("RGB")
    smaller.thumbnail((_WIDEST, picture.height))
    return webp(smaller), "webp", smaller.size
