"""How well a detector names and finds the objects that it is assigned, and both together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.levels import Levels, cells_of, put
from detdistill.structures import DensePredictions, Targets

Harmony = Literal["harmonic", "geometric", "gap", "none"]


class ObjectQuality(NamedTuple):
    """What a detector makes of the objects of positives: (B, P) each, 0 elsewhere."""

    score: Tensor
    """Probability of the object's class."""
    overlap: Tensor
    """IoU of the predicted box with the object."""


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
        quality: of the same.
        targets: the assignment of which that is.
    """
    named = predictions.probabilities().amax(dim=-1)
    found = put(quality.overlap, targets.rows, named.shape[1])
    return cells_of(named, predictions.logits), cells_of(found, predictions.logits)
