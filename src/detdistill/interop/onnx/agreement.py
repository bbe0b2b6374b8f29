"""Whether onnxruntime finds in pictures what PyTorch finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill.boxes import iou
from detdistill.detectors.dense import PAD_MULTIPLE
from detdistill.errors import UserError
from detdistill.interop.onnx.graph import Found, Graph
from detdistill.interop.onnx.runtime import open_session, run
from detdistill.structures import Detections

TOLERANCE = 1e-3
"""Of scores, absolute; of box edges, of a pixel or of the coordinate, whichever is more."""
SAME_IOU = 0.99
LOST = 0.01
"""Share of detections that may differ: of two boxes that overlap by exactly the threshold of the
suppression, rounding decides which stays."""
COMPARED = ("boxes", "scores", "labels")


@dataclass(frozen=True, kw_only=True)
class Differences:
    """The largest ones on all pictures."""

    boxes: float
    """Of any prior's box, relative to the coordinate where that is above a pixel."""
    scores: float
    lost: float
    """Share of detections that only one of both has."""
    pictures: int


def check(file: Path, graph: Graph, pictures: Sequence[Tensor]) -> Differences:
    """How much a file with all outputs and PyTorch differ on pictures, (3, H, W) uint8 each.

    Raises:
        UserError: by more than rounding explains, or there is no picture.
    """
    if not pictures:
        raise UserError("There is no picture on which the exported file could be checked.")
    session = open_session(file)
    found = [_of_picture(session, graph, picture) for picture in pictures]
    largest = Differences(
        boxes=max(one.boxes for one in found),
        scores=max(one.scores for one in found),
        lost=sum(one.lost for one in found) / len(found),
        pictures=len(pictures),
    )
    if not (largest.boxes <= TOLERANCE and largest.scores <= TOLERANCE and largest.lost <= LOST):
        raise UserError(
            f"onnxruntime does not find what PyTorch finds: boxes differ by {largest.boxes:.2g}, "
            f"scores by {largest.scores:.2g}, {largest.lost:.1%} of the detections are lost, on "
            f"{len(pictures)} pictures; {TOLERANCE:g} and {LOST:.0%} are allowed. Nothing is "
            "written. Other versions of torch and onnxruntime may do better."
        )
    return largest


def _of_picture(session: object, graph: Graph, picture: Tensor) -> Differences:
    """On one picture, padded as in a batch."""
    height, width = picture.shape[-2:]
    images = F.pad(picture, (0, -width % PAD_MULTIPLE, 0, -height % PAD_MULTIPLE)).unsqueeze(0)
    sizes = torch.tensor([[height, width]])
    theirs = Found(**run(session, images, sizes))
    with torch.no_grad():
        output = graph.detector(images, sizes)
        raw = graph(images, sizes)
        ours = graph.detector.detect(output, sizes)
    apart = (theirs.raw_boxes - raw.raw_boxes).abs() / raw.raw_boxes.abs().clamp(min=1)
    return Differences(
        boxes=_largest(apart),
        scores=_largest((theirs.raw_scores - raw.raw_scores).abs()),
        lost=lost(ours, theirs),
        pictures=1,
    )


def _largest(apart: Tensor) -> float:
    return float(apart.max()) if apart.isfinite().all() else float("inf")


def lost(ours: Detections, theirs: Found) -> float:
    """Share of the detections of one picture that have no twin of the same class, box and score."""
    few, many = sorted((int(ours.counts[0]), int(theirs.counts[0])))
    box, score, label = (getattr(ours, name)[0, : int(ours.counts[0]), None] for name in COMPARED)
    boxes, scores, labels = (
        getattr(theirs, name)[0, None, : int(theirs.counts[0])] for name in COMPARED
    )
    same = (iou(box, boxes) >= SAME_IOU) & (label == labels) & ((score - scores).abs() <= TOLERANCE)
    twins = min(few, int(same.any(dim=0).sum()), int(same.any(dim=1).sum()))
    return 1 - twins / many if many else 0.0
