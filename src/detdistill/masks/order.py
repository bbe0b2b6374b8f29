"""Which points are the best, spread over the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill.levels import Levels, take, unflatten
from detdistill.masks.suppression import survivors


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
        ranked = take(box, order)
        candidate = survivors(ranked, candidate, nms_iou, count)
    return torch.zeros_like(candidate).scatter(1, order, candidate)


@torch.no_grad()
def peaks(values: Tensor, like: Levels) -> Tensor:
    """The values (B, P) where no neighbour on the same level has a larger one, 0 elsewhere."""

    def of_level(level: Tensor) -> Tensor:
        highest = F.max_pool2d(level.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)
        return level * (level == highest)

    return torch.cat([of_level(level).flatten(1) for level in unflatten(values, like)], dim=1)


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
        ranked = take(box, order)
        everyone = torch.ones_like(values, dtype=torch.bool)
        best = survivors(ranked, everyone, overlap, count)
        return torch.zeros_like(best).scatter(1, order, best).view(shape)

    return by_group(of_level, sizes, apart, corners)
