"""How weights move: parameter groups, learning rate, clipping, averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from detdistill.detectors import Detector
from detdistill.train.experiment import Optimizer
from detdistill.train.step import TrainStep

NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
"""Modules whose parameters are not decayed."""

CLIP_MARGIN = 1e-6
"""What PyTorch adds to a norm before it divides by it."""

Fused = SGD | AdamW


def build(step: TrainStep, settings: Optimizer) -> Fused:
    """The optimizer of a step, its learning rate still to be set.

    It is a fused one: faster, and it skips a step on the device when `found_inf` says so.
    """
    groups = [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        for module in (step.student, step.methods)
        for decays, parameters in _by_decay(module).items()
        if parameters
    ]
    if settings.name == "sgd":
        return _moving(SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True))
    return AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _moving(optimizer: SGD) -> SGD:
    """With a momentum of zero; PyTorch's own is what memory holds if the first step is skipped."""
    for group in optimizer.param_groups:
        if group["momentum"]:
            for weight in group["params"]:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def _by_decay(module: nn.Module) -> dict[bool, list[nn.Parameter]]:
    """Weights and scales decay, biases and the parameters of norms do not."""
    found: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad:
                decays = name != "bias" and not isinstance(owner, NORMS)
                found[decays].append(parameter)
    return found


def learning_rate(index: int, steps: int, settings: Optimizer) -> float:
    """The learning rate of optimizer step `index` out of `steps`, both counted from 0.

    With W warm-up steps, step i < W has lr·(s + (1 - s)·i/(W - 1)), s the share it starts with.
    Afterwards the cosine is lr·(1 + cos(π(i - W)/(steps - W)))/2.
    """
    warmup = settings.warm_up(steps)
    if index < warmup:
        done = index / (warmup - 1) if warmup > 1 else 1.0
        return settings.lr * (settings.warmup_start + (1 - settings.warmup_start) * done)
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * (index - warmup) / (steps - warmup))) / 2
    if settings.schedule == "step":
        passed = sum(index >= round(share * steps) for share in settings.milestones)
        return settings.lr * 0.1**passed
    return settings.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The same for every group."""
    for group in optimizer.param_groups:
        group["lr"] = value


def clip(parameters: Iterable[nn.Parameter], largest: float | None) -> Tensor:
    """Shortens the gradient to norm `largest`; returns the norm that it had."""
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in held if p.grad is not None])
    if largest is not None and not _is_known_to_be_below(norm, largest):
        nn.utils.clip_grads_with_norm_(held, largest, norm)
    return norm


def _is_known_to_be_below(norm: Tensor, largest: float) -> bool:
    """Whether there is nothing to shorten; a GPU is not waited for to know."""
    return norm.device.type == "cpu" and float(norm) + CLIP_MARGIN <= largest


def skip_where(optimizer: Fused, condition: Tensor) -> None:
    """Makes the next step do nothing if `condition` holds, without asking the device now."""
    optimizer.found_inf = condition.float()  # type: ignore[union-attr]


class Average:
    """An exponential mean of the student's weights, itself a detector.

    The decay of update i is at most (1 + i)/(10 + i), so that a short training is not dominated
    by where it started.
    """

    def __init__(self, student: Detector, decay: float) -> None:
        self.decay = decay
        self.detector = copy.deepcopy(student).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self, student: Detector, index: int) -> None:
        """Takes in the weights after optimizer step `index`."""
        decay = min(self.decay, (1 + index) / (10 + index))
        for mine, new in _pairs(self.detector.state_dict(), student.state_dict()):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - decay)
            else:
                mine.copy_(new)


def _pairs(mine: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((tensor, other[name]) for name, tensor in mine.items())
