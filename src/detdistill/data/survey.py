"""Looks through a data set on disk: how much there is of what, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from detdistill.data import Opening, open_files, splits
from detdistill.errors import UserError

SMALL, MEDIUM = 32**2, 96**2
"""COCO's limits of an object's area in square pixels."""

EVERYTHING = Opening(skippable=1.0, decode=True)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """One split."""

    split: str
    error: str | None = None
    """Why it cannot be used at all; then there are no counts."""
    counts: dict[str, int] = field(default_factory=dict)
    """Pictures, those without objects, objects, crowds, small, medium and large objects."""
    sizes: str = ""
    """Smallest, median and largest sides of the pictures."""
    classes: dict[str, int] = field(default_factory=dict)
    """Objects of each class."""
    defects: tuple[str, ...] = ()
    """What would be left out, and where it stands."""


def survey(name: str) -> list[Survey]:
    """Every split that has pictures of its own; every picture is decoded.

    Raises:
        UserError: there is no such data set, or it has no split.
    """
    own = splits(name)
    if not own:
        raise UserError(f"{name} has neither training, tuning nor test pictures.")
    return [_split(name, split) for split in own]


def _split(name: str, split: str) -> Survey:
    try:
        dataset = open_files(name, split, EVERYTHING)
    except UserError as error:
        return Survey(split=split, error=str(error))
    truth = dataset.ground_truth()
    names = {category["id"]: category["name"] for category in truth["categories"]}
    uses = Counter(names[entry["category_id"]] for entry in truth["annotations"])
    return Survey(
        split=split,
        counts=_counts(truth),
        sizes=_sizes(truth["images"]),
        classes={name: uses[name] for name in names.values()},
        defects=tuple(map(str, dataset.defects)),
    )


def _counts(truth: dict[str, Any]) -> dict[str, int]:
    entries = truth["annotations"]
    areas = [entry["area"] for entry in entries if not entry["iscrowd"]]
    return {
        "pictures": len(truth["images"]),
        "without objects": len(truth["images"]) - len({entry["image_id"] for entry in entries}),
        "objects": len(areas),
        "crowds": len(entries) - len(areas),
        "small": sum(area < SMALL for area in areas),
        "medium": sum(SMALL <= area < MEDIUM for area in areas),
        "large": sum(area >= MEDIUM for area in areas),
    }


def _sizes(images: list[dict[str, Any]]) -> str:
    """Width by height, each as smallest, median, largest."""
    if not images:
        return ""
    sides = [[image[side] for image in images] for side in ("width", "height")]
    return " x ".join(f"{min(one)}/{median(one):g}/{max(one)}" for one in sides)
