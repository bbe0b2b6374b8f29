"""How well a detector names and finds the objects that it is assigned, and both together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.structures import DensePredictions, Levels, Targets, take, unflatten

Harmony = Literal["harmonic", "geometric", "gap", "none"]


class ObjectQuality(NamedTuple):
    """What a detector makes of the objects of positives: (B, P) each, 0 elsewhere."""

    score: Tensor
    """Probability of the object's class."""
    overlap: Tensor
    """IoU of the predicted box with the object."""


@torch.no_grad()
def object_quality(predictions: DensePredictions, targets: Targets) -> ObjectQuality:
    """What a detector makes of the objects that are assigned to the rows of `targets`."""
    rows, labels = targets.rows, take(targets.labels, targets.rows)
    prob = _probability(take(predictions.flat_logits(), rows))
    classes = prob.shape[-1]
    score = prob.gather(-1, labels.clamp(max=classes - 1).unsqueeze(-1)).squeeze(-1)
    overlap = boxes.iou(take(predictions.decoded(), rows), take(targets.boxes, rows))
    positive = labels < classes
    return ObjectQuality(score * positive, overlap * positive)


def _probability(logits: Tensor) -> Tensor:
    """Of logits, at least in float32."""
    return (logits if logits.dtype == torch.float64 else logits.float()).sigmoid()


def harmony(quality: ObjectQuality, kind: Harmony = "harmonic") -> Tensor:
    """High where class score and overlap are both high: (B, P) from 0 to 1.

    Their harmonic or geometric mean, the latter times 1 less their `gap`; `none` is 1 everywhere.
    """
    score, overlap = quality
    if kind == "none":
        return torch.ones_like(score)
    if kind == "harmonic":
        return 2 * score * overlap / (score + overlap + boxes.EPS)
    mean = (score * overlap).sqrt()
    return mean if kind == "geometric" else mean * (1 - (score - overlap).abs())


@torch.no_grad()
def named_and_found(
    predictions: DensePredictions, quality: ObjectQuality, targets: Targets
) -> tuple[Levels, Levels]:
    """The best class score, and the best overlap of a positive, in each cell: (B, H, W) per level.

    Args:
        predictions: of a detector.
        quality: of the same; see `object_quality`.
        targets: the assignment of which that is.
    """
    named = _probability(predictions.flat_logits().amax(dim=-1))
    found = quality.overlap
    if targets.rows is not None:
        found = torch.zeros_like(named).scatter(1, targets.rows, found)
    cells = sum(level.shape[-2] * level.shape[-1] for level in predictions.logits)
    best = (flat.unflatten(1, (cells, -1)).amax(dim=-1) for flat in (named, found))
    naming, finding = (unflatten(flat, predictions.logits) for flat in best)
    return naming, finding
