"""Pictures with known objects: `open` a data set by its name, then `stream` batches of it.

A name is `shapes` or `shapes:LEVEL` for the built-in pictures, `coco:PATH` for a folder on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from detdistill.data import coco, shapes
from detdistill.data.dataset import Dataset, Sample, collate
from detdistill.data.stream import stream
from detdistill.data.transforms import Resize, Resized
from detdistill.errors import UserError, unknown_name

__all__ = ["SPLITS", "Dataset", "Resize", "Sample", "collate", "names", "open", "stream"]

SPLITS = ("train", "tune", "test")
"""Learn from the first, choose settings on the second, report on the third and on nothing else."""

SYNONYMS = {"val": "tune"}


def open(  # noqa: A001 - `data.open` is what one expects
    name: str, split: str, limit: int | None = None, resize: Resize | None = None
) -> Dataset:
    """The data set with this name.

    Args:
        name: `shapes`, `shapes:LEVEL` or `coco:PATH`.
        split: `train`, `tune` (or `val`), `test`. A folder without a test part tests on `val`.
        limit: take only this many pictures, the first ones.
        resize: scales the pictures; without it they keep their size.

    Raises:
        UserError: there is no such data set or split, or it cannot be used.
    """
    part = SYNONYMS.get(split, split)
    if part not in SPLITS:
        raise unknown_name("split", split, [*SPLITS, *SYNONYMS])
    if limit is not None and limit < 1:
        raise UserError(f"The number of images is {limit}; it must be at least 1.")
    kind, _, rest = name.partition(":")
    if kind not in _KINDS:
        raise unknown_name("data set", name, names())
    dataset = _KINDS[kind](rest, part, limit)
    return Resized(dataset, resize) if resize else dataset


def _shapes(level: str, split: str, limit: int | None) -> Dataset:
    return shapes.Shapes(shapes.find(level or "medium"), split, limit)


def _coco(path: str, split: str, limit: int | None) -> Dataset:
    if not path:
        raise UserError("The data set's folder is missing. Write coco:PATH.")
    return coco.CocoFolder(Path(path).expanduser(), split, limit)


_KINDS: Mapping[str, Callable[[str, str, int | None], Dataset]] = {
    "shapes": _shapes,
    "coco": _coco,
}


def names() -> list[str]:
    """All names that `open` knows, `coco:PATH` standing for any folder."""
    return ["shapes", *(f"shapes:{level}" for level in shapes.LEVELS), "coco:PATH"]
