"""Which priors, the boxes that a head starts from, belong to an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes
from detdistill.levels import take
from detdistill.masks.exact import exact, padded
from detdistill.masks.objects import object_level
from detdistill.structures import Truth

RegionDistance = Literal["covered", "iou"]
FineGrainedScope = Literal["own", "each", "image"]

FAR = 1e8
"""Pixels between an object and a prior that should not be its own."""


@torch.no_grad()
def nearest_priors(
    priors: Tensor,
    counts: Sequence[int],
    corners: Tensor,
    inside: Tensor,
    topk: int,
    *,
    avoided: Tensor | None = None,
) -> Tensor:
    """The `topk` priors of each level that are nearest to each object's centre, as indices.

    Args:
        priors: (N, 4).
        counts: priors of each level, which sum to N.
        corners: (B, G, 4) the objects.
        inside: (B, N) which priors lie within their image.
        topk: how many per level, fewer where a level has fewer.
        avoided: (B, N) priors that are taken only where a level has too few others.

    Returns:
        (B, G, C), level by level.
    """
    offsets = boxes.centers(priors) - boxes.centers(corners).unsqueeze(2)
    distances = offsets.pow(2).sum(dim=-1).sqrt()
    if avoided is not None:
        distances = distances.masked_fill(avoided.unsqueeze(1), FAR)
    distances = distances.masked_fill(~inside.unsqueeze(1), torch.inf)
    found, start = [], 0
    for level in distances.split(list(counts), dim=2):
        size = level.shape[2]
        found.append(level.topk(min(topk, size), dim=2, largest=False).indices + start)
        start += size
    return torch.cat(found, dim=2)


@torch.no_grad()
def mean_plus_deviation(values: Tensor, usable: Tensor) -> Tensor:
    """(B, G, C) -> (B, G, 1) mean plus unbiased standard deviation over what is usable.

    NaN of less than two values, so that nothing reaches it, as in MMDetection. Equal values reach
    it if rounding wants it so; therefore, where all are usable, they are added up as there.
    """
    if values.shape[1] == 0 or values.shape[2] < 2:  # noqa: PLR2004 - see above
        return values.new_full((*values.shape[:2], 1), torch.nan)
    listed = values.mT.contiguous()
    plain = (listed.mean(dim=1) + listed.std(dim=1)).unsqueeze(2)
    count = usable.sum(dim=2, keepdim=True)
    mean = (values * usable).sum(dim=2, keepdim=True) / count
    squares = ((values - mean).pow(2) * usable).sum(dim=2, keepdim=True)
    return plain.where(usable.all(dim=2, keepdim=True), mean + (squares / (count - 1)).sqrt())


@torch.no_grad()
def adaptive_threshold(
    priors: Tensor, counts: Sequence[int], truth: Truth, topk: int = 9
) -> Tensor:
    """The overlap from which ATSS calls a prior positive, for each object: (B, G), at least one.

    Mean plus deviation of the overlaps of the `topk` priors of each level that are nearest to it.
    """
    corners, _, _ = padded(truth)
    inside = torch.ones(len(corners), len(priors), dtype=torch.bool, device=priors.device)
    nearest = nearest_priors(exact(priors), counts, corners, inside, topk)
    overlap = boxes.iou(exact(priors)[nearest], corners.unsqueeze(2))
    return mean_plus_deviation(overlap, torch.ones_like(overlap, dtype=torch.bool)).squeeze(2)


@torch.no_grad()
def valuable_region(
    priors: Tensor,
    counts: Sequence[int],
    truth: Truth,
    *,
    inside: Tensor,
    ratio: float,
    topk: int = 9,
    nearness: RegionDistance = "covered",
) -> Tensor:
    """LD's ring of priors that are near to an object but not as near as its positives.

    Args:
        priors: (N, 4).
        counts: priors of each level, which sum to N.
        truth: the objects.
        inside: (B, N) which priors lie within their image.
        ratio: the ring reaches down to this share of the threshold of the positives.
        topk: candidates per level, of which the threshold is made, as the label assignment does.
        nearness: of a prior to an object, less the distance of their centres: `covered` is the
            share of the prior that the object covers, `iou` the overlap of both (DIoU).

    Returns:
        (B, N) the largest IoU with an object in whose ring the prior lies; 0 in no ring.
    """
    corners, valid = truth.boxes.unsqueeze(2), truth.valid.unsqueeze(2)
    if truth.valid.shape[1] == 0:
        return priors.new_zeros(inside.shape)
    overlap = boxes.iou(priors, corners)  # (B, G, N)
    nearest = nearest_priors(priors, counts, truth.boxes, inside, topk)
    usable = inside.unsqueeze(1).expand_as(overlap).gather(2, nearest)
    threshold = mean_plus_deviation(overlap.gather(2, nearest), usable)
    shared = overlap if nearness == "iou" else boxes.intersection_over_first(priors, corners)
    near = shared - boxes.center_distance(priors, corners)
    ring = (near >= ratio * threshold) & (near < threshold) & valid & inside.unsqueeze(1)
    return (overlap * ring).amax(dim=1)


@torch.no_grad()
def fine_grained(
    priors: Sequence[Tensor],
    truth: Truth,
    *,
    ratio: float = 0.5,
    scope: FineGrainedScope = "own",
    legacy: bool = False,
    inside: Tensor | None = None,
) -> Tensor:
    """Priors that overlap an object nearly as much as its best prior does.

    Args:
        priors: (n, 4) per level, N in all.
        truth: the objects.
        ratio: a prior's overlap is above this share of the best.
        scope: the best on the level that the object's size assigns it to, and no other level;
            the best on `each` level; or the best in the `image`.
        legacy: boxes end a pixel later, as they did before COCO.
        inside: (B, N) which priors lie within their image, no others are taken; None for all.

    Returns:
        (B, N) bool.
    """
    corners, _, valid = padded(truth)
    end = F.pad(corners.new_full((2,), float(legacy)), (2, 0))
    parts = [
        boxes.iou(exact(level) + end, corners.unsqueeze(2) + end)  # (B, G, n)
        for level in priors
    ]
    if inside is not None:
        within = inside.unsqueeze(1).split([len(level) for level in priors], dim=2)
        parts = [part * here for part, here in zip(parts, within, strict=True)]
    best = torch.cat([part.amax(dim=2, keepdim=True) for part in parts], dim=2)  # (B, G, L)
    if scope == "image":
        best = best.amax(dim=2, keepdim=True).expand_as(best)
    near = [part > ratio * best[..., i : i + 1] for i, part in enumerate(parts)]
    if scope == "own":
        own = object_level(corners, len(priors))
        near = [part & (own == i).unsqueeze(-1) for i, part in enumerate(near)]
    return (torch.cat(near, dim=2) & valid.unsqueeze(-1)).any(dim=1)


@torch.no_grad()
def objects_of(
    corners: Tensor, truth: Truth, background: int, *, overlap: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Which object each box belongs to: labels (B, P) and boxes (B, P, 4).

    Args:
        corners: (B, P, 4).
        truth: the objects.
        background: label of a box of no object, whose box is zeros.
        overlap: IoU with the best object from which a box belongs to it.
    """
    theirs, names, valid = padded(truth)
    shared = boxes.pairwise_iou(exact(corners), theirs)
    best, which = shared.masked_fill(~valid.unsqueeze(1), -1.0).max(dim=-1)
    of_object = best >= overlap
    labels = names.gather(1, which).masked_fill(~of_object, background)
    return labels, (take(theirs, which) * of_object.unsqueeze(-1)).to(corners)
