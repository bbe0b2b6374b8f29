"""The boxes or points from which a dense detector measures what it finds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Priors(nn.Module):
    """Anchors of several sizes and shapes around every cell; of scale 0, points."""

    extents: Tensor
    """(A, 2) width and height in units of the stride; all sizes of a shape stand together."""

    def __init__(
        self, *, scale: float, octaves: int, ratios: tuple[float, ...], offset: float
    ) -> None:
        super().__init__()
        heights = torch.tensor(ratios).sqrt()
        shapes = torch.stack([1 / heights, heights], dim=-1)
        sizes = torch.tensor([scale * 2 ** (i / octaves) for i in range(octaves)])
        extents = (shapes.unsqueeze(1) * sizes.view(1, -1, 1)).flatten(0, 1)
        self.register_buffer("extents", extents, persistent=False)
        self.offset = offset

    def forward(self, like: Tensor, stride: int) -> Tensor:
        """(H·W·A, 4) for a map of (..., H, W)."""
        height, width = like.shape[-2:]
        x = (torch.arange(width, device=like.device) + self.offset) * stride
        y = (torch.arange(height, device=like.device) + self.offset) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        middle = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2).float()
        half = self.extents.float() * stride / 2
        return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1)
