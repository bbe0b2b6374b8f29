"""How alike two maps look, as the structural similarity of pictures (SSIM) has it.

Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
2004, equation 13, with its constants. At a map's border the window covers the map alone.

The gradient is written out: it takes half of the time of differentiating every operation, and has
none of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detdistill.losses import precise


def structural_similarity(
    a: Tensor, b: Tensor, extent: Tensor, *, window: int = 11, deviation: float = 1.5
) -> Tensor:
    """How alike two maps look around each cell: their means, contrasts and structures.

    Args:
        a: (B, C, H, W).
        b: (B, C, H, W); not differentiated.
        extent: the range of the values, (B, 1, 1, 1) or one number; not differentiated.
        window: cells per side of the neighbourhood, odd.
        deviation: of the Gaussian by which cells of the neighbourhood count.

    Returns:
        (B, C, H, W) from -1 to 1, which is reached where both are equal.
    """
    a, b = precise(a), precise(b.detach())
    around = Window(*(_shares(size, window, deviation, a) for size in a.shape[-2:]))
    similarity: Tensor = _Similarity.apply(
        a.movedim(1, -1), b.movedim(1, -1), extent.detach(), around
    )
    return similarity.movedim(-1, 1)


class Window(NamedTuple):
    """How much the cells around each cell count."""

    rows: Tensor
    """(H, H)."""
    columns: Tensor
    """(W, W)."""

    def mean(self, cells: Tensor) -> Tensor:
        """(..., H, W, C) -> the same.

        Channels come last, so that each of the two products is one of large matrices.
        """
        with torch.autocast(cells.device.type, enabled=False):
            along = (self.rows @ cells.flatten(-2)).view_as(cells)
            return self.columns @ along

    def backward(self, gradient: Tensor) -> Tensor:
        """From that of the means to that of the maps, (..., H, W, C)."""
        return Window(self.rows.T, self.columns.T).mean(gradient)


class _Similarity(torch.autograd.Function):
    """(B, H, W, C) of both, and what the extent is -> (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, extent: Tensor, around: Window) -> Tensor:  # noqa: ANN401
        cells = a.new_empty(4, *a.shape)
        cells[0], cells[1] = a, b
        torch.mul(a, b, out=cells[2])
        torch.mul(a, a, out=cells[3]).addcmul_(b, b)
        similarity, slopes = _compared(Moments(*around.mean(cells)), extent)
        ctx.save_for_backward(a, b, slopes)
        ctx.around = around
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        a, b, slopes = ctx.saved_tensors
        of_a, of_product, of_squares = ctx.around.backward(slopes * gradient)
        of_a = of_a.addcmul_(of_product, b).addcmul_(of_squares, a, value=2)
        return of_a, None, None, None


class Moments(NamedTuple):
    """Means over the neighbourhood of each cell, (B, H, W, C) each."""

    a: Tensor
    b: Tensor
    product: Tensor
    """Of both."""
    squares: Tensor
    """Of one, and of the other, added up."""


def _compared(moments: Moments, extent: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity, and its slopes (3, B, H, W, C) by the first mean, the product, the squares.

    It is l · s / (m · t): l and s are twice the product of the means and the covariance, m and t
    the squares of the means and the variances, each with a constant that keeps it from zero. The
    moments are used up.
    """
    a, b, product, squares = moments
    small, less = (0.01 * extent).square(), (0.03 * extent).square()
    means, means_squared = a * b, (a * a).addcmul_(b, b)
    s = product.sub_(means).mul_(2).add_(less)
    spread = squares.sub_(means_squared)
    t = spread.clamp(min=0).add_(less)
    l, m = means.mul_(2).add_(small), means_squared.add_(small)
    share = (m * t).reciprocal_()
    similarity = (l * s).mul_(share)
    slopes = a.new_empty(3, *a.shape)
    by_a, by_product, by_squares = slopes
    torch.div(similarity, t, out=by_squares).neg_().mul_(spread > 0)
    torch.sub(s, l, out=by_a).mul_(share).mul_(b)
    by_a.sub_((similarity / m).add_(by_squares).mul_(a)).mul_(2)
    torch.mul(l, share, out=by_product).mul_(2)
    return similarity, slopes


def _shares(size: int, window: int, deviation: float, like: Tensor) -> Tensor:
    """(size, size) how much each cell of a line counts around each other; rows add up to 1."""
    places = torch.arange(size, device=like.device)
    apart = (places - places.unsqueeze(1)).to(like)
    weights = (-0.5 * (apart / deviation).square()).masked_fill(
        apart.abs() > window // 2, -torch.inf
    )
    return weights.softmax(dim=1)
