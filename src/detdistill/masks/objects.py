"""Where in an image the objects are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from detdistill import boxes
from detdistill.levels import Levels
from detdistill.masks.exact import exact, padded, portions
from detdistill.structures import Truth


def object_level(corners: Tensor, levels: int) -> Tensor:
    """The level on which an object of this size is looked for, as in DeFeat: (..., 4) -> (...)."""
    sides = (corners[..., 2:] - corners[..., :2] + 1).clamp(min=0)
    size = sides.prod(dim=-1).sqrt() / 56
    return (size + 1e-6).log2().floor().clamp(0, levels - 1).long()


def cell_centers(level: Tensor, stride: int) -> Tensor:
    """(H·W, 2) x and y, in pixels, of the middle of every cell of a map (..., H, W)."""
    rows, columns = (torch.arange(n, device=level.device) for n in level.shape[-2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride


@torch.no_grad()
def inside_objects(points: Tensor, truth: Truth) -> Tensor:
    """Which points (P, 2) lie strictly inside an object: (B, P) bool."""
    corners, _, valid = padded(truth)
    margins = boxes.to_distances(exact(points), corners.unsqueeze(2))  # (B, G, P, 4)
    return ((margins.amin(dim=-1) > 0) & valid.unsqueeze(-1)).any(dim=1)


@torch.no_grad()
def objects_seen(truth: Truth, sizes: Sequence[int] | None = None) -> Tensor:
    """Which objects count for which points: (B, 1 or P, G) bool, at least one object wide.

    Args:
        truth: the objects; what is not valid counts nowhere.
        sizes: points of each level, if an object counts on the level of its size alone; see
            `object_level`. None: it counts everywhere.
    """
    corners, _, valid = padded(truth)
    if sizes is None:
        return valid.unsqueeze(1)
    level = torch.arange(len(sizes), device=corners.device)
    own = object_level(corners, len(sizes)).unsqueeze(1) == level.view(1, -1, 1)  # (B, L, G)
    rows = [own[:, i : i + 1].expand(-1, size, -1) for i, size in enumerate(sizes)]
    return torch.cat(rows, dim=1) & valid.unsqueeze(1)


@torch.no_grad()
def inside_any(points: Tensor, corners: Tensor, valid: Tensor) -> Tensor:
    """Which points (P, 2) lie in any of the boxes (B, n, 4) that are valid (B, n): (B, P) bool."""
    inside = torch.zeros(len(corners), len(points), dtype=torch.bool, device=corners.device)
    for part in portions(corners.shape[1], 4 * inside.numel()):
        margins = boxes.to_distances(points.to(corners), corners[:, part].unsqueeze(2))
        inside = inside | ((margins.amin(dim=-1) >= 0) & valid[:, part, None]).any(dim=1)
    return inside


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
    cells = _filled(corners, shape[::-1]).repeat(2)
    extent = boxes.extents(sizes).to(corners).clamp(min=1)
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


def shares(truth: Truth, level: Tensor, stride: int | None = None) -> tuple[Tensor, Tensor]:
    """`object_shares` and `background_shares` of a map (B, C, H, W).

    It stands for the whole padded image if its stride is given, otherwise for what is not padding.
    """
    height, width = level.shape[-2:]
    sizes = truth.sizes
    if stride is not None:
        sizes = _filled(sizes, (height * stride, width * stride)).expand_as(sizes)
    foreground = object_shares(truth, (height, width), sizes)
    return foreground, background_shares(foreground)


def _filled(like: Tensor, numbers: tuple[int, ...]) -> Tensor:
    """The numbers where a tensor is; made there, as copying them there would wait."""
    return torch.cat([like.new_full((1,), number) for number in numbers])


# Cells of objects as DeFeat counts them


Cells = Callable[[Truth, tuple[int, int], int], Tensor]
"""Makes a map (B, H, W) of objects, a shape and a stride."""


def pyramid(cells: Cells, truth: Truth, neck: Levels, strides: Sequence[int]) -> Levels:
    """(B, H, W) per level, of the objects that belong there by `object_level`."""
    own = object_level(exact(truth.boxes), len(neck))
    return tuple(
        cells(
            replace(truth, valid=truth.valid & (own == i)),
            (level.shape[-2], level.shape[-1]),
            stride,
        )
        for i, (level, stride) in enumerate(zip(neck, strides, strict=True))
    )


class Span(NamedTuple):
    """Which rows, or columns, each object covers."""

    places: Tensor
    """(B, G, n) number of each row relative to the object's first."""
    extent: Tensor
    """(B, G, 1) how many it covers, at least 1."""
    covered: Tensor
    """(B, G, n) bool."""


@torch.no_grad()
def object_cells(truth: Truth, shape: tuple[int, int], stride: int) -> Tensor:
    """Which cells the objects cover: (B, H, W) bool.

    Coordinates are rounded towards zero at both ends, so that the last cell which an object
    touches does not count. An object too thin for that, in either direction, covers one cell.
    """
    rows, columns, _ = _spans(truth, shape, stride, clip=True)
    pair = (rows.covered.float(), columns.covered.float())
    return torch.einsum("bgh,bgw->bhw", *pair) > 0


@torch.no_grad()
def gaussian_cells(truth: Truth, shape: tuple[int, int], stride: int) -> Tensor:
    """A bell over each object: (B, H, W), 1 in its middle, the largest where they overlap.

    It ends at one deviation, on the border of `object_cells`; outside it is 0. An object too thin
    for cells of its own is a single 1.
    """
    rows, columns, thin = _spans(truth, shape, stride, clip=False)
    if truth.valid.shape[1] == 0:
        return rows.extent.new_zeros((len(thin), *shape))
    down, across = (
        ((2 * span.places / span.extent - 1).square() * ~thin).masked_fill(~span.covered, torch.inf)
        for span in (rows, columns)
    )
    nearest = (down.unsqueeze(-1) + across.unsqueeze(-2)).amin(dim=1)
    return (-nearest / 2).exp()


def _spans(
    truth: Truth, shape: tuple[int, int], stride: int, *, clip: bool
) -> tuple[Span, Span, Tensor]:
    """Rows and columns of each object, and whether it is too thin (B, G, 1).

    Args:
        truth: the objects; those that are not valid cover nothing.
        shape: H and W.
        stride: pixels per cell.
        clip: whether an object ends where the map does.
    """
    first, end = (truth.boxes / stride).trunc().chunk(2, dim=-1)  # x and y
    if clip:
        first = first.clamp(min=0)
        ends = (end[..., axis].clamp(max=size) for axis, size in enumerate(shape[::-1]))
        end = torch.stack(list(ends), dim=-1)
    thin = (first == end).any(dim=-1, keepdim=True)
    extent = torch.where(thin, 1, end - first)
    spans = []
    for axis, size in ((1, shape[0]), (0, shape[1])):
        here = slice(axis, axis + 1)
        places = torch.arange(size, device=first.device) - first[..., here]
        covered = (places >= 0) & (places < extent[..., here]) & truth.valid.unsqueeze(-1)
        spans.append(Span(places, extent[..., here].clamp(min=1), covered))
    return spans[0], spans[1], thin
