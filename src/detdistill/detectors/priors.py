"""The boxes or points from which a dense detector measures what it finds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detdistill.levels import Levels


class Priors(nn.Module):
    """Anchors of several sizes and shapes around every cell; of scale 0, points.

    Args:
        scale: side of the smallest square in units of the stride.
        octaves: sizes, which divide an octave evenly.
        ratios: height over width.
        offset: where in its cell an anchor is centred, 0 the corner.
        whole_pixels: round sides and corners, and space the cells evenly over the image.
    """

    shapes: Tensor
    """(S, 2) width and height in units of a side."""
    sizes: Tensor
    """(octaves,) sides in units of the stride."""

    def __init__(
        self,
        *,
        scale: float,
        octaves: int,
        ratios: tuple[float, ...],
        offset: float,
        whole_pixels: bool = False,
    ) -> None:
        super().__init__()
        heights = torch.tensor(ratios).sqrt()
        sizes = torch.tensor([scale * 2 ** (i / octaves) for i in range(octaves)])
        self.register_buffer("shapes", torch.stack([1 / heights, heights], -1), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)
        self.offset = offset
        self.whole_pixels = whole_pixels

    def forward(self, like: Tensor, stride: int, image: tuple[int, int] | None = None) -> Tensor:
        """(H·W·A, 4) for a map of (..., H, W); all sizes of a shape stand together.

        `image` is its height and width, which whole pixels need.
        """
        height, width = like.shape[-2:]
        steps = (stride, stride)
        if self.whole_pixels and image is not None:
            steps = (image[0] // height, image[1] // width)
        x = (torch.arange(width, device=like.device) + self.offset) * steps[1]
        y = (torch.arange(height, device=like.device) + self.offset) * steps[0]
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        middle = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2).float()
        half = self._half_sides(stride)
        return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1)

    def of_levels(self, levels: Levels, strides: tuple[int, ...]) -> Levels:
        """(H·W·A, 4) for every level; the finest says how large the image is."""
        height, width = levels[0].shape[-2:]
        image = (height * strides[0], width * strides[0])
        return tuple(self(level, s, image) for level, s in zip(levels, strides, strict=True))

    def _half_sides(self, stride: int) -> Tensor:
        """(A, 2) from an anchor's centre to its right and lower edge."""
        sides = self.sizes.float() * stride
        sides = sides.floor() if self.whole_pixels else sides
        half = (self.shapes.float().unsqueeze(1) * sides.view(1, -1, 1)).flatten(0, 1) / 2
        return half.round() if self.whole_pixels else half
