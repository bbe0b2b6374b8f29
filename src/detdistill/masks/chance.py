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
