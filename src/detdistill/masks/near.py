"""How near every point of an image is to an object."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.masks.exact import exact, padded, portions
from detdistill.structures import Truth

Decay = Literal["inward", "outward"]
Vicinity = Literal["box", "circle", "cells"]
Origin = Literal["border", "center"]
Reach = Literal["corner", "observed"]


@torch.no_grad()
def nearness(
    points: Tensor,
    truth: Truth,
    *,
    ring: float,
    decay: Decay = "inward",
    vicinity: Vicinity = "box",
    origin: Origin = "border",
    reach: Reach = "corner",
    strides: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """1 inside an object, falling to 0 in a ring around it: (B, P).

    Args:
        points: (P, 2) x and y.
        truth: the objects.
        ring: width of the ring on each side, as a share of the object's width and height.
        decay: `inward` falls with the distance to the nearest object; `outward` grows.
        vicinity: `box` ends the ring with a larger box; `circle` everywhere as far from the border
            as that box's corners are; `cells` after `ring` cells of the point's level.
        origin: distances are from the object's `border` or from its `center`.
        reach: the distance at which nothing is left: that of the ring's `corner`, or the largest
            that is `observed` in it.
        strides: (P,) of each point's level, for `cells`.
        seen: (B, 1 or P, G) bool: which objects count for which points; see `objects_seen`.
    """
    corners, _, valid = padded(truth)
    seen = valid.unsqueeze(1) if seen is None else seen
    points = exact(points)[:, None]
    cell = None if strides is None or vicinity != "cells" else exact(strides).view(1, -1, 1, 1)
    shape = (len(corners), len(points))
    nearest, share = corners.new_full(shape, torch.inf), corners.new_zeros(shape)
    inside = torch.zeros(shape, dtype=torch.bool, device=corners.device)
    for part in portions(corners.shape[1], shape[0] * shape[1]):
        low, high = corners[:, None, part].chunk(2, dim=-1)  # (B, 1, g, 2)
        gap = torch.maximum(low - points, points - high).clamp(min=0)  # (B, P, g, 2)
        margin = ring * (high - low if cell is None else cell.expand(-1, -1, -1, 2))
        border, corner = _length(gap), _length(margin)
        around = (gap <= margin).all(dim=-1) if vicinity != "circle" else border <= corner
        around = around & (corner > 0) & seen[..., part]
        inside = inside | ((border == 0) & seen[..., part]).any(dim=-1)
        distance = border
        if origin == "center":
            distance, corner = (
                _length(points - (low + high) / 2),
                _length((high - low) / 2 + margin),
            )
        if reach == "observed":
            corner = (distance * around).amax(dim=1, keepdim=True)
        found, which = distance.masked_fill(~around, torch.inf).min(dim=-1, keepdim=True)
        shares = (distance / corner.clamp(min=boxes.EPS)).gather(-1, which)
        better = found.squeeze(-1) < nearest
        nearest = torch.where(better, found.squeeze(-1), nearest)
        share = torch.where(better, shares.squeeze(-1), share)
    value = 1 - share if decay == "inward" else share
    return value.masked_fill(nearest.isinf(), 0).masked_fill(inside, 1)


def _length(sides: Tensor) -> Tensor:
    """(..., 2) -> (...)."""
    return torch.hypot(*sides.unbind(-1))
