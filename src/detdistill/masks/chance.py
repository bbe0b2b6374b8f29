"""Chance without a state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(shape: Sequence[int], device: torch.device, *key: int) -> Tensor:
    """Numbers from 0 to 1 that depend on their place and the key alone.

    No generator has a state here, so that a step can be repeated, resumed and compiled.
    """
    count = math.prod(shape)
    bits = torch.arange(count, device=device, dtype=torch.int64)
    for number in (*key, 0):
        bits = (bits * 0x9E3779B1 + number * 0x85EBCA77 + 0x165667B1) & 0xFFFFFFFF
        bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
        bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & 0xFFFFFFFF
        bits = bits ^ (bits >> 15)
    return (bits >> 8).float().view(tuple(shape)) / 2**24


@torch.no_grad()
def scattered(cells: Tensor, *key: int) -> Tensor:
    """As many cells of each image, about, but anywhere: (B, H, W) bool to the same."""
    share = cells.float().mean(dim=(1, 2), keepdim=True)
    return uniform(cells.shape, cells.device, *key) < share


@torch.no_grad()
def as_many(candidates: Tensor, wanted: Tensor, *key: int) -> Tensor:
    """As many candidates of each row, by chance, as are wanted: (B, P) bool twice to the same."""
    chance = uniform(candidates.shape, candidates.device, *key)
    rank = chance.masked_fill(~candidates, 2.0).argsort(dim=1).argsort(dim=1)
    return candidates & (rank < wanted.sum(dim=1, keepdim=True))
