"""Data sets on disk in YOLO's layout: a data.yaml, pictures, and a text file of boxes for each.

A line of such a file is a class number, then centre, width and height of a box as shares of the
picture's sides, or the corners of a polygon likewise, whose box is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detdistill.data import pictures
from detdistill.data.draft import Draft
from detdistill.data.folder import Opening, PictureFolder, require_folder
from detdistill.data.pictures import ENDINGS, Size
from detdistill.errors import UserError
from detdistill.files import read_yaml

KEYS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "tune": ("val",),
    "test": ("test", "val"),
}
"""Under which key of data.yaml a split is: the first that is there."""

SETTINGS = "data.yaml"
BOX = 4
"""Numbers of a box; a polygon has more, two for each corner."""


def open_split(file: Path, split: str, opening: Opening) -> PictureFolder:
    """One split of what a data.yaml describes.

    Raises:
        UserError: the file or a folder is missing or makes no sense, or too many of the labels or
            of the pictures cannot be used.
    """
    settings = _settings(file)
    key = _existing_key(file, settings, split)
    draft = Draft(_classes(file, settings.get("names")))
    for picture in _pictures(file, settings, key)[: opening.limit]:
        try:
            size = pictures.upright_size(picture)
            objects = list(_objects(label_file(picture), size, len(draft.classes)))
            draft.add(picture, picture.name, size, objects)
        except UserError as error:
            draft.reject(error)
    instead = key != KEYS[split][0]
    return PictureFolder(
        draft.table(file),
        draft.files,
        origin=file,
        opening=opening,
        notes=[f"the data set has no such part; {key} stands in"] if instead else [],
    )


def splits(file: Path) -> list[str]:
    """The splits that have a part of their own."""
    settings = _settings(file)
    return [split for split, keys in KEYS.items() if settings.get(keys[0])]


def label_file(picture: Path) -> Path:
    """Where the boxes of a picture are: in `labels`, where its own path has the last `images`."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _settings(file: Path) -> dict[str, Any]:
    if file.is_dir():
        file = file / SETTINGS
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} does not describe a data set: it needs train, val and names.")
    return content


def _existing_key(file: Path, settings: Mapping[str, Any], split: str) -> str:
    for key in KEYS[split]:
        if settings.get(key):
            return key
    raise UserError(f"{file} has no pictures for {split}: it lacks {' and '.join(KEYS[split])}.")


def _classes(file: Path, names: object) -> tuple[str, ...]:
    """From a list, or from a mapping of the numbers 0, 1, ... to names."""
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: 'names' must list the classes, or map 0, 1, ... to them.")
    return tuple(map(str, names))


def _pictures(file: Path, settings: Mapping[str, Any], key: str) -> list[Path]:
    """Those of the folders, lists and files that a key names, in the order of their names."""
    base = (file if file.is_dir() else file.parent) / str(settings.get("path") or "")
    named = settings[key]
    places = [base / str(place) for place in (named if isinstance(named, list) else [named])]
    return [picture for place in places for picture in _inside(place)]


def _inside(place: Path) -> Sequence[Path]:
    if place.suffix == ".txt":
        lines = map(str.strip, _text(place).splitlines())
        return [place.parent / line for line in lines if line]
    require_folder(place, "The pictures should be there, or a .txt file that lists them.")
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in ENDINGS)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {file}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as text: {error}.") from error


def _objects(file: Path, size: Size, classes: int) -> Iterator[dict[str, Any]]:
    """In COCO's form; a picture without a file shows no object."""
    if not file.is_file():
        return
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if line.strip():
            label, *shares = map(_number, line.split())
            yield {
                "category_id": int(label) + 1 if label in range(classes) else -1,
                "bbox": _box(shares, size),
                "source": f"{file}, line {number}",
            }


def _box(shares: Sequence[float], size: Size) -> list[float]:
    """Left, top, width, height in pixels; NaN where the numbers are no box."""
    if len(shares) == BOX:
        x, y, width, height = shares
        corners: tuple[float, ...] = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(shares) > BOX and len(shares) % 2 == 0:
        across, down = shares[::2], shares[1::2]
        corners = (min(across), min(down), max(across), max(down))
    else:
        corners = (math.nan,) * BOX
    left, top, right, bottom = (share * size[i % 2] for i, share in enumerate(corners))
    return [left, top, right - left, bottom - top]


def _number(word: str) -> float:
    """NaN if it is none."""
    try:
        return float(word)
    except ValueError:
        return math.nan
