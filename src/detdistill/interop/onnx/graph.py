"""What an ONNX file computes: a dense detector from pixels to detections, without loops.

As in `detectors.selection`, but of a batch at once and with shapes that the pictures decide alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detdistill.boxes import clipped
from detdistill.detectors.architecture import Selection
from detdistill.detectors.dense import DenseDetector
from detdistill.detectors.selection import class_and_quality
from detdistill.interop.onnx.suppression import survivors
from detdistill.structures import Reads, take

PREDICTIONS = Reads(predictions=True)
NOT_THERE = -1.0
"""The score of what is no candidate."""


class Found(NamedTuple):
    """The outputs of a file, in their order."""

    boxes: Tensor
    """(B, D, 4) xyxy in pixels of the input, best first."""
    scores: Tensor
    """(B, D)."""
    labels: Tensor
    """(B, D) class numbers."""
    counts: Tensor
    """(B,) how many of the D are real; the rest is zeros."""
    raw_boxes: Tensor
    """(B, N, 4) of every prior, not clipped."""
    raw_scores: Tensor
    """(B, N, K) of every prior, centerness multiplied in."""


SELECTED = ("boxes", "scores", "labels", "counts")
RAW = ("raw_boxes", "raw_scores")


class Graph(nn.Module):
    """A dense detector with all that comes after its head."""

    def __init__(self, detector: DenseDetector) -> None:
        super().__init__()
        self.detector = detector
        self.classes = len(detector.spec.classes)
        self.selection = detector.architecture.selection

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """(B, 3, H, W) uint8 RGB, padded at the right and the bottom, and (B, 2) their sizes."""
        predictions = self.detector(images, sizes, PREDICTIONS).dense
        scores, quality = class_and_quality(predictions, joint=self.selection.joint)
        boxes = predictions.decoded()
        counts = [level.shape[0] for level in predictions.priors]
        score, pair = candidates(scores, counts, self.selection)
        prior, label = pair // self.classes, pair % self.classes
        score, box = score * take(quality, prior), clipped(take(boxes, prior), sizes)
        found = best(box, score, label, classes=self.classes, selection=self.selection)
        return Found(*found, boxes, scores * quality.unsqueeze(-1))


def candidates(
    scores: Tensor, counts: Sequence[int], selection: Selection
) -> tuple[Tensor, Tensor]:
    """Scores (B, C) of the best pairs of prior and class of each level, and the pairs (B, C).

    C depends on the number of levels alone: what is missing has the score `NOT_THERE`.

    Args:
        scores: (B, N, K) of all priors; pair number n·K + k is prior n with class k.
        counts: priors of each level.
        selection: the thresholds.
    """
    start, found, pairs = 0, [], []
    for level in scores.split(list(counts), dim=1):
        likely = level.where(level > selection.min_score, NOT_THERE).flatten(1)
        enough = F.pad(likely, (0, selection.per_level), value=NOT_THERE)
        score, pair = enough.topk(selection.per_level, dim=1)
        found.append(score)
        pairs.append((pair + start).clamp(max=scores.shape[1] * scores.shape[2] - 1))
        start += level.shape[1] * level.shape[2]
    return torch.cat(found, dim=1), torch.cat(pairs, dim=1)


def best(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, classes: int, selection: Selection
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first four of `Found`, from candidates of boxes (B, C, 4), scores and labels (B, C)."""
    visible = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    scores = scores.where(visible, NOT_THERE)
    own = labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(1, -1, 1)
    of_classes = scores.unsqueeze(1).where(own, NOT_THERE)
    kept = survivors(boxes, of_classes, selection.nms_iou, selection.per_image)
    most = min(selection.per_image, scores.shape[1])
    score, rows = scores.where(kept, NOT_THERE).topk(most, dim=1)
    real = score > 0
    return (
        take(boxes, rows) * real.unsqueeze(-1),
        score * real,
        take(labels, rows) * real,
        real.sum(dim=1),
    )
