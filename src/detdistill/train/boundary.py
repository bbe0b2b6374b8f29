"""Where a detector's output is handed over to losses: float32 forth, the same layout back.

A loss may send its gradient back in another memory layout than the tensor has. The sum with other
gradients then takes either layout, and what follows rounds differently: a method of weight 0 would
change the last bits of the student.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Structure = TypeVar("Structure")


def handed_over(output: Structure) -> Structure:
    """The same structure in float32, gradients coming back laid out as the tensors are."""
    crossed: Structure = pytree.tree_map_only(Tensor, _cross, output)
    return crossed


def _cross(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    precise = tensor.float()
    if not precise.requires_grad:
        return precise
    crossed: Tensor = _SameLayout.apply(precise)
    return crossed


class _SameLayout(torch.autograd.Function):
    """Changes no value; gradients get the layout of the tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401 - as PyTorch has it
        ctx.layout = _layout(tensor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - as PyTorch has it
        return gradient.contiguous(memory_format=ctx.layout)


def _layout(tensor: Tensor) -> torch.memory_format:
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):  # noqa: PLR2004
        return torch.channels_last
    return torch.contiguous_format
