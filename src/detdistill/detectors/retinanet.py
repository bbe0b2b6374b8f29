"""RetinaNet: nine anchors per cell, a focal loss over all of them.

Source: Lin et al., "Focal Loss for Dense Object Detection", 2017.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detdistill.boxes import DeltaCoder
from detdistill.detectors import assign
from detdistill.detectors.architecture import Architecture
from detdistill.detectors.dense import DenseDetector
from detdistill.focal import sigmoid_focal_loss
from detdistill.losses import delta_error, precise, weighted_mean
from detdistill.structures import DensePredictions, Targets

OCTAVES = 3
RATIOS = (0.5, 1.0, 2.0)
CODER = DeltaCoder()


def retinanet(architecture: Architecture) -> DenseDetector:
    """A RetinaNet detector with fresh weights."""
    return DenseDetector(
        architecture, coder=CODER, assigner=assign.max_iou, criterion=retinanet_criterion
    )


def retinanet_criterion(
    predictions: DensePredictions,
    targets: Targets,
    world_mean: Callable[[Tensor], Tensor],  # noqa: ARG001
) -> dict[str, Tensor]:
    """Focal loss and L1 loss of the deltas, both divided by the number of positives."""
    logits = precise(predictions.flat_logits())
    positive = targets.labels < logits.shape[-1]
    error = delta_error(
        predictions.flat_boxes(), targets.boxes, predictions.flat_priors(), positive, CODER
    )
    return {
        "cls": weighted_mean(
            sigmoid_focal_loss(logits, targets.labels), targets.weights, targets.positives
        ),
        "box": weighted_mean(error, None, targets.positives),
    }
