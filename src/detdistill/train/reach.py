"""Does every loss arrive at the student? Looked at once, before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detdistill.structures import Batch
from detdistill.train.step import TASK, TrainStep


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One loss of one batch."""

    value: float
    gradient: float | None
    """Norm of its gradient over the student's parameters; None if there is no path to them."""


def arrivals(
    step: TrainStep, batch: Batch, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Arrival]:
    """The value of every wanted loss and the gradient that it sends to the student.

    Weights, statistics and gradients are as before afterwards.
    """
    parameters = [p for p in step.student.parameters() if p.requires_grad]
    with _statistics_kept(step.student):
        return {
            name: Arrival(value=float(loss.detach()), gradient=_gradient(loss, parameters))
            for name, loss in step(batch, 0, 0.0).items()
            if wanted(name)
        }


def is_distillation(name: str) -> bool:
    """Whether a loss is a method's, not the detector's own."""
    return not name.startswith(f"{TASK}/")


def complaint(found: Mapping[str, Arrival]) -> str | None:
    """A sentence about the first loss that is not finite or does not reach the student."""
    for name, arrival in found.items():
        if not math.isfinite(arrival.value):
            return (
                f"Loss {name} is {arrival.value} on the first batch. Look at it with doctor; "
                "a smaller weight or precision fp32 may help."
            )
        if arrival.gradient is None:
            return (
                f"Loss {name} does not reach the student: it depends on none of its parameters, "
                "so it would teach nothing. Check the method's forward for a detach."
            )
    return None


def idle(found: Mapping[str, Arrival]) -> list[str]:
    """Losses whose gradient is exactly zero: their weight is 0, or there is nothing to learn."""
    return [name for name, arrival in found.items() if arrival.gradient == 0]


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> float | None:
    if not loss.requires_grad:
        return None
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    arrived = [gradient for gradient in gradients if gradient is not None]
    return float(nn.utils.get_total_norm(arrived)) if arrived else None


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """What a forward pass changes in training mode is put back."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
