"""GFL: one score for class and quality, box edges as distributions.

Source: Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
Dense Object Detection", 2020; label assignment of ATSS.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detdistill.boxes import DistributionCoder, centers, iou, to_distances
from detdistill.detectors import assign
from detdistill.detectors.architecture import Architecture
from detdistill.detectors.dense import DenseDetector
from detdistill.focal import quality_focal_loss
from detdistill.levels import take
from detdistill.losses import (
    distribution_focal_loss,
    giou_loss,
    precise,
    weighted_mean,
)
from detdistill.structures import DensePredictions, Targets

BOX_WEIGHT = 2.0
DFL_WEIGHT = 0.25
BIN_MARGIN = 0.1
"""Distances stay this far below the last bin, so that a bin to the right of them exists."""


def gfl(architecture: Architecture) -> DenseDetector:
    """A GFL detector with fresh weights."""
    bins = architecture.reg_max + 1
    coder = DistributionCoder(bins)
    return DenseDetector(
        architecture, coder=coder, bins=bins, assigner=assign.atss, criterion=gfl_criterion
    )


def gfl_criterion(
    predictions: DensePredictions, targets: Targets, world_mean: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Quality focal loss, GIoU loss and distribution focal loss.

    Box terms count each positive by the student's own best class score and are divided by the sum
    of these; the class term is divided by the number of positives.
    """
    logits = precise(predictions.flat_logits())
    rows, wanted = targets.rows, take(targets.boxes, targets.rows)
    edges, boxes, distances = _boxes_and_distances(predictions, rows, wanted)
    positive = take(targets.labels, rows) < logits.shape[-1]
    score = take(logits.detach(), rows).sigmoid().amax(dim=-1) * positive
    total = world_mean(score.sum()).clamp(min=1)
    quality = iou(boxes.detach(), wanted) * positive
    if rows is not None:
        quality = quality.new_zeros(targets.labels.shape).scatter(1, rows, quality)
    return {
        "cls": weighted_mean(
            quality_focal_loss(logits, targets.labels, quality), targets.weights, targets.positives
        ),
        "box": BOX_WEIGHT * (giou_loss(boxes, wanted) * score).sum() / total,
        "dfl": DFL_WEIGHT
        * (distribution_focal_loss(edges, distances).mean(dim=-1) * score).sum()
        / total,
    }


def _boxes_and_distances(
    predictions: DensePredictions, rows: Tensor | None, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Edge logits (B, P, 4, bins) and boxes (B, P, 4) as predicted, edge distances as wanted."""
    raw = precise(take(predictions.flat_boxes(), rows))
    priors, strides = predictions.flat_priors(), predictions.flat_strides()
    if rows is not None:
        priors, strides = priors[rows], strides[rows]
    edges = raw.unflatten(-1, (4, -1))
    last = edges.shape[-1] - 1
    distances = to_distances(centers(priors), wanted) / strides.unsqueeze(-1)
    boxes = predictions.coder.decode(raw, priors, strides)
    return edges, boxes, distances.clamp(0, last - BIN_MARGIN)
