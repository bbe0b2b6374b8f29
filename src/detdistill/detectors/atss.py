"""ATSS: an anchor per cell, adaptive label assignment, and centerness beside the class.

Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", 2020.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detdistill.boxes import DeltaCoder, centerness, centers
from detdistill.detectors import assign
from detdistill.detectors.architecture import Architecture
from detdistill.detectors.dense import DenseDetector
from detdistill.focal import sigmoid_focal_loss
from detdistill.levels import take
from detdistill.losses import giou_loss, precise, soft_bce, weighted_mean
from detdistill.structures import DensePredictions, Targets

BOX_WEIGHT = 2.0
STDS = (0.1, 0.1, 0.2, 0.2)


def atss(architecture: Architecture) -> DenseDetector:
    """An ATSS detector with fresh weights."""
    return DenseDetector(
        architecture, coder=DeltaCoder(stds=STDS), assigner=assign.atss, criterion=atss_criterion
    )


def atss_criterion(
    predictions: DensePredictions, targets: Targets, world_mean: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Focal loss, GIoU loss and cross entropy of centerness.

    Boxes count by the centerness of their anchors and are divided by the sum of it; the other terms
    are divided by the number of positives.
    """
    logits, rows = precise(predictions.flat_logits()), targets.rows
    positive = take(targets.labels, rows) < logits.shape[-1]
    boxes, wanted = take(predictions.decoded(), rows), take(targets.boxes, rows)
    priors = predictions.flat_priors()
    middle = centers(priors if rows is None else priors[rows])
    central = centerness(middle, wanted) * positive
    quality = soft_bce(take(predictions.flat_quality(), rows), central)
    total = world_mean(central.sum()).clamp(min=1)
    return {
        "cls": weighted_mean(
            sigmoid_focal_loss(logits, targets.labels), targets.weights, targets.positives
        ),
        "box": BOX_WEIGHT * (giou_loss(boxes, wanted) * central).sum() / total,
        "centerness": weighted_mean(quality, positive, targets.positives),
    }
