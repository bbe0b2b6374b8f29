"""Data sets on disk in COCO's layout: annotations/instances_train2017.json beside train2017/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detdistill.data.annotations import read
from detdistill.data.folder import Opening, PictureFolder, require_folder
from detdistill.errors import UserError

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "tune": ("val",),
    "test": ("test", "val"),
}
"""In which part of the folder a split is: the first whose annotations exist."""


def annotation_file(folder: Path, part: str) -> Path:
    """Where the annotations of `train`, `val` or `test` are."""
    return folder / "annotations" / f"instances_{part}2017.json"


def picture_folder(folder: Path, part: str) -> Path:
    """Where the pictures of `train`, `val` or `test` are."""
    return folder / f"{part}2017"


def open_split(folder: Path, split: str, opening: Opening) -> PictureFolder:
    """One split of a folder in COCO's layout.

    Raises:
        UserError: the folder or a file is missing, the annotations make no sense, or too many of
            them or of the pictures cannot be used.
    """
    part = _existing_part(folder, split)
    instead = part != PARTS[split][0]
    truth = read(annotation_file(folder, part))
    place = picture_folder(folder, part)
    require_folder(place, "The pictures should be there.")
    return PictureFolder(
        truth,
        [place / picture.file_name for picture in truth.pictures],
        origin=annotation_file(folder, part),
        opening=opening,
        notes=[f"the folder has no such part; {part}2017 stands in"] if instead else [],
    )


def splits(folder: Path) -> list[str]:
    """The splits that have a part of their own."""
    return [split for split, parts in PARTS.items() if annotation_file(folder, parts[0]).is_file()]


def _existing_part(folder: Path, split: str) -> str:
    require_folder(folder, "Give the one that contains 'annotations'.")
    parts = PARTS[split]
    for part in parts:
        if annotation_file(folder, part).is_file():
            return part
    raise UserError(
        f"{folder} has no annotations for {split}: "
        f"{annotation_file(folder, parts[-1])} is missing. "
        "A folder in COCO's layout has annotations/instances_train2017.json and train2017/, "
        "and likewise with val2017."
    )
