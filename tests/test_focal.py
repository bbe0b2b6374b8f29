from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from detdistill import focal, losses


def test_quality_focal_loss_of_one_positive_and_one_background_sample() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    loss = focal.quality_focal_loss(logits, torch.tensor([0, 2]), torch.tensor([0.8, 0.3]))

    def term(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        cross = -target * math.log(p) - (1 - target) * math.log(1 - p)
        return (target - p) ** 2 * cross

    wanted = [term(0.5, 0.8) + term(-1.0, 0.0), term(2.0, 0.0) + term(0.0, 0.0)]
    torch.testing.assert_close(loss, torch.tensor(wanted))


def test_quality_focal_loss_takes_any_batch_shape() -> None:
    logits, labels = torch.randn(2, 5, 3), torch.randint(4, (2, 5))
    quality = torch.rand(2, 5)
    batched = focal.quality_focal_loss(logits, labels, quality)
    flat = focal.quality_focal_loss(logits.flatten(0, 1), labels.flatten(), quality.flatten())
    torch.testing.assert_close(batched.flatten(), flat)


def test_sigmoid_focal_loss_equals_torchvisions() -> None:
    torchvision_ops = pytest.importorskip("torchvision.ops")
    logits, labels = torch.randn(6, 3) * 3, torch.tensor([0, 1, 2, 3, 3, 0])
    target = losses.one_hot(labels, 3).float()
    wanted = torchvision_ops.sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(focal.sigmoid_focal_loss(logits, labels), wanted.sum(dim=1))


def test_blocks_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([0, 1, 3, 3, 2, 3, 0])
    said = []
    for at_once in (3, 100):
        monkeypatch.setattr(focal, "AT_ONCE", at_once)
        logits = torch.linspace(-3, 3, 21).view(7, 3).requires_grad_()
        loss = focal.sigmoid_focal_loss(logits, labels)
        loss.dot(torch.arange(7.0)).backward()
        said.append((loss, logits.grad))
    torch.testing.assert_close(*said)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_soft_focal_loss_and_its_gradient_vanish_where_both_agree(beta: float) -> None:
    logits = torch.randn(20, requires_grad=True)
    loss = focal.soft_focal_loss(logits, logits.detach().sigmoid(), beta)
    loss.sum().backward()
    assert (loss == 0).all()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


LABELS = torch.tensor([[0, 4, 3], [4, 2, 4]])
"""Of four classes; 4 is background."""
GAMMAS = (0.0, 0.5, 1.0, 2.0)


def _computations(gamma: float) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Losses of logits (2, 3, 4)."""
    quality = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).view(2, 3)
    target = torch.linspace(0.0, 1.0, 24, dtype=torch.float64).view(2, 3, 4)
    return {
        "soft": partial(focal.soft_focal_loss, target=target, beta=gamma),
        "quality": partial(focal.quality_focal_loss, labels=LABELS, quality=quality, beta=gamma),
        "sigmoid": partial(focal.sigmoid_focal_loss, labels=LABELS, gamma=gamma),
    }


NAMES = tuple(_computations(1))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str, gamma: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_computations(gamma)[name], (logits,))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_true_class_is_one_target_among_others(gamma: float) -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    truth = losses.one_hot(LABELS, 4).double()
    balance = torch.where(truth > 0, 0.25, 0.75)
    wanted = (balance * focal.soft_focal_loss(logits, truth, gamma)).sum(dim=-1)
    torch.testing.assert_close(_computations(gamma)["sigmoid"](logits), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_have_finite_losses_and_gradients(name: str) -> None:
    logits = (torch.randn(2, 3, 4).sign() * 1e4).requires_grad_()
    loss = _computations(2.0)[name](logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_input_is_computed_in_float32(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = _computations(2.0)[name](torch.rand(2, 3, 4, dtype=torch.bfloat16))
    assert result.dtype == torch.float32
