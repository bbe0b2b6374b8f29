"""COCO's error analysis: how precise a detector would be if kinds of errors were forgiven in turn.

Source: the analysis of the COCO toolkit for Matlab, which TID's figure 3 shows. It is made of
ordinary evaluations, of changed truths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detdistill.evaluate import coco
from detdistill.evaluate.coco_library import Floats, Library

Json = dict[str, Any]

KINDS: Mapping[str, str] = {
    "C75": "right, IoU 0.75",
    "C50": "right, IoU 0.5",
    "Loc": "box off",
    "Sim": "similar class",
    "Oth": "other class",
    "BG": "background",
    "FN": "not found",
}
"""What is forgiven, one after the other; each curve lies upon the one before."""

SIZES = ("all", "small", "medium", "large")
"""COCO's ranges of areas."""

_IOUS = (0.75, 0.5, 0.1)
_IGNORED_AREA = 1e12
"""Larger than any that COCO counts: what finds such an object is neither right nor wrong."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Precision of a detector by kind of error."""

    classes: tuple[str, ...]
    precision: Floats
    """(7, R, K, A) by kind, recall from 0 to 1, class, size; nan where there are no objects."""

    def curves(self, size: str = "all") -> Floats:
        """(7, R) mean over the classes that have objects of this size; nan if none has."""
        return _mean(self.precision[..., SIZES.index(size)], axis=2)

    def areas(self, size: str = "all") -> Floats:
        """(7, K) area under the curve of each class."""
        return self.precision[..., SIZES.index(size)].mean(axis=1)


def shares(areas: Floats) -> Floats:
    """(7, ...) areas under curves -> what each kind adds to the one before; they sum up to 1."""
    return np.diff(areas, axis=0, prepend=0.0)


def analyse(
    ground_truth: Json, detections: Sequence[Json], *, library: Library | None = None
) -> Analysis:
    """Forgives errors in turn, in all pictures.

    Objects of other classes are ignored from `Sim` (those of the same supercategory) and `Oth` (all
    others) on: a detection that overlaps one by 0.1 is no error. `BG` is right up to the highest
    recall of `Oth`, `FN` everywhere. A class without supercategory is like no other.

    Args:
        ground_truth: in COCO's format.
        detections: COCO results.
        library: who computes; None for the fastest that is installed.

    Raises:
        UserError: as `coco.evaluate`.
    """
    groups = {c["id"]: c.get("supercategory") or c["id"] for c in ground_truth["categories"]}
    similar = _forgiving(ground_truth, detections, lambda a, b: groups[a] == groups[b])
    other = _forgiving(ground_truth, detections, lambda _a, _b: True)
    exact = coco.precision(ground_truth, detections, _IOUS, library=library)
    sim, oth = (
        coco.precision(truth, detections, _IOUS[-1:], library=library) for truth in (similar, other)
    )
    found = np.where(oth > 0, 1.0, oth)
    everything = np.where(oth > -1, 1.0, oth)
    stacked = np.concatenate([exact, sim, oth, found, everything])
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    return Analysis(
        classes=tuple(names[number] for number in sorted(names)),
        precision=np.where(stacked > -1, stacked, np.nan),
    )


def has_supercategories(ground_truth: Json) -> bool:
    """Whether some classes are more alike than others."""
    groups = [category.get("supercategory") for category in ground_truth["categories"]]
    named = [group for group in groups if group]
    return len(set(named)) < len(named)


def _forgiving(
    ground_truth: Json, detections: Sequence[Json], alike: Callable[[int, int], bool]
) -> Json:
    """The same truth with every object also as one to ignore of the classes that are like its own.

    Only of classes that were detected in its picture: elsewhere nothing could be forgiven.
    """
    detected: dict[int, set[int]] = defaultdict(set)
    for found in detections:
        detected[found["image_id"]].add(found["category_id"])
    ignored = [
        {**note, "category_id": number, "area": _IGNORED_AREA}
        for note in ground_truth["annotations"]
        for number in detected[note["image_id"]]
        if number != note["category_id"] and alike(number, note["category_id"])
    ]
    return {**ground_truth, "annotations": [*ground_truth["annotations"], *ignored]}


def _mean(values: Floats, axis: int) -> Floats:
    """The mean without nan; nan where there is nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
