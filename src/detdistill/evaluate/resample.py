"""AP on resampled images: detections are matched once, then counted anew for each resample.

Counting an image n times is weighing its objects and detections by n, so a resample is a row of
weights, and all resamples go through the precision-recall curve together. The result is that of
COCO's evaluation of a data set in which the images are repeated.

Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill.evaluate.coco import ClassMatches

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the curve; numpy's numbers, since torch's differ in the last bit."""

_VALUES_AT_A_TIME = 4_000_000


def draw(images: int, number: int, *, seed: int = 0) -> Tensor:
    """How often each image occurs in each of `number` resamples, (number, images)."""
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (number, images), generator=chance)
    ones = torch.ones(1, 1, dtype=torch.float64).expand(number, images)
    return torch.zeros(number, images, dtype=torch.float64).scatter_add_(1, drawn, ones)


def resampled_ap(classes: Sequence[ClassMatches], weights: Tensor) -> Tensor:
    """AP of every resample.

    Args:
        classes: detections of one detector, matched with the truth.
        weights: (R, I), how often each image occurs.

    Returns:
        (R,) means over classes and IoU thresholds; classes without objects in a resample are left
        out of its mean, and NaN stands where there are no objects at all.
    """
    return torch.cat([_mean_ap(classes, part) for part in _portions(classes, weights)])


def _portions(classes: Sequence[ClassMatches], weights: Tensor) -> Iterator[Tensor]:
    """Resamples that fit into memory together."""
    widest = max((len(found.images) for found in classes), default=1)
    return iter(weights.split(max(1, _VALUES_AT_A_TIME // max(1, widest))))


def _mean_ap(classes: Sequence[ClassMatches], weights: Tensor) -> Tensor:
    return torch.stack([_class_ap(found, weights) for found in classes]).nanmean(0)


def _class_ap(found: ClassMatches, weights: Tensor) -> Tensor:
    """(R, I) weights -> (R,) means over IoU thresholds; NaN without objects."""
    counts = weights[:, found.images]
    objects = weights @ found.objects.double()
    all_judged = counts.cumsum(1)
    aps = []
    for correct, ignored in zip(found.correct, found.ignored, strict=True):
        judged = (counts * ~ignored).cumsum(1) if ignored.any() else all_judged
        places = correct.nonzero().squeeze(1)
        aps.append(_average_precision(counts[:, places], judged[:, places], objects))
    return torch.stack(aps).mean(0).masked_fill(objects == 0, torch.nan)


def _average_precision(hits: Tensor, judged: Tensor, objects: Tensor) -> Tensor:
    """The area under the curve as COCO reads it, (R,).

    Precision is highest where a detection is right, so the curve is followed over those alone.

    Args:
        hits: (R, H) weights of the detections that are right, best first.
        judged: (R, H) weight of all detections up to and with each of them.
        objects: (R,) weight of all objects.
    """
    found = hits.cumsum(1)
    precision = found / judged.clamp(min=1)
    envelope = precision.flip(1).cummax(1).values.flip(1)
    recall = found / objects.clamp(min=1).unsqueeze(1)
    levels = torch.from_numpy(RECALLS).expand(len(hits), -1).contiguous()
    places = torch.searchsorted(recall, levels)
    return F.pad(envelope, (0, 1)).gather(1, places).mean(1)
