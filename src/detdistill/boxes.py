"""Geometry of boxes. All functions are pure; boxes are xyxy in pixels, last dimension 4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...), 0 for a reversed box."""
    width_height = sides(boxes).clamp(min=0)
    return width_height[..., 0] * width_height[..., 1]


def sides(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) -> (..., 2) width and height."""
    return boxes[..., 2:] - boxes[..., :2]


def centers(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2) x and y."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def from_centers(boxes: Tensor) -> Tensor:
    """Centre x, y, width, height (..., 4) -> corners."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def to_centers(boxes: Tensor) -> Tensor:
    """Corners (..., 4) -> centre x, y, width, height."""
    return torch.cat([centers(boxes), sides(boxes)], dim=-1)


def from_coco(boxes: Tensor) -> Tensor:
    """Left, top, width, height (..., 4), as in COCO's files -> corners."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def to_coco(boxes: Tensor) -> Tensor:
    """Corners (..., 4) -> left, top, width, height."""
    return torch.cat([boxes[..., :2], sides(boxes)], dim=-1)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union, clamped to at least `EPS`, of boxes that broadcast."""
    intersection = _shared(a, b, 0) * _shared(a, b, 1)
    union = _signed_area(a) + _signed_area(b) - intersection
    return intersection, union.clamp(min=EPS)


def _shared(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """What two boxes have in common along one axis; both axes at once would need twice the room."""
    low = torch.maximum(a[..., axis], b[..., axis])
    high = torch.minimum(a[..., axis + 2], b[..., axis + 2])
    return (high - low).clamp(min=0)


def _signed_area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of (..., 4) and (..., 4), which broadcast -> (...)."""
    intersection, union = _overlap(a, b)
    return intersection / union


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., M, 4) and (..., G, 4) -> (..., M, G)."""
    return iou(a.unsqueeze(-2), b.unsqueeze(-3))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes that broadcast, from -1 to 1 -> (...)."""
    intersection, union = _overlap(a, b)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    enclosing = area(torch.cat([low, high], dim=-1)).clamp(min=EPS)
    return intersection / union - (enclosing - union) / enclosing


def intersection_over_first(a: Tensor, b: Tensor) -> Tensor:
    """The share of `a` that `b` covers; boxes that broadcast -> (...)."""
    return _overlap(a, b)[0] / area(a).clamp(min=EPS)


def center_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the centres over that of the enclosing corners, 0 to 1 -> (...)."""
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    between = (centers(a) - centers(b)).square().sum(dim=-1)
    return between / (high - low).square().sum(dim=-1).clamp(min=EPS)


def extents(sizes: Tensor) -> Tensor:
    """Heights and widths (B, 2) -> width, height, width, height (B, 1, 4): what bounds boxes."""
    return sizes.flip(-1).repeat(1, 2).unsqueeze(1)


def clipped(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, ..., 4) cut off at the edges of images of heights and widths (B, 2)."""
    limits = extents(sizes).to(boxes)
    limits = limits.view(sizes.shape[0], *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)


def from_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Points (..., 2) and distances (..., 4) to left, top, right, bottom -> boxes."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) from points to the left, top, right and bottom of boxes."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """How central points are in boxes: (..., 2) and (..., 4) -> (...), 1 the centre, 0 outside."""
    low, high = to_distances(points, boxes).clamp(min=0).chunk(2, dim=-1)
    ratio = torch.minimum(low, high) / torch.maximum(low, high).clamp(min=EPS)
    return ratio.prod(dim=-1).sqrt()


def expected_bin(logits: Tensor, bins: int) -> Tensor:
    """The mean of each edge's distribution: (..., 4·bins) -> (..., 4), in units of the stride."""
    shares = logits.unflatten(-1, (4, bins)).softmax(dim=-1)
    steps = torch.arange(bins, dtype=logits.dtype, device=logits.device)
    mean: Tensor = (shares * steps).sum(dim=-1)
    return mean


@dataclass(frozen=True)
class DistributionCoder:
    """GFL: each edge is a distribution over `bins` distances, in units of the stride."""

    bins: int

    @property
    def numbers(self) -> int:
        """4 edges of `bins` logits."""
        return 4 * self.bins

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:
        """Boxes around the priors' centres at the distributions' means."""
        distances = expected_bin(raw, self.bins) * stride.unsqueeze(-1)
        return from_distances(centers(priors), distances)


@dataclass(frozen=True)
class DistanceCoder:
    """FCOS: each edge is a distance in pixels from the prior's centre."""

    numbers: int = 4

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:  # noqa: ARG002
        """Boxes around the priors' centres."""
        return from_distances(centers(priors), raw)


@dataclass(frozen=True)
class DeltaCoder:
    """RetinaNet, ATSS, Faster R-CNN: shift and log-scale of an anchor, divided by `stds`."""

    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    numbers: int = 4
    max_log_scale: float = abs(math.log(16 / 1000))

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:  # noqa: ARG002
        """Anchors shifted and scaled; the scale is clamped to 1000/16 and its inverse."""
        deltas = _scaled(raw, self.stds)
        size = sides(priors)
        middle = centers(priors) + deltas[..., :2] * size
        half = size * deltas[..., 2:].clamp(-self.max_log_scale, self.max_log_scale).exp() / 2
        return torch.cat([middle - half, middle + half], dim=-1)

    def encode(self, boxes: Tensor, priors: Tensor) -> Tensor:
        """Deltas that decode to `boxes`."""
        size = sides(priors)
        shift = (centers(boxes) - centers(priors)) / size
        scale = (sides(boxes) / size).log()
        return _scaled(torch.cat([shift, scale], dim=-1), [1 / std for std in self.stds])


def _scaled(numbers: Tensor, factors: Sequence[float]) -> Tensor:
    """(..., n) times n factors, none of which has to be copied to a device."""
    columns = numbers.unbind(dim=-1)
    return torch.stack([c * f for c, f in zip(columns, factors, strict=True)], dim=-1)
