"""How well a detector does at every point of an image, as TID asks."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.masks.exact import exact, padded, upright
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


@torch.no_grad()
def point_quality(
    prob: Tensor, predicted: Tensor, truth: Truth, class_score: ClassScore = "matched"
) -> PointQuality:
    """How well a detector finds and names the objects, at every point.

    Args:
        prob: (B, P, A, K) class probabilities.
        predicted: (B, P, A, 4) boxes.
        truth: the objects.
        class_score: `matched` takes the class of the object with the best overlap, or any class
            present in the image where nothing overlaps; `present` always the latter; `any` the most
            probable class. Images without objects always have the last.
    """
    prob, predicted = exact(prob), exact(predicted)
    corners, labels, valid = padded(truth)
    overlap = boxes.iou(
        upright(predicted).unsqueeze(3), upright(corners)[:, None, None]
    ).masked_fill(~valid[:, None, None], -1.0)  # (B, P, A, G)
    match = overlap.amax(dim=2).argmax(dim=-1, keepdim=True)  # (B, P, 1)
    of_match = _pick(overlap, match, dim=3)  # (B, P, A)
    iou = of_match.amax(dim=2).clamp(min=0)
    hit = iou > 0
    best = torch.where(hit, of_match.argmax(dim=2), prob.amax(dim=3).argmax(dim=2))
    matched = torch.where(hit, match.squeeze(-1), -1)
    score = _class_score(prob.amax(dim=2), labels, valid, matched, class_score)
    return PointQuality(iou, score, _pick(predicted, best.unsqueeze(-1), dim=2))


def _pick(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Entry `index` (B, P, 1) along `dim` of (B, P, X, Y): the others remain."""
    index = index.unsqueeze(2)
    shape = list(values.shape)
    shape[dim] = 1
    return values.gather(dim, index.expand(shape)).squeeze(dim)


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
    label = labels.gather(1, match.clamp(min=0)).clamp(0, classes - 1)
    return torch.where(match >= 0, prob.gather(-1, label.unsqueeze(-1)).squeeze(-1), score)
