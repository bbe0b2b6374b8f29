"""Where in an image it matters: maps of weights over the cells, made from truth and predictions.

Everything here is constant to the gradient. Shape letters: B images, P points (the cells of all
levels, fine to coarse, row by row), A boxes per point, K classes, G padded objects. Computed in
float64, because orders and thresholds decide and rounding must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes
from detdistill.structures import Truth

ClassScore = Literal["matched", "present", "any"]
Decay = Literal["inward", "outward"]
RegionDistance = Literal["covered", "iou"]
FineGrainedScope = Literal["own", "each", "image"]


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


# Priors of objects


@torch.no_grad()
def nearest_priors(
    priors: Tensor, counts: Sequence[int], corners: Tensor, inside: Tensor, topk: int
) -> Tensor:
    """The `topk` priors of each level that are nearest to each object's centre, as indices.

    Args:
        priors: (N, 4).
        counts: priors of each level, which sum to N.
        corners: (B, G, 4) the objects.
        inside: (B, N) which priors lie within their image.
        topk: how many per level, fewer where a level has fewer.

    Returns:
        (B, G, C), level by level.
    """
    offsets = boxes.centers(priors) - boxes.centers(corners).unsqueeze(2)
    distances = offsets.pow(2).sum(dim=-1).sqrt()
    distances = distances.masked_fill(~inside.unsqueeze(1), torch.inf)
    found, start = [], 0
    for level in distances.split(list(counts), dim=2):
        size = level.shape[2]
        found.append(level.topk(min(topk, size), dim=2, largest=False).indices + start)
        start += size
    return torch.cat(found, dim=2)


@torch.no_grad()
def mean_plus_deviation(values: Tensor, usable: Tensor) -> Tensor:
    """(B, G, C) -> (B, G, 1) mean plus unbiased standard deviation over what is usable."""
    count = usable.sum(dim=2, keepdim=True)
    mean = (values * usable).sum(dim=2, keepdim=True) / count.clamp(min=1)
    squares = ((values - mean).pow(2) * usable).sum(dim=2, keepdim=True)
    return mean + (squares / (count - 1).clamp(min=1)).sqrt()


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
) -> Tensor:
    """Priors that overlap an object nearly as much as its best prior does.

    Args:
        priors: (n, 4) per level, N in all.
        truth: the objects.
        ratio: a prior's overlap is above this share of the best.
        scope: the best on the level that the object's size assigns it to, and no other level;
            the best on `each` level; or the best in the `image`.
        legacy: boxes end a pixel later, as they did before COCO.

    Returns:
        (B, N) bool.
    """
    corners, _, valid = _padded(truth)
    end = corners.new_tensor([0.0, 0.0, 1.0, 1.0]) * legacy
    parts = [
        boxes.iou(_exact(level) + end, corners.unsqueeze(2) + end)  # (B, G, n)
        for level in priors
    ]
    best = torch.cat([part.amax(dim=2, keepdim=True) for part in parts], dim=2)  # (B, G, L)
    if scope == "image":
        best = best.amax(dim=2, keepdim=True).expand_as(best)
    near = [part > ratio * best[..., i : i + 1] for i, part in enumerate(parts)]
    if scope == "own":
        own = object_level(corners, len(priors))
        near = [part & (own == i).unsqueeze(-1) for i, part in enumerate(near)]
    return (torch.cat(near, dim=2) & valid.unsqueeze(-1)).any(dim=1)


def object_level(corners: Tensor, levels: int) -> Tensor:
    """The level on which an object of this size is looked for, as in DeFeat: (..., 4) -> (...)."""
    sides = (corners[..., 2:] - corners[..., :2] + 1).clamp(min=0)
    size = sides.prod(dim=-1).sqrt() / 56
    return (size + 1e-6).log2().floor().clamp(0, levels - 1).long()


@torch.no_grad()
def inside_objects(points: Tensor, truth: Truth) -> Tensor:
    """Which points (P, 2) lie strictly inside an object: (B, P) bool."""
    corners, _, valid = _padded(truth)
    margins = boxes.to_distances(_exact(points), corners.unsqueeze(2))  # (B, G, P, 4)
    return ((margins.amin(dim=-1) > 0) & valid.unsqueeze(-1)).any(dim=1)


@torch.no_grad()
def most_different(
    apart: Tensor,
    corners: Tensor,
    sizes: Sequence[int],
    *,
    count: int,
    overlap: float,
    jointly: bool = False,
) -> Tensor:
    """The points where two detectors differ most, spread over the image: (B, P) bool.

    On each level, overlapping boxes are suppressed by those of a larger difference, and the first
    `count` of the survivors are taken.

    Args:
        apart: (B, P) how much they differ.
        corners: (B, P, 4) box of each point.
        sizes: points of each level, which sum to P.
        count: how many points per image and level at most.
        overlap: IoU above which the lesser point is suppressed.
        jointly: treat the batch as one image, so that its images suppress each other.
    """

    def of_level(values: Tensor, box: Tensor) -> Tensor:
        shape = values.shape
        if jointly:
            values, box = values.flatten().unsqueeze(0), box.flatten(0, 1).unsqueeze(0)
        order = ranking(values)
        ranked = box.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        everyone = torch.ones_like(values, dtype=torch.bool)
        best = survivors(ranked, everyone, overlap, count)
        return torch.zeros_like(best).scatter(1, order, best).view(shape)

    return by_group(of_level, sizes, apart, corners)


# Cells of objects


@torch.no_grad()
def object_shares(truth: Truth, shape: tuple[int, int], sizes: Tensor) -> Tensor:
    """Each object's weight 1, spread over its cells: (B, H, W), the largest where they overlap.

    An object covers every cell that it touches, and the one after if it ends on a border.

    Args:
        truth: the objects.
        shape: H and W.
        sizes: (B, 2) height and width in pixels that the map stands for.
    """
    corners, valid = truth.boxes, truth.valid
    if valid.shape[1] == 0:
        return corners.new_zeros((len(valid), *shape))
    cells = corners.new_tensor([shape[1], shape[0]]).repeat(2)
    extent = sizes.to(corners).flip(-1).repeat(1, 2).clamp(min=1).unsqueeze(1)
    low, high = (corners / extent * cells).chunk(2, dim=-1)
    low, high = low.floor(), high.ceil()
    share = valid / (high + 1 - low).clamp(min=1).prod(dim=-1)  # (B, G)
    across, along = (
        (low[..., axis, None] <= place) & (place <= high[..., axis, None])
        for axis, size in enumerate(shape[::-1])
        for place in [torch.arange(size, device=corners.device)]
    )
    covered = along.unsqueeze(-1) & across.unsqueeze(-2)  # (B, G, H, W)
    return (covered * share[..., None, None]).amax(dim=1)


@torch.no_grad()
def background_shares(foreground: Tensor) -> Tensor:
    """Weight 1 of each image, spread over the cells where `foreground` (B, H, W) is 0."""
    empty = (foreground == 0).to(foreground)
    return empty / empty.sum(dim=(1, 2), keepdim=True).clamp(min=1)


# Chance


def uniform(shape: Sequence[int], device: torch.device, *key: int) -> Tensor:
    """Numbers from 0 to 1 that depend on their place and the key alone.

    No generator has a state here, so that a step can be repeated, resumed and compiled.
    """
    count = math.prod(shape)
    bits = torch.arange(count, device=device, dtype=torch.int64)
    for number in (*key, 0):
        bits = (bits * 0x9E3779B1 + number * 0x85EBCA77 + 0x165667B1) & 0xFFFFFFFF
        bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
        bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & 0xFFFFFFFF
        bits = bits ^ (bits >> 15)
    return (bits >> 8).float().view(tuple(shape)) / 2**24
