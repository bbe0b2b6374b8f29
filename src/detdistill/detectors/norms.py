"""Norms that are not rounded where their neighbours are."""

from __future__ import annotations

from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Computes and answers in the precision of its parameters, as autocast has it on a GPU.

    On a CPU autocast mixes the two, which rounds more and takes twice as long.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch has it
        """(B, C, H, W) -> the same."""
        return super().forward(input.to(self.weight.dtype))
