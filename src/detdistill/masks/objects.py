"""Where in an image the objects are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.masks.exact import exact, padded
from detdistill.structures import Truth

Decay = Literal["inward", "outward"]


def object_level(corners: Tensor, levels: int) -> Tensor:
    """The level on which an object of this size is looked for, as in DeFeat: (..., 4) -> (...)."""
    sides = (corners[..., 2:] - corners[..., :2] + 1).clamp(min=0)
    size = sides.prod(dim=-1).sqrt() / 56
    return (size + 1e-6).log2().floor().clamp(0, levels - 1).long()


@torch.no_grad()
def inside_objects(points: Tensor, truth: Truth) -> Tensor:
    """Which points (P, 2) lie strictly inside an object: (B, P) bool."""
    corners, _, valid = padded(truth)
    margins = boxes.to_distances(exact(points), corners.unsqueeze(2))  # (B, G, P, 4)
    return ((margins.amin(dim=-1) > 0) & valid.unsqueeze(-1)).any(dim=1)


@torch.no_grad()
def nearness(points: Tensor, truth: Truth, *, ring: float, decay: Decay = "inward") -> Tensor:
    """1 inside an object, falling to 0 in a ring around it: (B, P).

    Args:
        points: (P, 2) x and y.
        truth: the objects.
        ring: width of the ring on each side, as a share of the object's width and height.
        decay: `inward` falls with the distance to the nearest object's border; `outward` grows.
    """
    corners, _, valid = padded(truth)
    points = exact(points)[:, None]
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
