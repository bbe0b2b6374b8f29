"""The levels of a pyramid, laid flat prior by prior or cell by cell, and back.

Shape letters: B images, K classes, c numbers of a prior, A priors per cell, H and W cells, P picked
priors, N = all priors of an image: level by level, row by row, priors of a cell innermost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Levels = tuple[Tensor, ...]
"""One map per pyramid level, fine to coarse, each (B, C, H, W)."""


def flatten(levels: Levels, priors: Levels) -> Tensor:
    """(B, A·c, H, W) per level -> (B, N, c), in the order of the priors.

    `len` would fix the sizes of an exported file.
    """
    return torch.cat(
        [
            level.permute(0, 2, 3, 1).reshape(level.shape[0], prior.shape[0], -1)
            for level, prior in zip(levels, priors, strict=True)
        ],
        dim=1,
    )


def take(flat: Tensor, rows: Tensor | None) -> Tensor:
    """Rows (B, P) of (B, N) or (B, N, c) -> (B, P) or (B, P, c); None takes all."""
    if rows is None:
        return flat
    if flat.ndim == rows.ndim:
        return flat.gather(1, rows)
    return flat.gather(1, rows.unsqueeze(-1).expand(-1, -1, flat.shape[-1]))


def put(picked: Tensor, rows: Tensor | None, count: int) -> Tensor:
    """(B, P) of rows (B, P) back to (B, N), N being `count`, 0 elsewhere; the inverse of `take`."""
    if rows is None:
        return picked
    return picked.new_zeros(len(picked), count).scatter(1, rows, picked)


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """(B, P, K, ...) and class numbers (B, P) -> (B, P, ...); of background, anything."""
    index = labels.clamp(max=values.shape[2] - 1).view(*labels.shape, *(1,) * (values.ndim - 2))
    return values.take_along_dim(index, dim=2).squeeze(2)


def unflatten(flat: Tensor, like: Levels) -> Levels:
    """(B, N) or (B, N, c) with one prior per cell -> per level (B, c, H, W), or (B, H, W)."""
    counts = [level.shape[-2] * level.shape[-1] for level in like]
    parts = flat.split(counts, dim=1)
    shaped = (part.unflatten(1, level.shape[-2:]) for part, level in zip(parts, like, strict=True))
    return tuple(part.movedim(3, 1) if part.ndim == 4 else part for part in shaped)  # noqa: PLR2004


def per_cell(flat: Tensor, like: Levels) -> Tensor:
    """(B, N) of priors -> (B, cells of all levels): the largest of a cell; of bool, whether any."""
    cells = sum(level.shape[-2] * level.shape[-1] for level in like)
    return flat.unflatten(1, (cells, -1)).amax(dim=-1)


def cells_of(flat: Tensor, like: Levels) -> Levels:
    """(B, N) of priors -> (B, H, W) per level: what `per_cell` says of each cell."""
    return unflatten(per_cell(flat, like), like)


def level_sums(flat: Tensor, priors: Levels) -> tuple[Tensor, ...]:
    """(B, N) -> () per level."""
    return tuple(part.sum() for part in flat.split([len(level) for level in priors], dim=1))


def to_priors(values: Sequence[Tensor], priors: Levels) -> Tensor:
    """One number () per level -> (N,), each prior with that of its level."""
    pairs = zip(values, priors, strict=True)
    return torch.cat([value.expand(len(level)) for value, level in pairs])


def within(sizes: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """(B, H, W) bool: row and column are below each image's height and width."""
    rows = torch.arange(shape[0], device=sizes.device) < sizes[:, :1]
    columns = torch.arange(shape[1], device=sizes.device) < sizes[:, 1:]
    return rows.unsqueeze(2) & columns.unsqueeze(1)
