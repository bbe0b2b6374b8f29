"""Where a map responds, cell by cell and channel by channel, and what it says as a whole."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Attention(NamedTuple):
    """How much parts of a map (B, C, H, W) respond, on average 1."""

    cells: Tensor
    """(B, H, W)."""
    channels: Tensor
    """(B, C)."""


def attention(maps: Tensor, temperature: float) -> Attention:
    """Softmax of the mean size of what is in each cell, and in each channel."""
    size, where = maps.abs(), maps.shape[2:]
    cells = (size.mean(dim=1).flatten(1) / temperature).softmax(dim=-1)
    channels = (size.mean(dim=(2, 3)) / temperature).softmax(dim=-1)
    return Attention(cells.unflatten(1, where) * cells.shape[1], channels * channels.shape[1])


class Context(nn.Module):
    """Adds to every cell what the whole map says; nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.mask = nn.Linear(channels, 1, bias=False)
        self.narrow, self.norm = nn.Linear(channels, hidden), nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, channels)
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        cells = maps.flatten(2).transpose(1, 2)
        whole = (self.mask(cells).softmax(dim=1) * cells).sum(dim=1)
        said = self.widen(self.norm(self.narrow(whole)).relu())
        return maps + said[..., None, None]
