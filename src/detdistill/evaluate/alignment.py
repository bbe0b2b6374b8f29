"""Whether the scores of detections say how good their boxes are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detdistill import boxes

Json = Mapping[str, Any]

_IN_CROWD = 0.5
"""Share of a detection in a crowd of its class above which nobody can say what it found."""
_BINS = 10
"""Ranges of scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlaps:
    """Detections beside the objects of their class that they overlap most."""

    score: Tensor
    """(D,)."""
    iou: Tensor
    """(D,) 0 where there is no such object."""
    owner: Tensor
    """(D,) number of that object, -1 where there is none."""
    objects: int
    """How many there are in all images; crowds are none."""

    def best(self, quality: Tensor) -> Tensor:
        """Of a quality (D,) the best of each object's detections: (objects,), 0 without any."""
        owned = self.owner >= 0
        none = quality.new_zeros(self.objects)
        return none.scatter_reduce(0, self.owner[owned], quality[owned], "amax")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Detections by their score, in bins of equal width."""

    count: Tensor
    """(bins,)."""
    score: Tensor
    """(bins,) their mean; nan in an empty bin, likewise below."""
    iou: Tensor
    """(bins,) the mean overlap."""

    @property
    def error(self) -> float:
        """Mean distance of score and overlap over the bins, weighted by their counts."""
        gap = (self.score - self.iou).abs().nan_to_num()
        return float((gap * self.count).sum() / self.count.sum().clamp(min=1))


def overlaps(ground_truth: Json, detections: Iterable[Json]) -> Overlaps:
    """Looks up, for each detection, how well it fits an object of its class.

    Several detections may share an object. Those that mostly lie in a crowd are left out.

    Args:
        ground_truth: in COCO's format.
        detections: COCO results.
    """
    real = [note for note in ground_truth["annotations"] if not note.get("iscrowd")]
    objects = _grouped(list(enumerate(real)))
    crowds = _grouped([(-1, n) for n in ground_truth["annotations"] if n.get("iscrowd")])
    found = _grouped([(-1, detection) for detection in detections])
    none = torch.zeros(3, 0, dtype=torch.float64)
    columns = [none, *(_matched(g, objects.get(key), crowds.get(key)) for key, g in found.items())]
    score, iou, owner = torch.cat(columns, dim=1)
    return Overlaps(score=score, iou=iou, owner=owner.long(), objects=len(real))


def calibration(found: Overlaps) -> Calibration:
    """Mean score and mean overlap of the detections in each range of scores."""
    place = (found.score * _BINS).long().clamp(0, _BINS - 1)
    count = torch.bincount(place, minlength=_BINS).double()
    score, iou = (
        torch.bincount(place, weights=value, minlength=_BINS) / count
        for value in (found.score, found.iou)
    )
    return Calibration(count=count, score=score, iou=iou)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, from -1 to 1; nan where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt())


@dataclass(frozen=True, slots=True)
class _Group:
    """What is of one class in one image."""

    number: list[int]
    score: list[float]
    box: Tensor
    """(M, 4) xyxy."""


def _grouped(notes: Sequence[tuple[int, Json]]) -> dict[tuple[int, int], _Group]:
    """By image and category."""
    groups: dict[tuple[int, int], list[tuple[int, Json]]] = defaultdict(list)
    for number, note in notes:
        groups[note["image_id"], note["category_id"]].append((number, note))
    return {
        key: _Group(
            [number for number, _ in group],
            [note.get("score", 1.0) for _, note in group],
            boxes.from_coco(torch.tensor([note["bbox"] for _, note in group], dtype=torch.float64)),
        )
        for key, group in groups.items()
    }


def _matched(found: _Group, objects: _Group | None, crowds: _Group | None) -> Tensor:
    """(3, D) score, overlap and owner of the detections of one class in one image."""
    score = torch.tensor(found.score, dtype=torch.float64)
    iou, owner = torch.zeros_like(score), torch.full_like(score, -1)
    if objects is not None:
        iou, place = boxes.pairwise_iou(found.box, objects.box).max(dim=1)
        owner = torch.tensor(objects.number, dtype=torch.float64)[place]
        owner = owner.masked_fill(iou == 0, -1)
    columns = torch.stack([score, iou, owner])
    if crowds is None:
        return columns
    hidden = boxes.intersection_over_first(found.box.unsqueeze(1), crowds.box).amax(dim=1)
    return columns[:, (hidden <= _IN_CROWD) | (iou > _IN_CROWD)]
