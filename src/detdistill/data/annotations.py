"""Reads an annotation file in COCO's format and leaves out what cannot be true.

Everything is kept in arrays, one row per annotation, because COCO has close to a million of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detdistill.errors import UserError
from detdistill.files import read_json

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image as the file describes it."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The checked content of an annotation file, its rows sorted by picture."""

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    """Names in the order of their category ids."""
    category_ids: tuple[int, ...]
    boxes: NDArray[np.float64]
    """(M, 4) left, top, width, height, as in the file."""
    areas: NDArray[np.float64]
    """(M,) as in the file, or the box's where the file has none."""
    labels: NDArray[np.int64]
    """(M,) positions in `classes`."""
    crowd: NDArray[np.bool_]
    """(M,)."""
    starts: NDArray[np.int64]
    """(pictures + 1,) the rows of picture i are `starts[i]` to `starts[i + 1]`."""
    dropped: dict[str, int]
    """How many annotations were left out, by reason."""

    def rows(self, index: int) -> slice:
        """The rows of one picture."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


def read(path: Path) -> Annotations:
    """Reads and checks an annotation file.

    Left out and counted: annotations that repeat an id, belong to no picture, have a box that is
    not finite, has no area, or lies outside its picture.

    Raises:
        UserError: the file cannot be read, lacks what it needs, or contradicts itself.
    """
    content = _content(path)
    pictures = tuple(_picture(path, entry) for entry in content["images"])
    _check_unique(path, "images", [picture.id for picture in pictures])
    names = _categories(path, content["categories"])
    entries: list[Entry] = content["annotations"]
    boxes = _boxes(path, entries)
    places = {picture.id: place for place, picture in enumerate(pictures)}
    owners = np.array([places.get(_whole(path, e, "image_id"), -1) for e in entries], np.int64)
    keep, dropped = _kept(entries, boxes, owners, pictures)
    order = keep[np.argsort(owners[keep], kind="stable")]
    return Annotations(
        pictures=pictures,
        classes=tuple(names.values()),
        category_ids=tuple(names),
        boxes=boxes[order],
        areas=_areas(entries, boxes)[order],
        labels=_labels(path, entries, names)[order],
        crowd=np.array([bool(e.get("iscrowd", 0)) for e in entries], np.bool_)[order],
        starts=np.searchsorted(owners[order], np.arange(len(pictures) + 1)),
        dropped=dropped,
    )


def _content(path: Path) -> dict[str, list[Entry]]:
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise UserError(
                f"{path} is not an annotation file in COCO's format: it needs a list {key!r}."
            )
    return content


def _get(path: Path, entry: Entry, key: str) -> Any:  # noqa: ANN401 - any JSON value
    if key not in entry:
        raise UserError(f"{path}: an entry has no {key!r}: {str(dict(entry))[:120]}.")
    return entry[key]


def _whole(path: Path, entry: Entry, key: str, least: float = -math.inf) -> int:
    number = _get(path, entry, key)
    if not isinstance(number, int) or number < least:
        wanted = "a whole number" if least < 0 else "a positive whole number"
        raise UserError(f"{path}: {key!r} must be {wanted}: {str(dict(entry))[:120]}.")
    return number


def _picture(path: Path, entry: Entry) -> Picture:
    return Picture(
        id=_whole(path, entry, "id"),
        file_name=str(_get(path, entry, "file_name")),
        width=_whole(path, entry, "width", least=1),
        height=_whole(path, entry, "height", least=1),
    )


def _categories(path: Path, entries: Sequence[Entry]) -> dict[int, str]:
    """Names by id, ids ascending."""
    pairs = [(_whole(path, e, "id"), str(_get(path, e, "name"))) for e in entries]
    if not pairs:
        raise UserError(f"{path} has no categories, so there is nothing to detect.")
    _check_unique(path, "categories", [number for number, _ in pairs])
    return dict(sorted(pairs))


def _check_unique(path: Path, what: str, ids: Sequence[int]) -> None:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            raise UserError(f"{path}: two {what} have the id {number}. Give each its own.")
        seen.add(number)


def _boxes(path: Path, entries: Sequence[Entry]) -> NDArray[np.float64]:
    boxes = [_get(path, entry, "bbox") for entry in entries]
    for entry, box in zip(entries, boxes, strict=True):
        if not isinstance(box, list) or [isinstance(n, int | float) for n in box] != [True] * 4:
            raise UserError(
                f"{path}: the box of annotation {entry.get('id')} is {box!r}, "
                "not the four numbers [left, top, width, height]."
            )
    numbers = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes))
    return numbers.reshape(-1, 4)


def _labels(path: Path, entries: Sequence[Entry], names: Mapping[int, str]) -> NDArray[np.int64]:
    labels = {number: label for label, number in enumerate(names)}
    numbers = [_whole(path, entry, "category_id") for entry in entries]
    unknown = sorted({number for number in numbers if number not in labels})
    if unknown:
        raise UserError(
            f"{path}: annotations use category ids that are not among the categories: "
            f"{', '.join(map(str, unknown[:8]))}. Add the categories, or remove the annotations."
        )
    return np.array([labels[number] for number in numbers], np.int64)


def _areas(entries: Sequence[Entry], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    own = boxes[:, 2] * boxes[:, 3]
    given = (entry.get("area") for entry in entries)
    usable = (a if isinstance(a, int | float) and math.isfinite(a) else None for a in given)
    return np.array([own[r] if a is None else a for r, a in enumerate(usable)], np.float64)


def _kept(
    entries: Sequence[Entry],
    boxes: NDArray[np.float64],
    owners: NDArray[np.int64],
    pictures: Sequence[Picture],
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The rows that can be used, and how many cannot, each counted under its first reason."""
    sizes = np.array([(p.width, p.height) for p in pictures] or [(0, 0)], np.float64)[owners]
    finite = np.isfinite(boxes).all(1)
    inside = (boxes[:, :2] < sizes) & (boxes[:, :2] + boxes[:, 2:] > 0)
    reasons = {
        "repeats an id": _repeated(entries),
        "belongs to no picture": owners < 0,
        "box is not finite": ~finite,
        "box has no area": ~(boxes[:, 2:] > 0).all(1),
        "box is outside the picture": ~inside.all(1),
    }
    usable = np.ones(len(entries), np.bool_)
    dropped = {}
    for reason, wrong in reasons.items():
        if count := int((usable & wrong).sum()):
            dropped[reason] = count
        usable &= ~wrong
    return np.flatnonzero(usable), dropped


def _repeated(entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Where an annotation's id has been used before; those without an id are all their own."""
    seen: set[int] = set()
    repeated = np.zeros(len(entries), np.bool_)
    for row, entry in enumerate(entries):
        number = entry.get("id")
        repeated[row] = number in seen
        if number is not None:
            seen.add(number)
    return repeated
