"""Which prior learns which object. Batched over images and objects; no loop over either."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detdistill.boxes import centers, iou, to_distances
from detdistill.masks import mean_plus_deviation, nearest_priors
from detdistill.structures import Targets, Truth, local_mean

INSIDE = 0.01
"""A positive prior's centre lies at least this many pixels inside its object."""
NOT_CLAIMED = -1.0


@torch.no_grad()
def atss(
    priors: Tensor,
    counts: tuple[int, ...],
    truth: Truth,
    *,
    inside: Tensor,
    num_classes: int,
    topk: int = 9,
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
        world_mean: mean over ranks.
    """
    nearest = nearest_priors(priors, counts, truth.boxes, inside, topk)
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
    claims = overlaps.new_full((*nearest.shape[:2], len(priors)), NOT_CLAIMED)
    claims.scatter_(2, nearest, overlaps.where(positive, NOT_CLAIMED))
    return resolve(
        claims,
        truth,
        inside=inside,
        num_classes=num_classes,
        most=nearest.shape[1] * nearest.shape[2],
        world_mean=world_mean,
    )


def resolve(
    claims: Tensor,
    truth: Truth,
    *,
    inside: Tensor,
    num_classes: int,
    most: int,
    world_mean: Callable[[Tensor], Tensor] = local_mean,
) -> Targets:
    """Gives each prior the object with the largest claim on it.

    Args:
        claims: (B, G, N) strength of the objects' claims, `NOT_CLAIMED` where there is none.
        truth: the objects.
        inside: (B, N) which priors count at all.
        num_classes: K, the label of background.
        most: no image can have more positives than this.
        world_mean: mean over ranks.
    """
    batch, _, total = claims.shape
    claims = torch.cat([claims, claims.new_full((batch, 1, total), NOT_CLAIMED)], dim=1)
    strongest, owner = claims.max(dim=1)
    positive = strongest > NOT_CLAIMED
    none = truth.boxes.new_zeros((batch, 1, 4))
    boxes = torch.cat([truth.boxes, none], dim=1).gather(1, owner.unsqueeze(-1).expand(-1, -1, 4))
    background = truth.labels.new_full((batch, 1), num_classes)
    labels = torch.cat([truth.labels, background], dim=1).gather(1, owner)
    per_image = positive.sum(dim=1).clamp(min=1)
    return Targets(
        labels=labels.where(positive, num_classes),
        boxes=boxes * positive.unsqueeze(-1),
        weights=inside.to(claims.dtype),
        positives=world_mean(per_image.sum().to(claims.dtype)),
        rows=strongest.topk(most, dim=1).indices if most < total else None,
    )
