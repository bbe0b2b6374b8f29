"""How well a detector does at every point of an image, as TID asks."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.levels import of_class, take
from detdistill.masks.exact import exact, padded, portions, upright
from detdistill.structures import Truth

ClassScore = Literal["matched", "present", "any"]


class PointQuality(NamedTuple):
    """How well a detector does at every point of an image."""

    iou: Tensor
    """(B, P) best overlap of the point's boxes with any object."""
    score: Tensor
    """(B, P) probability of the class that the point should see."""
    box: Tensor
    """(B, P, 4) the box that attains `iou`, or the most confident one where nothing overlaps."""
    match: Tensor
    """(B, P) the object that it overlaps, -1 for none."""


@torch.no_grad()
def point_quality(
    prob: Tensor,
    predicted: Tensor,
    truth: Truth,
    class_score: ClassScore = "matched",
    *,
    seen: Tensor | None = None,
) -> PointQuality:
    """How well a detector finds and names the objects, at every point.

    Args:
        prob: (B, P, A, K) class probabilities.
        predicted: (B, P, A, 4) boxes.
        truth: the objects.
        class_score: `matched` takes the class of the object with the best overlap, or any class
            present in the image where nothing overlaps; `present` always the latter; `any` the most
            probable class. Images without objects always have the last.
        seen: (B, 1 or P, G) bool: which objects count for which points; see `objects_seen`.
    """
    corners, labels, valid = padded(truth)
    predicted, corners = exact(predicted), upright(corners)
    seen = valid.unsqueeze(1) if seen is None else seen
    iou, match = _best_object(upright(predicted), corners, seen)
    object_box = take(corners, match.clamp(min=0))
    overlap = boxes.iou(upright(predicted), object_box.unsqueeze(2))  # (B, P, A)
    best = torch.where(match >= 0, overlap.argmax(dim=2), prob.amax(dim=3).argmax(dim=2))
    score = _class_score(exact(prob.amax(dim=2)), labels, valid, match, class_score)
    return PointQuality(iou, score, of_class(predicted, best), match)


def _best_object(predicted: Tensor, corners: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The best overlap (B, P) of boxes (B, P, A, 4) with objects (B, G, 4), and whose it is.

    Where there is none, these are 0 and -1. In portions, because all at once would fill a device.
    """
    best = predicted.new_zeros(predicted.shape[:2])
    match = torch.full_like(best, -1, dtype=torch.long)
    for part in portions(corners.shape[1], predicted.numel() // 4):
        overlap = boxes.iou(predicted.unsqueeze(3), corners[:, None, None, part]).amax(dim=2)
        value, which = (overlap * seen[..., part]).max(dim=-1)
        better = value > best
        best = torch.where(better, value, best)
        match = torch.where(better, which + part.start, match)
    return best, match


def _class_score(
    prob: Tensor, labels: Tensor, valid: Tensor, match: Tensor, rule: ClassScore
) -> Tensor:
    """(B, P) probability of the class that counts at each point, of (B, P, K).

    `match` (B, P) is the object that each point overlaps, -1 for none.
    """
    classes = prob.shape[-1]
    if rule == "any":
        return prob.amax(dim=-1)
    each = torch.arange(classes, device=prob.device)
    present = ((labels.unsqueeze(-1) == each) & valid.unsqueeze(-1)).any(dim=1)  # (B, K)
    wanted = (present | ~valid.any(dim=1, keepdim=True)).unsqueeze(1)
    score = prob.masked_fill(~wanted, -1.0).amax(dim=-1)
    if rule == "present":
        return score
    label = take(labels, match.clamp(min=0)).clamp(0, classes - 1)
    return torch.where(match >= 0, of_class(prob, label), score)
