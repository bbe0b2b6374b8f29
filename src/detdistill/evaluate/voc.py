"""Pascal VOC's average precision at an IoU of 0.5, in the way of 2007 and in the way since 2010.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, sec. 4.2,
and the development kits. Unlike COCO's, a detection is judged by the object that it overlaps most,
whether another one has found that already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detdistill.boxes import from_coco, pairwise_iou

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

LEAST_IOU = 0.5
POINTS = np.arange(11) / 10
"""The recalls at which precision was read until 2009, each as the fraction that recalls are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Means over the classes that have objects, as fractions; -1 where there is none."""

    AP50_area: float
    """Area below the curve of precision over recall, made monotonous: since 2010."""
    AP50_11point: float
    """Mean of the best precision at or beyond eleven recalls: until 2009."""

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def numbers(data: str, ground_truth: Record, detections: Iterable[Record]) -> dict[str, float]:
    """VOC's numbers for a data set with a name like `voc:PATH`, and none for others."""
    return evaluate(ground_truth, detections).to_dict() if data.startswith("voc:") else {}


def evaluate(ground_truth: Record, detections: Iterable[Record]) -> Metrics:
    """Compares detections with the truth, both in COCO's format.

    A crowd is a difficult object: it counts neither when it is found nor when it is missed.
    """
    objects = _grouped(ground_truth["annotations"])
    found = _grouped(detections)
    curves = [
        curve
        for category in ground_truth["categories"]
        if (curve := _curve(objects[category["id"]], found[category["id"]])) is not None
    ]
    return Metrics(
        AP50_area=_mean([curve.area() for curve in curves]),
        AP50_11point=_mean([curve.eleven_points() for curve in curves]),
    )


class Curve(NamedTuple):
    """Of one class, a point for each detection, best first."""

    recall: Floats
    precision: Floats

    def area(self) -> float:
        """Below the curve, each precision raised to the best at a higher recall."""
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(self.recall, prepend=0.0) * best).sum())

    def eleven_points(self) -> float:
        """Mean over recalls 0, 0.1, ..., 1 of the best precision there or beyond; 0 if none is."""
        return _mean([max(self.precision[self.recall >= t], default=0.0) for t in POINTS])


Groups = dict[int, dict[int, list[Record]]]
"""By category, then by image."""


def _grouped(records: Iterable[Record]) -> Groups:
    groups: Groups = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[record["category_id"]][record["image_id"]].append(record)
    return groups


def _curve(objects: Mapping[int, list[Record]], found: Mapping[int, list[Record]]) -> Curve | None:
    """None for a class without objects that count."""
    wanted = sum(not entry.get("iscrowd") for image in objects.values() for entry in image)
    if not wanted:
        return None
    judged = [one for i in found for one in _judged(found[i], objects.get(i, []), i)]
    judged.sort(key=lambda one: -one.score)
    right, wrong = [], []
    seen: set[tuple[int, int]] = set()
    for one in judged:
        new = one.object is not None and one.object not in seen
        if one.object is not None:
            seen.add(one.object)
        right.append(new and not one.difficult)
        wrong.append(not new and not one.difficult)
    hits, misses = np.cumsum(right, dtype=np.float64), np.cumsum(wrong, dtype=np.float64)
    return Curve(hits / wanted, hits / np.maximum(hits + misses, 1.0))


class _Judged(NamedTuple):
    """A detection and what it found."""

    score: float
    object: tuple[int, int] | None
    """Image and place of the object that it overlaps most, if it does so enough."""
    difficult: bool


def _judged(found: Sequence[Record], objects: Sequence[Record], image: int) -> list[_Judged]:
    """The detections of one class in one image."""
    if not objects:
        return [_Judged(one["score"], None, difficult=False) for one in found]
    overlaps, places = pairwise_iou(_corners(found), _corners(objects)).max(dim=1)
    rows = zip(found, overlaps.tolist(), places.tolist(), strict=True)
    return [
        _Judged(one["score"], (image, place), bool(objects[place].get("iscrowd")))
        if overlap >= LEAST_IOU
        else _Judged(one["score"], None, difficult=False)
        for one, overlap, place in rows
    ]


def _corners(records: Sequence[Record]) -> torch.Tensor:
    """(N, 4) xyxy in float64."""
    return from_coco(torch.tensor([record["bbox"] for record in records], dtype=torch.float64))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else -1.0
