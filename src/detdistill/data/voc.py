"""Data sets on disk in Pascal VOC's layout: Annotations, JPEGImages and ImageSets/Main per year.

As usual, VOC is trained on `trainval` of 2007 and 2012 together and tested on `test` of 2007.
Difficult objects are regions to ignore: nothing to learn, nothing to be counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from detdistill.data.draft import Draft
from detdistill.data.folder import Opening, PictureFolder, require_folder
from detdistill.errors import UserError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""Those of a folder without a `classes.txt` that lists others, one a line."""

CLASS_FILE = "classes.txt"
YEARS = ("VOC2007", "VOC2012")
CORNERS = ("xmin", "ymin", "xmax", "ymax")

OWN: Mapping[str, tuple[str, ...]] = {
    "train": ("trainval", "train"),
    "tune": ("val",),
    "test": ("test",),
}
"""Which list a split is: the first that exists and is not part of the training."""

STAND_INS: Mapping[str, tuple[str, ...]] = {"train": (), "tune": ("test",), "test": ("val",)}
"""What is taken where a split has no list of its own."""


class Listed(NamedTuple):
    """A picture that a list names."""

    year: Path
    name: str

    @property
    def notes(self) -> Path:
        """Its annotation file."""
        return self.year / "Annotations" / f"{self.name}.xml"


def image_list(year: Path, name: str) -> Path:
    """The file with the names of the pictures of `trainval`, `test`, ..."""
    return year / "ImageSets" / "Main" / f"{name}.txt"


def open_split(folder: Path, split: str, opening: Opening) -> PictureFolder:
    """One split of a folder with VOC2007 or VOC2012 in it, or of one such year.

    Raises:
        UserError: the folder or a list is missing, or too many of the annotations or of the
            pictures cannot be used.
    """
    name, years = _existing_list(folder, split)
    draft = Draft(_classes(folder))
    listed = [entry for year in years for entry in _listed(year, name)]
    for entry in listed[: opening.limit]:
        try:
            _add(draft, entry)
        except UserError as error:
            draft.reject(error)
    instead = name not in OWN[split]
    return PictureFolder(
        draft.table(folder),
        draft.files,
        origin=folder,
        opening=opening,
        notes=[f"the folder has no such part; {name} stands in"] if instead else [],
    )


def splits(folder: Path) -> list[str]:
    """The splits that have a list of their own."""
    years = _years(folder)
    return [split for split, own in OWN.items() if _first_list(years, own)]


def _years(folder: Path) -> list[Path]:
    require_folder(folder, "Give the one that contains VOC2007 or VOC2012.")
    inside = folder / "VOCdevkit"
    candidates = [place / year for place in (folder, inside) for year in YEARS]
    years = [year for year in candidates if year.is_dir()] or [folder]
    if not any((year / "ImageSets" / "Main").is_dir() for year in years):
        raise UserError(
            f"{folder} is not in Pascal VOC's layout: it should contain VOC2007 or VOC2012 with "
            "Annotations, JPEGImages and ImageSets/Main."
        )
    return years


def _existing_list(folder: Path, split: str) -> tuple[str, list[Path]]:
    """The name of a split's list, and the years that have it; of `test` the first alone."""
    years = _years(folder)
    wanted = (*OWN[split], *STAND_INS[split])
    name = _first_list(years, wanted)
    if name is None:
        raise UserError(
            f"{folder} has no pictures for {split}: ImageSets/Main lacks "
            f"{' and '.join(f'{name}.txt' for name in wanted)}, or trainval.txt contains them."
        )
    having = [year for year in years if image_list(year, name).is_file()]
    return name, having[:1] if name == "test" else having


def _first_list(years: Sequence[Path], names: Sequence[str]) -> str | None:
    """The first of these lists that exists; not `val` where `trainval` contains it."""

    def exists(name: str) -> bool:
        return any(image_list(year, name).is_file() for year in years)

    hidden = "val" if exists("trainval") else None
    return next((name for name in names if name != hidden and exists(name)), None)


def _listed(year: Path, name: str) -> Iterator[Listed]:
    for line in _text(image_list(year, name)).splitlines():
        if line.strip():
            yield Listed(year, line.strip())


def _classes(folder: Path) -> tuple[str, ...]:
    places = [folder, folder.parent] if folder.name in YEARS else [folder]
    file = next((place / CLASS_FILE for place in places if (place / CLASS_FILE).is_file()), None)
    if file is None:
        return CLASSES
    return tuple(line.strip() for line in _text(file).splitlines() if line.strip())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as text: {error}.") from error


def _parsed(file: Path) -> ET.Element:
    try:
        content = file.read_bytes()
        if b"<!ENTITY" in content:  # could grow without end when it is read
            raise UserError(f"{file} defines entities, which no annotation needs.")
        return ET.fromstring(content)  # noqa: S314 - entities are refused above
    except FileNotFoundError as error:
        raise UserError(f"There is no annotation file {file}.") from error
    except (OSError, ValueError, LookupError, ET.ParseError) as error:
        raise UserError(f"{file} cannot be read as XML: {error}.") from error


def _add(draft: Draft, entry: Listed) -> None:
    root = _parsed(entry.notes)
    width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
    if not (1 <= width < math.inf and 1 <= height < math.inf):
        raise UserError(f"{entry.notes} does not say the picture's width and height.")
    ids = {name: number for number, name in enumerate(draft.classes, start=1)}
    name = _file_name(root, entry)
    objects = _objects(root, entry, ids)
    draft.add(entry.year / "JPEGImages" / name, name, (int(width), int(height)), objects)


def _file_name(root: ET.Element, entry: Listed) -> str:
    """Of the picture; tools that copy pictures often forget to change it in the annotation."""
    named = root.findtext("filename", "").strip()
    return named if Path(named).stem == entry.name else f"{entry.name}.jpg"


def _objects(root: ET.Element, entry: Listed, ids: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Objects in COCO's form. Pixels are counted from 1, and the last one belongs to the box."""
    for place, found in enumerate(root.iterfind("object"), start=1):
        left, top, right, bottom = (_number(found, f"bndbox/{corner}") for corner in CORNERS)
        name = found.findtext("name", "").strip()
        hint = "" if name in ids else f"; a {CLASS_FILE} beside the years lists the classes"
        yield {
            "category_id": ids.get(name, -1),
            "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
            "iscrowd": int(_number(found, "difficult") == 1),
            "source": f"{entry.notes}, object {place} ({name}{hint})",
        }


def _number(element: ET.Element, path: str) -> float:
    """NaN if it is missing or no number."""
    try:
        return float(element.findtext(path, ""))
    except ValueError:
        return math.nan
