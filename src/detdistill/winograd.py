"""3×3 convolutions with a quarter of the multiplications, for CPUs.

Winograd's algorithm cuts a map into tiles of 4×4 cells. A tile with its border, 6×6 cells, and the
weights become 36 numbers each, whose products take the place of 144, and what they add up to is
brought back; all three ways are products with constant matrices. Results differ from those of an
ordinary convolution by rounding: in float32 by some millionths of their standard deviation, in
bfloat16 by one or two hundredths, where an ordinary one's are wrong by a few thousandths.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.3
(arXiv 1509.09308), with other points.

Shape letters: B images, C channels in, K channels out, H and W cells, T tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import isqrt, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detdistill.levels import Levels
from detdistill.losses import precise

TILE = 4
KERNEL = 3
FRAMED = TILE + KERNEL - 1
"""A tile with what its convolution sees of its neighbours."""
POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)
"""Where polynomials are evaluated, beside at infinity: of simple fractions, those that round least
in bfloat16, the matrices below included. The usual 0, ±1 and ±2 round twice as coarsely."""


def _powers(count: int) -> npt.NDArray[np.float64]:
    """(6, count) of the points; of infinity, the highest alone counts."""
    return np.vstack([np.vander(POINTS, count, increasing=True), np.eye(count)[-1]])


def _matrices() -> Iterator[Tensor]:
    """What cells (36, 36), weights (36, 9) and products (16, 36) are multiplied by."""
    others = [np.delete(POINTS, index) for index in range(len(POINTS))]
    scales = [np.prod(point - rest) for point, rest in zip(POINTS, others, strict=True)]
    with_these_roots = [np.poly(roots)[::-1] for roots in (*others, np.array(POINTS))]
    cells = np.stack([np.pad(row, (0, FRAMED - len(row))) for row in with_these_roots])
    weights = _powers(KERNEL) / np.array([*scales, 1])[:, None]
    for matrix in (cells, weights, _powers(TILE).T):
        yield torch.from_numpy(np.kron(matrix, matrix))


INPUT, WEIGHT, OUTPUT = _matrices()

WORTH_IT = 150
"""Harmonic mean of channels in, channels out and tiles below which other ways are as fast: each
takes part in two of the three transforms, and in all of the products that these save."""
AT_ONCE = 512
"""Tiles whose products are held at a time."""


class WinogradConv2d(nn.Conv2d):
    """A 3×3 convolution that keeps a map's size, by Winograd's algorithm where that is faster."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether a module is such a convolution."""
        return (
            type(module) is nn.Conv2d
            and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
            and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", 1)
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch has it
        """(B, C, H, W) -> (B, K, H, W)."""
        return self.over((input,))[0]

    def over(self, maps: Levels) -> Levels:
        """Maps (B, C, H, W), whose sizes may differ -> (B, K, H, W) each."""
        if not all(map(self._suits, maps)) or self._mean_extent(maps) < WORTH_IT:
            return tuple(super(WinogradConv2d, self).forward(level) for level in maps)
        rounded = (level.to(_precision(level)) for level in maps)
        convolved: Levels = _Convolution.apply(self.weight, self.bias, *rounded)
        return convolved

    def _suits(self, maps: Tensor) -> bool:
        """Whether they are on a CPU, in a precision that can be, and their channels come last."""
        return (
            not torch.compiler.is_compiling()
            and maps.device.type == "cpu"
            and _precision(maps) in (torch.float64, torch.float32, torch.bfloat16)
            and _precision(maps) == _precision(self.weight)
            and maps.is_contiguous(memory_format=torch.channels_last)
            and not _ordinary.get()
        )

    def _mean_extent(self, maps: Levels) -> float:
        tiles = max(sum(map(_count, maps)), 1)
        return 3 / (1 / self.in_channels + 1 / self.out_channels + 1 / tiles)


def quicken(module: nn.Module) -> None:
    """Makes `WinogradConv2d` of the convolutions in a module that can be such, for good."""
    for child in module.modules():
        if WinogradConv2d.fits(child):
            child.__class__ = WinogradConv2d


def over_levels(conv: nn.Module, levels: Levels) -> Levels:
    """A layer on each level of a pyramid; on all at once where it is faster so."""
    if isinstance(conv, WinogradConv2d):
        return conv.over(levels)
    return tuple(conv(level) for level in levels)


@contextmanager
def ordinary_convolutions() -> Iterator[None]:
    """Keeps Winograd's algorithm out of what is inside, such as where operations are counted."""
    before = _ordinary.set(True)
    try:
        yield
    finally:
        _ordinary.reset(before)


_ordinary: ContextVar[bool] = ContextVar("ordinary", default=False)


def _precision(numbers: Tensor) -> torch.dtype:
    """In which an ordinary convolution takes them."""
    lowered = torch.is_autocast_enabled("cpu") and numbers.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if lowered else numbers.dtype


class _Convolution(torch.autograd.Function):
    """Of several maps with the same weights. What is multiplied is computed again for gradients."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - as PyTorch has it
        weight: Tensor,
        bias: Tensor | None,
        *maps: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        with torch.autocast("cpu", enabled=False):
            return _convolved(maps, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight, *maps = ctx.saved_tensors
        of_weight, of_bias, *of_maps = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            weight_gradient, map_gradients = _gradients(
                maps, gradients, weight, of_weight=of_weight, of_maps=any(of_maps)
            )
        bias_gradient = _gradient_of_bias(gradients) if of_bias else None
        return weight_gradient, bias_gradient, *map_gradients


def _convolved(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Maps (B, C, H, W) and weights (K, C, 3, 3) -> (B, K, H, W) each."""
    factors = _factors(weight, maps[0].dtype).transpose(1, 2)
    parts = _tiles(maps, FRAMED).split(AT_ONCE)
    cells = _in_line([_times(OUTPUT, _products(_times(INPUT, tiles), factors)) for tiles in parts])
    if bias is not None:
        cells += bias
    return _joined(cells, maps)


def _gradients(
    maps: Sequence[Tensor],
    gradients: Sequence[Tensor],
    weight: Tensor,
    *,
    of_weight: bool,
    of_maps: bool,
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """Those of the weights (K, C, 3, 3) and of the maps (B, C, H, W), as far as they are wanted.

    Args:
        maps: (B, C, H, W) each.
        gradients: of what came out, (B, K, H, W) each.
        weight: (K, C, 3, 3).
        of_weight: whether that of the weights is wanted.
        of_maps: whether those of the maps are.
    """
    factors = _factors(weight, maps[0].dtype) if of_maps else None
    of_factors, of_tiles = None, []
    seen = _tiles(maps, FRAMED).split(AT_ONCE) if of_weight else ()
    for number, pull in enumerate(_tiles(gradients, TILE).split(AT_ONCE)):
        of_products = _times(OUTPUT.T, pull)
        if of_weight:
            part = _gradient_of_factors(of_products, seen[number])
            of_factors = part if of_factors is None else of_factors.add_(part)
        if factors is not None:
            of_tiles.append(_times(INPUT.T, _products(of_products, factors)))
    return (
        None if of_factors is None else _weight_of(of_factors),
        _added_up(_in_line(of_tiles), maps) if of_maps else [None] * len(maps),
    )


def _gradient_of_factors(of_products: Tensor, tiles: Tensor) -> Tensor:
    """(T, 36, K) and (T, 36, C) -> (36, K, C)."""
    cells = _by_factor(_times(INPUT, tiles))
    return precise(_by_factor(of_products).transpose(1, 2) @ cells)


def _gradient_of_bias(gradients: Sequence[Tensor]) -> Tensor:
    """(B, K, H, W) each -> (K,)."""
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return torch.stack([g.sum(dim=(0, 2, 3), dtype=dtype) for g in gradients]).sum(dim=0)


def _in_line(parts: list[Tensor]) -> Tensor:
    """(T1, X, Y), (T2, X, Y), ... -> (T, X, Y)."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _products(tiles: Tensor, factors: Tensor) -> Tensor:
    """(T, 36, X) and (36, X, Y) -> (T, 36, Y)."""
    return (_by_factor(tiles) @ factors).transpose(0, 1)


def _factors(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(K, C, 3, 3) -> (36, K, C)."""
    rows = precise(weight).permute(0, 2, 3, 1).flatten(1, 2)
    return _by_factor(_times(WEIGHT, rows).to(dtype))


def _by_factor(numbers: Tensor) -> Tensor:
    """(X, 36, Y) -> (36, X, Y), contiguous where products want it so: in half precision."""
    by_factor = numbers.transpose(0, 1)
    return by_factor.contiguous() if numbers.dtype == torch.bfloat16 else by_factor


def _weight_of(factors: Tensor) -> Tensor:
    """(36, K, C) -> (K, C, 3, 3): the way back, for gradients."""
    return _times(WEIGHT.T, factors.transpose(0, 1)).unflatten(1, (3, 3)).permute(0, 3, 1, 2)


def _times(matrix: Tensor, numbers: Tensor) -> Tensor:
    """(n, m) and (X, m, Y) -> (X, n, Y)."""
    return matrix.to(numbers).expand(len(numbers), -1, -1) @ numbers


def _tiles(maps: Sequence[Tensor], side: int) -> Tensor:
    """(B, C, H, W) each -> (T, side², C): squares every 4 cells, zeros where they reach beyond."""
    tiles = maps[0].new_empty((sum(map(_count, maps)), side * side, maps[0].shape[1]))
    border = (side - TILE) // 2
    for part, level in zip(_by_place(tiles, maps), maps, strict=True):
        rows, columns = (border + -size % TILE for size in level.shape[-2:])
        framed = F.pad(level, (border, columns, border, rows)).permute(0, 2, 3, 1)
        squares = framed.unfold(1, side, TILE).unfold(2, side, TILE)
        part.copy_(squares.permute(0, 1, 4, 2, 5, 3))
    return tiles


def _joined(cells: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """(T, 16, K) -> (B, K, H, W), batches and sizes those of the maps; none is a view."""
    found = []
    for part, level in zip(_by_place(cells, maps), maps, strict=True):
        batch, rows, _, columns, _, channels = part.shape
        whole = cells.new_empty((batch, TILE * rows, TILE * columns, channels))
        whole.view(part.shape).copy_(part)
        found.append(_cut(whole, 0, level))
    return tuple(found)


def _added_up(tiles: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """(T, 36, C) -> (B, C, H, W) as the maps: what squares say of the same cell is added up."""
    found = []
    over = FRAMED - TILE
    for part, level in zip(_by_place(tiles, maps), maps, strict=True):
        batch, rows, _, columns, _, channels = part.shape
        whole = part.new_zeros((batch, rows + 1, TILE, columns + 1, TILE, channels))
        whole[:, :-1, :, :-1] = part[:, :, :TILE, :, :TILE]
        whole[:, 1:, :over, :-1] += part[:, :, TILE:, :, :TILE]
        whole[:, :-1, :, 1:, :over] += part[:, :, :TILE, :, TILE:]
        whole[:, 1:, :over, 1:, :over] += part[:, :, TILE:, :, TILE:]
        found.append(_cut(whole.flatten(1, 2).flatten(2, 3), over // 2, level))
    return tuple(found)


def _cut(cells: Tensor, start: int, like: Tensor) -> Tensor:
    """(B, H or more, W or more, X) -> (B, X, H, W) as some map, from a row and column on."""
    batch, _, height, width = like.shape
    shape = (batch, cells.shape[-1], height, width)
    cut = torch.empty(
        shape, dtype=cells.dtype, device=cells.device, memory_format=torch.channels_last
    )
    window = cells[:, start : start + height, start : start + width]
    return cut.copy_(window.permute(0, 3, 1, 2))


def _by_place(numbers: Tensor, maps: Sequence[Tensor]) -> Iterator[Tensor]:
    """(T, side², X), the tiles of maps -> views of each map's (B, rows, side, columns, side, X)."""
    side = isqrt(numbers.shape[1])
    parts = numbers.split([_count(level) for level in maps])
    for part, level in zip(parts, maps, strict=True):
        grid = part.view(len(level), *_extent(level), side, side, part.shape[-1])
        yield grid.permute(0, 1, 3, 2, 4, 5)


def _count(maps: Tensor) -> int:
    """Tiles of maps (B, C, H, W)."""
    return len(maps) * prod(_extent(maps))


def _extent(maps: Tensor) -> tuple[int, int]:
    """Rows and columns of tiles."""
    height, width = maps.shape[-2:]
    return -(-height // TILE), -(-width // TILE)
