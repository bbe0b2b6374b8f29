"""The objects of a data set as one table, without what cannot be true.

Every format is brought into COCO's form first, and `checked` here. Everything is kept in arrays,
one row per annotation, because COCO has close to a million of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detdistill.errors import UserError
from detdistill.files import read_json

Entry = Mapping[str, Any]

LARGEST = 2**53
"""Ids and numbers up to this are exact everywhere: in JSON, in arrays, in tensors."""


class Defect(NamedTuple):
    """A picture or an annotation that cannot be used."""

    kind: Literal["picture", "annotation"]
    reason: str
    where: str
    """The file, and what in it; of a picture the whole story."""

    def __str__(self) -> str:
        """What is wrong, and where, without a full stop."""
        story = self.where if self.kind == "picture" else f"{self.where}: {self.reason}"
        return story.rstrip(".")


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
    supercategories: tuple[str | None, ...]
    """Of each class, where the file names one."""
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
    defects: tuple[Defect, ...]
    """What was left out."""

    def rows(self, index: int) -> slice:
        """The rows of one picture."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def only(self, places: Sequence[int]) -> Annotations:
        """The same of some of the pictures."""
        kept = [np.arange(self.starts[place], self.starts[place + 1]) for place in places]
        rows = np.concatenate([np.zeros(0, np.int64), *kept])
        return replace(
            self,
            pictures=tuple(self.pictures[place] for place in places),
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            starts=np.cumsum([0, *map(len, kept)]),
        )


def read(path: Path) -> Annotations:
    """Reads and checks an annotation file in COCO's format.

    Raises:
        UserError: the file cannot be read, lacks what it needs, or contradicts itself.
    """
    return checked(_content(path), path)


def checked(
    content: Mapping[str, Sequence[Entry]], path: Path, defects: Sequence[Defect] = ()
) -> Annotations:
    """The table of what COCO's format says.

    Left out and listed: annotations that repeat an id, belong to no picture, are of no category,
    or have a box that is none, is not finite, has no area, or lies outside its picture, or do not
    say whether they are a crowd.

    Args:
        content: COCO's `images`, `annotations` and `categories`. The `source` of an annotation
            says where it stands, if not in `path`.
        path: the file or folder that errors name.
        defects: what has been left out already.

    Raises:
        UserError: something is missing, or the file contradicts itself.
    """
    pictures = tuple(_picture(path, entry) for entry in content["images"])
    _check_unique(path, "images", [picture.id for picture in pictures])
    names = _categories(path, content["categories"])
    entries = content["annotations"]
    boxes, crowd = _boxes(entries), _crowd(entries)
    places = {picture.id: place for place, picture in enumerate(pictures)}
    owners = np.array([places.get(_whole(path, e, "image_id"), -1) for e in entries], np.int64)
    labels = _labels(path, entries, names)
    reasons = _reasons(path, entries, boxes, _sizes(pictures, owners)) | {
        "belongs to no picture": owners < 0,
        "its class is not one of the data set's": labels < 0,
        "iscrowd is neither 0 nor 1": np.isnan(crowd),
    }
    keep, found = _kept(path, entries, reasons)
    order = keep[np.argsort(owners[keep], kind="stable")]
    return Annotations(
        pictures=pictures,
        classes=tuple(names.values()),
        category_ids=tuple(names),
        supercategories=_supercategories(content["categories"]),
        boxes=boxes[order],
        areas=_areas(entries, boxes)[order],
        labels=labels[order],
        crowd=crowd[order] == 1,
        starts=np.searchsorted(owners[order], np.arange(len(pictures) + 1)),
        defects=(*defects, *found),
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


def _whole(path: Path, entry: Entry, key: str, least: int = -LARGEST) -> int:
    number = _get(path, entry, key)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or not least <= number <= LARGEST:
        wanted = "a whole number" if least < 0 else "a positive whole number"
        raise UserError(f"{path}: {key!r} must be {wanted}: {str(dict(entry))[:120]}.")
    return number


def _text(path: Path, entry: Entry, key: str) -> str:
    """A value as text; half a surrogate pair, which only JSON can hold, is spelled out."""
    return str(_get(path, entry, key)).encode(errors="backslashreplace").decode()


def _picture(path: Path, entry: Entry) -> Picture:
    return Picture(
        id=_whole(path, entry, "id"),
        file_name=_text(path, entry, "file_name"),
        width=_whole(path, entry, "width", least=1),
        height=_whole(path, entry, "height", least=1),
    )


def _categories(path: Path, entries: Sequence[Entry]) -> dict[int, str]:
    """Names by id, ids ascending."""
    pairs = [(_whole(path, e, "id"), _text(path, e, "name")) for e in entries]
    if not pairs:
        raise UserError(f"{path} has no categories, so there is nothing to detect.")
    _check_unique(path, "categories", [number for number, _ in pairs])
    for name, count in Counter(name for _, name in pairs).items():
        if count > 1:
            numbers = [number for number, named in pairs if named == name]
            raise UserError(
                f"{path}: the categories {numbers} are all called {name!r}. Give each a name of "
                "its own, or all their annotations the same category_id."
            )
    return dict(sorted(pairs))


def _supercategories(entries: Sequence[Entry]) -> tuple[str | None, ...]:
    """In the order of their categories' ids."""
    found = ((e["id"], e.get("supercategory")) for e in entries)
    return tuple(name and str(name) for _, name in sorted(found, key=itemgetter(0)))


def _check_unique(path: Path, what: str, ids: Sequence[int]) -> None:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            raise UserError(f"{path}: two {what} have the id {number}. Give each its own.")
        seen.add(number)


def _boxes(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """(M, 4) NaN where there are no four numbers."""
    boxes = [_four_numbers(entry.get("bbox")) for entry in entries]
    bounded = (math.inf if abs(n) > LARGEST else n for n in chain.from_iterable(boxes))
    return np.fromiter(bounded, np.float64, 4 * len(boxes)).reshape(-1, 4)


def _four_numbers(box: Any) -> list[float]:  # noqa: ANN401 - any JSON value
    """The same, or four times NaN."""
    fits = isinstance(box, list) and [isinstance(n, int | float) for n in box] == [True] * 4
    return box if fits else [math.nan] * 4


def _crowd(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """(M,) 1 or 0; NaN where it is something else."""
    given = (entry.get("iscrowd") for entry in entries)
    known = (0 if flag is None else flag for flag in given)
    return np.array([flag if _is_zero_or_one(flag) else math.nan for flag in known], np.float64)


def _is_zero_or_one(flag: object) -> bool:
    return isinstance(flag, int | float) and flag in (0, 1)


def _labels(path: Path, entries: Sequence[Entry], names: Mapping[int, str]) -> NDArray[np.int64]:
    """(M,) -1 where the category is unknown."""
    labels = {number: label for label, number in enumerate(names)}
    numbers = (_whole(path, entry, "category_id") for entry in entries)
    return np.array([labels.get(number, -1) for number in numbers], np.int64)


def _areas(entries: Sequence[Entry], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    own = boxes[:, 2] * boxes[:, 3]
    given = (entry.get("area") for entry in entries)
    usable = (a if isinstance(a, int | float) and abs(a) <= LARGEST else None for a in given)
    return np.array([own[r] if a is None else a for r, a in enumerate(usable)], np.float64)


def _sizes(pictures: Sequence[Picture], owners: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M, 2) width and height of each annotation's picture; anything where it has none."""
    return np.array([(p.width, p.height) for p in pictures] or [(0, 0)], np.float64)[owners]


def _reasons(
    path: Path, entries: Sequence[Entry], boxes: NDArray[np.float64], sizes: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """(M,) where an annotation is wrong in itself, by the reason."""
    inside = (boxes[:, :2] < sizes) & (boxes[:, :2] + boxes[:, 2:] > 0)
    return {
        "repeats an id": _repeated(path, entries),
        "box is not four numbers": np.logical_and.reduce(np.isnan(boxes), axis=1),
        "box is not finite": _any_not(np.isfinite(boxes)),
        "box has no area": _any_not(boxes[:, 2:] > 0),
        "box is outside the picture": _any_not(inside),
    }


def _any_not(holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(M, n) -> (M,)."""
    return np.logical_or.reduce(~holds, axis=1)


def _kept(
    path: Path, entries: Sequence[Entry], reasons: Mapping[str, NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], list[Defect]]:
    """The rows that can be used, and the others, each under its first reason."""
    usable = np.ones(len(entries), np.bool_)
    defects = []
    for reason, wrong in reasons.items():
        rows = np.flatnonzero(usable & wrong).tolist()
        defects += [Defect("annotation", reason, _where(path, entries[row])) for row in rows]
        usable &= ~wrong
    return np.flatnonzero(usable), defects


def _where(path: Path, entry: Entry) -> str:
    return str(entry.get("source") or f"{path}, annotation {entry.get('id')}")


def _repeated(path: Path, entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Where an annotation's id has been used before; those without an id are all their own."""
    seen: set[int] = set()
    repeated = np.zeros(len(entries), np.bool_)
    for row, entry in enumerate(entries):
        if entry.get("id") is not None:
            number = _whole(path, entry, "id")
            repeated[row] = number in seen
            seen.add(number)
    return repeated
