"""What an ONNX file computes: a detector from pixels to detections, without loops.

As in `detectors.selection`, but of a batch at once and with shapes that the pictures decide alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detdistill.detectors import Detector
from detdistill.interop.onnx.suppression import survivors
from detdistill.levels import take

NOT_THERE = -1.0
"""The score of what is no candidate."""


class Selected(NamedTuple):
    """Objects, best first."""

    boxes: Tensor
    """(B, D, 4) xyxy in pixels of the input."""
    scores: Tensor
    """(B, D)."""
    labels: Tensor
    """(B, D) class numbers."""
    counts: Tensor
    """(B,) how many of the D are real; the rest is zeros."""


class Found(NamedTuple):
    """The outputs of a file, in their order: those of `Selected`, and what they are chosen from."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    raw_boxes: Tensor
    """Not clipped: (B, N, 4) of every prior or query, or (B, P, K, 4) of a region's classes."""
    raw_scores: Tensor
    """(B, N, K) or (B, P, K), centerness multiplied in; zeros for a region that is padding."""


SELECTED = Selected._fields
RAW = ("raw_boxes", "raw_scores")


class Graph(nn.Module, ABC):
    """A detector with all that comes after its head."""

    ranked: ClassVar[bool] = False
    """Whether the rows of the raw outputs stand in the order of scores, which rounding decides."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    @abstractmethod
    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """(B, 3, H, W) uint8 RGB, padded at the right and the bottom, and (B, 2) their sizes."""

    def halved(self) -> Graph:
        """A copy that computes in half precision, but for what needs more."""
        return type(self)(self._half()).eval()

    @abstractmethod
    def _half(self) -> Detector:
        """A copy of the detector."""


class Suppression(Protocol):
    """Of which duplicates are removed, and how many objects are kept."""

    @property
    def nms_iou(self) -> float:
        """Overlap from which the better of two boxes of a class covers the other."""

    @property
    def per_image(self) -> int:
        """Most objects of an image."""


def candidates(
    scores: Tensor, counts: Sequence[int], *, least: float, per_level: int
) -> tuple[Tensor, Tensor]:
    """Scores (B, C) of the best pairs of prior and class of each level, and the pairs (B, C).

    C depends on the number of levels alone: what is missing has the score `NOT_THERE`.

    Args:
        scores: (B, N, K) of all priors; pair number n·K + k is prior n with class k.
        counts: priors of each level.
        least: a candidate's score is above this.
        per_level: candidates of each level.
    """
    start, found, pairs = 0, [], []
    for level in scores.split(list(counts), dim=1):
        likely = level.where(level > least, NOT_THERE).flatten(1)
        enough = F.pad(likely, (0, per_level), value=NOT_THERE)
        score, pair = enough.topk(per_level, dim=1)
        found.append(score)
        pairs.append((pair + start).clamp(max=scores.shape[1] * scores.shape[2] - 1))
        start += level.shape[1] * level.shape[2]
    return torch.cat(found, dim=1), torch.cat(pairs, dim=1)


def suppressed(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, classes: int, settings: Suppression
) -> Selected:
    """The best of candidates of boxes (B, C, 4), scores and labels (B, C)."""
    visible = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    scores = scores.where(visible, NOT_THERE)
    own = labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(1, -1, 1)
    of_classes = scores.unsqueeze(1).where(own, NOT_THERE)
    kept = survivors(boxes, of_classes, settings.nms_iou, settings.per_image)
    return best(boxes, scores.where(kept, NOT_THERE), labels, settings.per_image)


def best(boxes: Tensor, scores: Tensor, labels: Tensor, most: int) -> Selected:
    """The best of boxes (B, C, 4), scores and labels (B, C), as far as a score is above 0."""
    score, rows = scores.topk(min(most, scores.shape[1]), dim=1)
    real = score > 0
    return Selected(
        boxes=take(boxes, rows) * real.unsqueeze(-1),
        scores=score * real,
        labels=take(labels, rows) * real,
        counts=real.sum(dim=1),
    )
