"""What all masks begin with: objects and boxes in a precision that keeps orders and thresholds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill.structures import Truth

LIMIT = 2**20
"""Numbers that a map over points and objects may hold at once: 8 MiB in float64."""


def portions(objects: int, points: int) -> list[slice]:
    """The objects in portions, none of which makes a map over all points larger than `LIMIT`."""
    size = max(1, LIMIT // max(1, points))
    return [slice(start, start + size) for start in range(0, objects, size)]


def exact(x: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)


def padded(truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, G, 4), labels (B, G), valid (B, G) with room for at least one object."""
    missing = 1 if truth.valid.shape[1] == 0 else 0
    return (
        F.pad(exact(truth.boxes), (0, 0, 0, missing)),
        F.pad(truth.labels, (0, missing)),
        F.pad(truth.valid, (0, missing)),
    )


def upright(corners: Tensor) -> Tensor:
    """Reversed boxes (..., 4) become empty ones, so that their area is 0."""
    low, high = corners.chunk(2, dim=-1)
    return torch.cat([low, torch.maximum(low, high)], dim=-1)
