"""Pictures with known objects: `open` a data set by its name, then `stream` batches of it.

A name is `shapes` or `shapes:LEVEL` for the built-in pictures; `coco:PATH`, `voc:PATH` and
`yolo:PATH` are folders on disk, `coco:ANNOTATIONS.json,PICTURES` any file in COCO's format and its
pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from detdistill.data import coco, pictures, shapes, voc, yolo
from detdistill.data.augment import Augmenter
from detdistill.data.damage import Ledger
from detdistill.data.dataset import Dataset, Sample, collate
from detdistill.data.folder import SKIPPABLE, Opening, PictureFolder
from detdistill.data.stream import stream
from detdistill.data.transforms import Resize, Resized
from detdistill.errors import UserError, unknown_name

__all__ = [
    "SPLITS",
    "Augmenter",
    "Dataset",
    "Ledger",
    "Opening",
    "Resize",
    "Sample",
    "collate",
    "names",
    "open",
    "open_files",
    "pictures",
    "splits",
    "stream",
    "tested",
]

SPLITS = ("train", "tune", "test")
"""Learn from the first, choose settings on the second, report on the third and on nothing else."""

SYNONYMS = {"val": "tune"}


def open(  # noqa: A001 - `data.open` is what one expects
    name: str,
    split: str,
    limit: int | None = None,
    resize: Resize | None = None,
    *,
    skippable: float = SKIPPABLE,
    decode: bool = False,
) -> Dataset:
    """The data set with this name.

    Args:
        name: `shapes`, `shapes:LEVEL`, `coco:PATH`, `voc:PATH` or `yolo:PATH/data.yaml`; or
            `coco:ANNOTATIONS.json,PICTURES`, or `coco:FILE.yaml` with a line `train:
            ANNOTATIONS.json,PICTURES` and others for `val` and `test`.
        split: `train`, `tune` (or `val`), `test`. A data set without a test part tests on `val`.
        limit: take only this many pictures, the first ones.
        resize: scales the pictures; without it they keep their size.
        skippable: largest share of pictures, and of annotations, that may be left out because
            they cannot be used.
        decode: decode every picture now, so that none turns out to be damaged later. What is
            evaluated on is opened so: a result is then of pictures that are known beforehand.

    Raises:
        UserError: there is no such data set or split, or it cannot be used.
    """
    part = _split(split)
    if limit is not None and limit < 1:
        raise UserError(f"The number of images is {limit}; it must be at least 1.")
    kind, rest = _kind(name)
    dataset: Dataset
    if kind == "shapes":
        dataset = shapes.Shapes(shapes.find(rest or "medium"), part, limit)
    else:
        dataset = open_files(name, part, Opening(limit=limit, skippable=skippable, decode=decode))
    return Resized(dataset, resize) if resize else dataset


def tested(name: str, split: str, images: int) -> Dataset:
    """What a detector was evaluated on, when so many pictures could be used; 0 if nobody knows.

    Raises:
        UserError: as `open`, or it is another number now.
    """
    if _kind(name)[0] == "shapes":
        return open(name, split, images or None)
    for decode in (False, True):  # which costs time, and finds more only where files are damaged
        dataset = open(name, split, skippable=1.0, decode=decode)
        if images in (0, len(dataset)):
            return dataset
    raise UserError(f"{name} has {len(dataset)} pictures for {split} now, not {images} as before.")


def open_files(name: str, split: str, opening: Opening) -> PictureFolder:
    """A data set on disk.

    Raises:
        UserError: as `open`.
    """
    kind, rest = _kind(name)
    return _ON_DISK[kind].open_split(_path(kind, rest), _split(split), opening)


def splits(name: str) -> list[str]:
    """The splits for which a data set has pictures of their own.

    Raises:
        UserError: there is no such data set.
    """
    kind, rest = _kind(name)
    return list(SPLITS) if kind == "shapes" else _ON_DISK[kind].splits(_path(kind, rest))


class _Format(NamedTuple):
    """How data sets of one kind are read."""

    open_split: Callable[[Path, str, Opening], PictureFolder]
    splits: Callable[[Path], list[str]]


_ON_DISK: Mapping[str, _Format] = {
    "coco": _Format(coco.open_split, coco.splits),
    "voc": _Format(voc.open_split, voc.splits),
    "yolo": _Format(yolo.open_split, yolo.splits),
}


def names() -> list[str]:
    """All names that `open` knows, `coco:PATH` standing for any folder."""
    levels = (f"shapes:{level}" for level in shapes.LEVELS)
    return ["shapes", *levels, *(f"{kind}:PATH" for kind in _ON_DISK)]


def _kind(name: str) -> tuple[str, str]:
    """What comes before the colon, and what after it."""
    kind, _, rest = name.partition(":")
    if kind != "shapes" and kind not in _ON_DISK:
        raise unknown_name("data set", name, names())
    return kind, rest


def _path(kind: str, path: str) -> Path:
    if not path:
        pair = " or coco:ANNOTATIONS.json,PICTURES" if kind == "coco" else ""
        raise UserError(f"The data set's place is missing. Write {kind}:PATH{pair}.")
    return Path(path).expanduser()


def _split(name: str) -> str:
    part = SYNONYMS.get(name, name)
    if part not in SPLITS:
        raise unknown_name("split", name, [*SPLITS, *SYNONYMS])
    return part
