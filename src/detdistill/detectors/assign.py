"""Which prior learns which object. Batched over images and objects; no loop over either."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detdistill.boxes import (
    area,
    centers,
    intersection_over_first,
    iou,
    pairwise_iou,
    to_distances,
)
from detdistill.levels import take
from detdistill.masks import mean_plus_deviation, nearest_priors
from detdistill.structures import Targets, Truth, local_mean

INSIDE = 0.01
"""A positive prior's centre lies at least this many pixels inside its object."""
NO_CLAIM = -1.0


@torch.no_grad()
def atss(
    priors: Tensor,
    counts: tuple[int, ...],
    truth: Truth,
    *,
    inside: Tensor,
    num_classes: int,
    topk: int = 9,
    ignore_above: float | None = None,
    world_mean: Callable[[Tensor], Tensor] = local_mean,
) -> Targets:
    """Adaptive training sample selection.

    Per object, the `topk` priors of each level that are nearest to its centre are candidates;
    those whose IoU reaches the candidates' mean plus standard deviation, and whose centre lies in
    the object, are positive. A prior claimed by several objects takes the one of largest IoU.

    Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via
    Adaptive Training Sample Selection", section 4.1.

    Args:
        priors: (N, 4).
        counts: priors of each level, which sum to N.
        truth: the objects.
        inside: (B, N) which priors lie within their image.
        num_classes: K, the label of background.
        topk: candidates per level.
        ignore_above: share of a prior in a crowd region from which on it is ignored, unless it is
            positive for want of others; None: never.
        world_mean: mean over ranks.
    """
    crowded = _in_crowd(priors, truth, ignore_above)
    nearest = nearest_priors(priors, counts, truth.boxes, inside, topk, avoided=crowded)
    candidates = priors[nearest]
    objects = truth.boxes.unsqueeze(2)
    overlaps = iou(candidates, objects)
    usable = inside.unsqueeze(1).expand(-1, len(truth.boxes[0]), -1).gather(2, nearest)
    positive = (
        usable
        & truth.valid.unsqueeze(2)
        & (overlaps >= mean_plus_deviation(overlaps, usable))
        & (to_distances(centers(candidates), objects).amin(dim=-1) > INSIDE)
    )
    claims = overlaps.new_full((*nearest.shape[:2], len(priors)), NO_CLAIM)
    claims.scatter_(2, nearest, overlaps.where(positive, NO_CLAIM))
    strongest, owner = _largest(claims)
    positive = strongest > NO_CLAIM
    most = nearest.shape[1] * nearest.shape[2]
    return _targets(
        truth,
        owner,
        positive,
        weights=inside & (positive | ~crowded),
        num_classes=num_classes,
        per_image=True,
        world_mean=world_mean,
        rows=strongest.topk(most, dim=1).indices if most < len(priors) else None,
    )


@torch.no_grad()
def max_iou(
    priors: Tensor,
    counts: tuple[int, ...],  # noqa: ARG001
    truth: Truth,
    *,
    inside: Tensor,
    num_classes: int,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    low_quality: float | None = 0.0,
    ties: bool = True,
    ignore_above: float | None = None,
    world_mean: Callable[[Tensor], Tensor] = local_mean,
) -> Targets:
    """Positive where the IoU with some object is large, background where all are small.

    Priors in between are ignored. So that no object goes without, each also claims the priors
    that overlap it most; if two claim the same prior so, the later object has it.

    Source: Lin et al., "Focal Loss for Dense Object Detection", section 4; the rule of last
    resort is that of Ren et al., "Faster R-CNN", section 3.1.2.

    Args:
        priors: (N, 4), or (B, N, 4) where each image has its own.
        counts: priors of each level; all are treated alike.
        truth: the objects.
        inside: (B, N) which priors lie within their image.
        num_classes: K, the label of background.
        positive_iou: an object's priors have at least this.
        negative_iou: background's priors have less than this.
        low_quality: least IoU of the best priors of an object, to be its own in any case. None:
            no prior of less than `positive_iou` is ever positive.
        ties: whether all priors that overlap an object most are its own, or the first alone.
        ignore_above: share of a prior in a crowd region from which on it is ignored; None: never.
        world_mean: mean over ranks.
    """
    inside = inside & ~_in_crowd(priors, truth, ignore_above)
    usable = inside.unsqueeze(1) & truth.valid.unsqueeze(2)
    overlaps = pairwise_iou(truth.boxes, priors).where(usable, NO_CLAIM)
    largest, owner = _largest(overlaps)
    positive = largest >= positive_iou
    background = largest < negative_iou
    if low_quality is not None and overlaps.shape[1]:
        best, first = overlaps.max(dim=2, keepdim=True)
        chosen = (
            overlaps == best
            if ties
            else first == torch.arange(overlaps.shape[2], device=first.device)
        )
        claimed = chosen & (best >= low_quality) & usable
        slots = torch.arange(claimed.shape[1], dtype=torch.int32, device=claimed.device)
        last = torch.where(claimed, slots.view(1, -1, 1), -1).amax(dim=1)
        owner = torch.where(last >= 0, last, owner)
        positive = positive | (last >= 0)
    return _targets(
        truth,
        owner,
        positive,
        weights=inside & (positive | background),
        num_classes=num_classes,
        per_image=True,
        world_mean=world_mean,
    )


@torch.no_grad()
def fcos(
    priors: Tensor,
    counts: tuple[int, ...],
    truth: Truth,
    *,
    inside: Tensor,
    num_classes: int,
    strides: tuple[int, ...],
    limits: tuple[float, ...],
    radius: float | None = None,
    world_mean: Callable[[Tensor], Tensor] = local_mean,
) -> Targets:
    """Positive are the points in an object, on the level whose distances reach its edges.

    A point in several objects takes the smallest. Points in the padding count as background, and
    the normaliser is the number of positives of the whole batch, at least 1.

    Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", sections 3.1, 3.2.

    Args:
        priors: (N, 4) points.
        counts: points of each level, which sum to N.
        truth: the objects.
        inside: (B, N) which points lie within their image; all count, whatever it says.
        num_classes: K, the label of background.
        strides: of each level.
        limits: farthest edge in pixels that each level but the last reaches.
        radius: strides around an object's centre within which points are positive; None: all.
        world_mean: mean over ranks.
    """
    points, objects = centers(priors), truth.boxes.unsqueeze(2)
    farthest = to_distances(points, objects).amax(dim=-1)
    low = _per_prior(priors, counts, (-1.0, *limits))
    high = _per_prior(priors, counts, (*limits, torch.inf))
    region = objects
    if radius is not None:
        region = _middle(objects, _per_prior(priors, counts, strides).unsqueeze(-1) * radius)
    candidate = (
        truth.valid.unsqueeze(2)
        & (to_distances(points, region).amin(dim=-1) > 0)
        & (farthest >= low)
        & (farthest <= high)
    )
    claims = (-area(objects)).where(candidate, -torch.inf)
    largest, owner = _largest(claims, nobody=-torch.inf)
    positive = largest > -torch.inf
    return _targets(
        truth,
        owner,
        positive,
        weights=torch.ones_like(inside),
        num_classes=num_classes,
        per_image=False,
        world_mean=world_mean,
    )


def normaliser(
    positive: Tensor, world_mean: Callable[[Tensor], Tensor], *, per_image: bool
) -> Tensor:
    """() how many priors (B, N) are positive, mean over ranks.

    At least 1 for each image, or for the whole batch.
    """
    if per_image:
        return world_mean(positive.sum(dim=1).clamp(min=1).sum().float())
    return world_mean(positive.sum().float()).clamp(min=1)


def _in_crowd(priors: Tensor, truth: Truth, share: float | None) -> Tensor:
    """(B, N) priors of which more than a share lies in one crowd region.

    As in MMDetection, regions of an image without objects do not count.
    """
    if share is None:
        return torch.zeros((1, priors.shape[-2]), dtype=torch.bool, device=priors.device)
    covered = intersection_over_first(priors.unsqueeze(-3), truth.boxes.unsqueeze(2)) > share
    regions = truth.crowd & truth.valid.any(dim=1, keepdim=True)
    return (covered & regions.unsqueeze(2)).any(dim=1)


def _middle(boxes: Tensor, reach: Tensor) -> Tensor:
    """What of boxes (..., 4) is at most `reach` (..., 1) from their centre, along each axis."""
    low, high = boxes.chunk(2, dim=-1)
    middle = centers(boxes)
    return torch.cat(
        [torch.maximum(middle - reach, low), torch.minimum(middle + reach, high)], dim=-1
    )


def _per_prior(priors: Tensor, counts: tuple[int, ...], values: Sequence[float]) -> Tensor:
    """(N,) the value of each prior's level."""
    return torch.cat(
        [priors.new_full((count,), value) for count, value in zip(counts, values, strict=True)]
    )


def _largest(claims: Tensor, nobody: float = NO_CLAIM) -> tuple[Tensor, Tensor]:
    """(B, G, N) -> the largest claim on each prior and the object that has it, (B, N) each."""
    none = claims.new_full((len(claims), 1, claims.shape[2]), nobody)
    strongest, owner = torch.cat([claims, none], dim=1).max(dim=1)
    return strongest, owner


def _targets(
    truth: Truth,
    owner: Tensor,
    positive: Tensor,
    *,
    weights: Tensor,
    num_classes: int,
    per_image: bool,
    world_mean: Callable[[Tensor], Tensor],
    rows: Tensor | None = None,
) -> Targets:
    """Gives each positive prior its object, and background to all others.

    Args:
        truth: the objects.
        owner: (B, N) slot of each prior's object, where it is positive.
        positive: (B, N).
        weights: (B, N) which priors count at all.
        num_classes: K, the label of background.
        per_image: see `Targets`.
        world_mean: mean over ranks.
        rows: see `Targets`.
    """
    batch = len(owner)
    none = truth.boxes.new_zeros((batch, 1, 4))
    boxes = take(torch.cat([truth.boxes, none], dim=1), owner)
    background = truth.labels.new_full((batch, 1), num_classes)
    labels = take(torch.cat([truth.labels, background], dim=1), owner)
    return Targets(
        labels=labels.where(positive, num_classes),
        boxes=boxes * positive.unsqueeze(-1),
        weights=weights.to(boxes.dtype),
        positives=normaliser(positive, world_mean, per_image=per_image),
        per_image=per_image,
        rows=rows,
    )
