"""Focal losses: cross entropy that counts less the closer a prediction is to its target.

A criterion computes one for every class of every prior, millions of numbers of which nearly all
stand for classes that are not there. So gradients are written out: each takes a third of the time
and of the memory that differentiating every operation takes; they have no gradients of their own.
"..." is any batch shape, K classes. All compute in float32 or better.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detdistill.losses import precise

AT_ONCE = 2**17
"""Numbers that a CPU deals with at a time, so that they stay in its cache."""


def soft_focal_loss(logits: Tensor, target: Tensor, beta: float) -> Tensor:
    """Cross entropy against probabilities, times a power of the distance to them.

    |target - p|^beta times `losses.soft_bce`. The factor is differentiated too, so that value and
    gradient are exactly zero where prediction and target agree.

    Args:
        logits: (...).
        target: (...) probabilities; not differentiated.
        beta: exponent of the distance.

    Returns:
        (...).
    """
    logits = precise(logits)
    loss: Tensor = _SoftFocalLoss.apply(logits, target.detach().to(logits), beta)
    return loss


def quality_focal_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, beta: float = 2.0
) -> Tensor:
    """GFL's class loss; the target of the true class is the box's IoU.

    Args:
        logits: (..., K).
        labels: (...) class numbers, K for background.
        quality: (...) IoU with the assigned object; not differentiated.
        beta: exponent of the distance.

    Returns:
        (...) summed over the classes.
    """
    others, own, is_object = _apart(precise(logits), labels, beta)
    return others + is_object * soft_focal_loss(own, quality, beta)


def sigmoid_focal_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """RetinaNet's class loss: easy priors count little.

    Args:
        logits: (..., K).
        labels: (...) class numbers, K for background.
        gamma: exponent of the distance.
        alpha: weight of the true class; all others have 1 - alpha.

    Returns:
        (...) summed over the classes.
    """
    others, own, is_object = _apart(precise(logits), labels, gamma)
    missed = soft_focal_loss(own, torch.ones_like(own), gamma)
    return (1 - alpha) * others + alpha * is_object * missed


def _apart(logits: Tensor, labels: Tensor, exponent: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of all classes but the true one, that one's logit, and whether there is one.

    All are (...); without a true class, the logit is that of any.
    """
    classes = logits.shape[-1]
    is_object = labels < classes
    others, own = _AbsenceFocalLoss.apply(
        logits, labels.clamp(max=classes - 1).unsqueeze(-1), is_object.unsqueeze(-1), exponent
    )
    return others, own, is_object


class _SoftFocalLoss(torch.autograd.Function):
    """|d|^beta · e, where d = p - target, p = sigmoid(x), and e is the cross entropy.

    Its slope is beta · sgn(d) · |d|^(beta - 1) · p · (1 - p) · e + |d|^beta · d.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, beta: float) -> Tensor:  # noqa: ANN401
        logits, target = logits.contiguous(), target.contiguous()
        loss, slope = torch.empty_like(logits), torch.empty_like(logits)
        flat = (x.view(-1).split(_at_once(x, 1)) for x in (logits, target, loss, slope))
        for said, wanted, losses, slopes in zip(*flat, strict=True):
            _fill_soft(said, wanted, beta, losses, slopes)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None


class _AbsenceFocalLoss(torch.autograd.Function):
    """p^gamma · softplus(x), p = sigmoid(x), summed over the classes but the true one; and its x.

    The slope of the first is p^gamma · (gamma · (1 - p) · softplus(x) + p). Both go on as one, so
    that the gradient of all logits is written once.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - as PyTorch has it
        logits: Tensor,
        label: Tensor,
        is_object: Tensor,
        gamma: float,
    ) -> tuple[Tensor, Tensor]:
        own = logits.gather(-1, label)
        others = logits.scatter(-1, label, own.masked_fill(is_object, -torch.inf))
        rows = others.view(-1, others.shape[-1])
        parts = rows.split(_at_once(rows, rows.shape[1]))
        loss = torch.cat([_absence(part, gamma) for part in parts]).view(others.shape[:-1])
        ctx.save_for_backward(others, label)
        return loss, own.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
        of_own: Tensor,
    ) -> tuple[Tensor, None, None, None]:
        slope, label = ctx.saved_tensors
        of_others = slope * gradient.unsqueeze(-1)
        return of_others.scatter_add_(-1, label, of_own.unsqueeze(-1)), None, None, None


def _at_once(numbers: Tensor, width: int) -> int:
    """How many rows of this width are dealt with at a time: all of them elsewhere than on a CPU."""
    by_cache = numbers.is_cpu and not torch.compiler.is_compiling()
    return max(1, (AT_ONCE if by_cache else numbers.numel()) // max(width, 1))


def _fill_soft(logits: Tensor, target: Tensor, beta: float, loss: Tensor, slope: Tensor) -> None:
    """Writes the soft focal loss of each logit, and its slope."""
    p = logits.sigmoid()
    entropy = F.softplus(logits).addcmul_(target, logits, value=-1)
    distance = p - target
    factor = distance.abs().pow_(beta)
    torch.mul(factor, entropy, out=loss)
    inner = _sigmoid_slope(_slope_of_power(distance, beta).mul_(entropy), p)
    torch.addcmul(inner, factor, distance, out=slope)


def _absence(logits: Tensor, gamma: float) -> Tensor:
    """(n, K) -> (n,) the loss of rows without a true class; the logits become its slope."""
    p, entropy = logits.sigmoid(), F.softplus(logits)
    factor = p.pow(gamma)
    torch.addcmul(p, 1 - p, entropy, value=gamma, out=logits).mul_(factor)
    return entropy.mul_(factor).sum(dim=-1)


def _sigmoid_slope(outer: Tensor, p: Tensor) -> Tensor:
    """The slope of what follows a sigmoid, times the sigmoid's own, p · (1 - p)."""
    inner: Tensor = torch.ops.aten.sigmoid_backward(outer, p)
    return inner


def _slope_of_power(distance: Tensor, beta: float) -> Tensor:
    """That of |d|^beta, 0 where d is."""
    if beta == 2:  # noqa: PLR2004 - a parabola has no corner
        return 2 * distance
    if beta == 0:
        return torch.zeros_like(distance)
    sign = distance.sgn()
    if beta == 1:
        return sign
    size = distance.abs()
    return sign.mul_(beta).mul_(size.where(size > 0, 1).pow_(beta - 1))
