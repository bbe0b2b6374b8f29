"""FCOS: every point in an object says how far its edges are, and how central it is.

Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", 2019, and the
improvements of its journal version, "FCOS: A Simple and Strong Anchor-free Object Detector", 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from detdistill.boxes import DistanceCoder, centerness, centers
from detdistill.detectors import assign
from detdistill.detectors.architecture import Architecture
from detdistill.detectors.dense import DenseDetector
from detdistill.errors import UserError
from detdistill.focal import sigmoid_focal_loss
from detdistill.losses import (
    giou_loss,
    log_iou_loss,
    precise,
    soft_bce,
    weighted_mean,
)
from detdistill.structures import DensePredictions, Targets

BOX_LOSSES = {"iou": log_iou_loss, "giou": giou_loss}
LEAST_CENTERNESS = 1e-6


def fcos(architecture: Architecture) -> DenseDetector:
    """An FCOS detector with fresh weights.

    Raises:
        UserError: the limits do not fit the levels.
    """
    points, strides = architecture.points, architecture.strides
    if len(points.limits) != len(strides) - 1:
        raise UserError(
            f"FCOS with {len(strides)} levels needs {len(strides) - 1} limits between them, "
            f"not {len(points.limits)}."
        )
    return DenseDetector(
        architecture,
        coder=DistanceCoder(),
        assigner=partial(assign.fcos, strides=strides, limits=points.limits, radius=points.radius),
        criterion=partial(fcos_criterion, box_loss=BOX_LOSSES[points.box_loss]),
        activation=in_strides if points.in_strides else exponential,
    )


def exponential(raw: Tensor, stride: int) -> Tensor:  # noqa: ARG001
    """Distances in pixels that are never negative, on any level."""
    return precise(raw).exp()


def in_strides(raw: Tensor, stride: int) -> Tensor:
    """Distances in pixels from distances in strides, of which negative ones are zero."""
    return precise(raw).clamp(min=0) * stride


def fcos_criterion(
    predictions: DensePredictions,
    targets: Targets,
    world_mean: Callable[[Tensor], Tensor],
    *,
    box_loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Focal loss, a loss of the boxes' overlap and cross entropy of centerness.

    Boxes count by the centerness of their points and are divided by the sum of it; the other terms
    are divided by the number of positives.
    """
    logits = precise(predictions.flat_logits())
    positive = targets.labels < logits.shape[-1]
    central = centerness(centers(predictions.flat_priors()), targets.boxes) * positive
    total = world_mean(central.sum()).clamp(min=LEAST_CENTERNESS)
    quality = soft_bce(predictions.flat_quality(), central)
    return {
        "cls": weighted_mean(
            sigmoid_focal_loss(logits, targets.labels), targets.weights, targets.positives
        ),
        "box": weighted_mean(box_loss(predictions.decoded(), targets.boxes), central, total),
        "centerness": weighted_mean(quality, positive, targets.positives),
    }
