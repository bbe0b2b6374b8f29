"""Whether onnxruntime finds in pictures what PyTorch finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill.boxes import clipped, iou
from detdistill.errors import UserError
from detdistill.interop.onnx.graph import Found, Graph
from detdistill.interop.onnx.runtime import open_session, run
from detdistill.structures import PAD_MULTIPLE, Detections

TOLERANCE = 1e-3
"""Of scores, and of box edges in pixels; see `edge_tolerance`."""
SIDE = 100
"""Pixels of a picture's longer side up to which an edge may be off by no more than that."""
SAME_IOU = 0.99
LOST = 0.01
"""Share of detections, and of regions, that may differ: of two boxes that overlap by exactly the
threshold of the suppression, rounding decides which stays."""
COMPARED = ("boxes", "scores", "labels")


@dataclass(frozen=True, kw_only=True)
class Differences:
    """The largest ones on all pictures."""

    boxes: float
    """In pixels, of any edge of any prior's, region's or query's box inside the picture."""
    scores: float
    """Of any class of these."""
    lost: float
    """Share of detections, or of regions, that only one of both has."""
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
    near = all(
        one.boxes <= edge_tolerance(picture) for one, picture in zip(found, pictures, strict=True)
    )
    if not (near and largest.scores <= TOLERANCE and largest.lost <= LOST):
        raise UserError(
            f"onnxruntime does not find what PyTorch finds: boxes differ by {largest.boxes:.2g} "
            f"pixels, scores by {largest.scores:.2g}, {largest.lost:.1%} of the detections are "
            f"lost, on {len(pictures)} pictures; {TOLERANCE:g} and {LOST:.0%} are allowed, of "
            f"boxes {TOLERANCE:g} pixels for each {SIDE} pixels of the picture. Nothing is "
            "written. Other versions of torch and onnxruntime may do better."
        )
    return largest


def edge_tolerance(picture: Tensor) -> float:
    """How many pixels an edge may be off in a picture (3, H, W).

    Rounding in single precision grows with the coordinate; a thousandth of a pixel is beyond it in
    large pictures, so there it is a thousandth for each `SIDE` pixels.
    """
    return TOLERANCE * max(1.0, max(picture.shape[-2:]) / SIDE)


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
    boxes, their_boxes = (clipped(one.raw_boxes, sizes)[0] for one in (raw, theirs))
    scores, their_scores, unpaired = raw.raw_scores[0], theirs.raw_scores[0], 0.0
    if graph.ranked:
        rows, their_rows = pairs(boxes, their_boxes, edge_tolerance(picture))
        boxes, their_boxes = boxes[rows], their_boxes[their_rows]
        unpaired = 1 - len(rows) / len(scores)
        scores, their_scores = scores[rows], their_scores[their_rows]
    return Differences(
        boxes=_largest(boxes - their_boxes),
        scores=_largest(scores - their_scores),
        lost=max(lost(ours, theirs), unpaired),
        pictures=1,
    )


def pairs(ours: Tensor, theirs: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Rows (M,) of ours that have a twin, all of whose edges are near, and the rows (M,) of these.

    Args:
        ours: (P, ...) in some order.
        theirs: likewise, in another.
        tolerance: how far apart two numbers of twins may be.
    """
    apart = torch.cdist(ours.flatten(1), theirs.flatten(1), p=float("inf"))
    nearest = apart.min(dim=1)
    rows = (nearest.values <= tolerance).nonzero().squeeze(1)
    return rows, nearest.indices[rows]


def _largest(apart: Tensor) -> float:
    """Of absolute differences; infinite if one is not a number, 0 if there is none."""
    if not apart.isfinite().all():
        return float("inf")
    return float(apart.abs().max()) if apart.numel() else 0.0


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
