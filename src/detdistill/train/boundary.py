"""Where detectors and losses meet.

Outputs reach the losses in float32, gradients come back in the memory layout of the outputs, and
methods that run part of a head again do so in the precision of the detectors.

A loss may send its gradient back in another memory layout than the tensor has. The sum with other
gradients then takes either layout, and what follows rounds differently: a method of weight 0 would
change the last bits of the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.structures import AnyHead

Structure = TypeVar("Structure")


def handed_over(output: Structure) -> Structure:
    """The same structure in float32, gradients coming back laid out as the tensors are."""
    crossed: Structure = pytree.tree_map_only(Tensor, _cross, output)
    return crossed


def way_in(head: AnyHead, device: str) -> AnyHead:
    """A head for methods to enter, whose layers compute in the precision that holds right now.

    What it is given and what it answers is float32, as losses are, inside of which it is entered.
    """
    if not torch.is_autocast_enabled(device):
        return head
    return cast("AnyHead", _WayIn(head, device, torch.get_autocast_dtype(device)))


@dataclass(frozen=True, slots=True)
class _WayIn:
    """A head of any family, entered from where autocast is off."""

    head: Any
    device: str
    precision: torch.dtype

    def pool(self, *given: Any) -> Any:  # noqa: ANN401 - each family has its own
        """See `RegionHead.pool`."""
        return self._answer(self.head.pool, *given)

    def classify(self, *given: Any) -> Any:  # noqa: ANN401
        """See `RegionHead.classify`."""
        return self._answer(self.head.classify, *given)

    def resume(self, *given: Any, **start: int) -> Any:  # noqa: ANN401
        """See `Head.resume`, `RegionHead.resume`, `QueryHead.resume`."""
        return self._answer(self.head.resume, *given, **start)

    def _answer(self, verb: Callable[..., Structure], *given: Any, **settings: int) -> Structure:  # noqa: ANN401
        with torch.autocast(self.device, self.precision):
            said = verb(*given, **settings)
        return handed_over(said)


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
