"""Where in an image it matters: maps of weights over the cells, made from truth and predictions.

Everything here is constant to the gradient. Shape letters: B images, P points (the cells of all
levels, fine to coarse, row by row), A boxes per point, K classes, G padded objects. Computed in
float64, because orders and thresholds decide and rounding must not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes
from detdistill.structures import Truth

ClassScore = Literal["matched", "present", "any"]
Decay = Literal["inward", "outward"]


class PointQuality(NamedTuple):
    """How well a detector does at every point of an image."""

    iou: Tensor
    """(B, P) best overlap of the point's boxes with any object."""
    score: Tensor
    """(B, P) probability of the class that the point should see."""
    box: Tensor
    """(B, P, 4) the box that attains `iou`, or the most confident one where nothing overlaps."""


def _exact(x: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)


def _padded(truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, G, 4), labels (B, G), valid (B, G) with room for at least one object."""
    missing = 1 if truth.valid.shape[1] == 0 else 0
    return (
        F.pad(_exact(truth.boxes), (0, 0, 0, missing)),
        F.pad(truth.labels, (0, missing)),
        F.pad(truth.valid, (0, missing)),
    )


def _upright(corners: Tensor) -> Tensor:
    """Reversed boxes (..., 4) become empty ones, so that their area is 0."""
    low, high = corners.chunk(2, dim=-1)
    return torch.cat([low, torch.maximum(low, high)], dim=-1)


# What a detector says of each point


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
    prob, predicted = _exact(prob), _exact(predicted)
    corners, labels, valid = _padded(truth)
    overlap = boxes.iou(
        _upright(predicted).unsqueeze(3), _upright(corners)[:, None, None]
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


# Ranking


def count_of(fraction: float, total: int) -> int:
    """How many of `total` a fraction means: rounded down, at least one."""
    return max(1, int(fraction * total + 1e-9))


@torch.no_grad()
def ranking(*keys: Tensor) -> Tensor:
    """Order of the points (B, P): by the first key, ties by the next, then the earlier point.

    Largest first.
    """
    order = torch.arange(keys[0].shape[-1], device=keys[0].device).expand_as(keys[0])
    for key in reversed(keys):
        step = key.gather(-1, order).argsort(dim=-1, descending=True, stable=True)
        order = order.gather(-1, step)
    return order


@torch.no_grad()
def top_points(fraction: float, *keys: Tensor) -> Tensor:
    """The share of points that rank highest: (B, P) bool; see `ranking`."""
    chosen = ranking(*keys)[..., : count_of(fraction, keys[0].shape[-1])]
    return torch.zeros_like(keys[0], dtype=torch.bool).scatter(-1, chosen, value=True)


@torch.no_grad()
def by_group(function: Callable[..., Tensor], sizes: Sequence[int], *maps: Tensor) -> Tensor:
    """Applies a function of (B, points, ...) maps to each group of points, such as a level."""
    groups = zip(*(values.split(list(sizes), dim=1) for values in maps), strict=True)
    return torch.cat([function(*group) for group in groups], dim=1)


@torch.no_grad()
def survivors(ranked: Tensor, alive: Tensor, threshold: float, count: int) -> Tensor:
    """Greedy suppression of overlapping boxes, stopped after a number of survivors.

    Args:
        ranked: (B, P, 4) boxes, best first.
        alive: (B, P) bool: which take part.
        threshold: a box is suppressed if its overlap with a better survivor is above this.
        count: how many to find per image at most.

    Returns:
        (B, P) bool: the survivors, in the order of `ranked`.
    """
    corners = _upright(_exact(ranked)).movedim(-1, 0).contiguous()  # (4, B, P)
    low, high = corners.chunk(2)
    area = _product(high - low)
    kept = torch.zeros_like(alive)
    for _ in range(count):
        first = alive.byte().argmax(dim=1, keepdim=True)  # (B, 1)
        kept = kept.scatter(1, first, kept.gather(1, first) | alive.gather(1, first))
        best_low, best_high = corners.gather(2, first.expand(4, -1, -1)).chunk(2)
        shared = torch.minimum(high, best_high) - torch.maximum(low, best_low)
        overlap = _product(shared.clamp(min=0))
        union = (area + area.gather(1, first) - overlap).clamp(min=boxes.EPS)
        alive = alive & ~kept & (overlap / union <= threshold)
    return kept


def _product(sides: Tensor) -> Tensor:
    """Width times height: (2, ...) -> (...)."""
    return sides[0] * sides[1]


@torch.no_grad()
def weak_points(
    lag: Tensor,
    teacher: Tensor,
    score: Tensor,
    box: Tensor,
    *,
    fraction: float,
    nms: Literal["before", "after", "none"],
    nms_iou: float,
) -> Tensor:
    """Where a student lags most behind its teacher, spread over the image: (B, P) bool.

    Args:
        lag: (B, P) teacher's score minus the student's; only points above 0 are candidates.
        teacher: (B, P) teacher's score, decides ties.
        score: (B, P) teacher's class probability, decides the ties that are left.
        box: (B, P, 4) teacher's box of each point, for the suppression.
        fraction: share of all points to take.
        nms: suppress overlapping candidates before or after the share is taken, or not at all.
        nms_iou: overlap above which the lesser candidate is suppressed.
    """
    order = ranking(lag, teacher, score)
    candidate = lag.gather(1, order) > 1e-9  # noqa: PLR2004 - more than rounding
    count = count_of(fraction, lag.shape[1])
    if nms != "before":
        candidate = candidate & (torch.arange(lag.shape[1], device=lag.device) < count)
    if nms != "none":
        ranked = box.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        candidate = survivors(ranked, candidate, nms_iou, count)
    return torch.zeros_like(candidate).scatter(1, order, candidate)


# Nearness to objects


@torch.no_grad()
def nearness(points: Tensor, truth: Truth, *, ring: float, decay: Decay = "inward") -> Tensor:
    """1 inside an object, falling to 0 in a ring around it: (B, P).

    Args:
        points: (P, 2) x and y.
        truth: the objects.
        ring: width of the ring on each side, as a share of the object's width and height.
        decay: `inward` falls with the distance to the nearest object's border; `outward` grows.
    """
    corners, _, valid = _padded(truth)
    points = _exact(points)[:, None]
    low, high = corners[:, None].chunk(2, dim=-1)  # (B, 1, G, 2)
    gap = torch.maximum(low - points, points - high).clamp(min=0)  # (B, P, G, 2)
    margin = ring * (high - low)
    distance, reach = torch.hypot(*gap.unbind(-1)), torch.hypot(*margin.unbind(-1))
    valid = valid.unsqueeze(1)
    around = (gap <= margin).all(dim=-1) & (reach > 0) & valid
    nearest = distance.masked_fill(~around, torch.inf).argmin(dim=-1, keepdim=True)
    share = (distance / reach).gather(-1, nearest).squeeze(-1)
    value = 1 - share if decay == "inward" else share
    inside = ((distance == 0) & valid).any(dim=-1)
    return value.masked_fill(~around.any(dim=-1), 0).masked_fill(inside, 1)
