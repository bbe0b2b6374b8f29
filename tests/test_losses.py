from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detdistill import losses


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.25, 3.0])
def test_distribution_focal_loss_is_least_for_the_two_bins_around_the_target(
    distance: float,
) -> None:
    left = min(int(distance), 2)
    shares = torch.full((4,), 1e-6)
    shares[left], shares[left + 1] = left + 1 - distance + 1e-6, distance - left + 1e-6
    best = losses.distribution_focal_loss(shares.log(), torch.tensor(distance))
    for _ in range(20):
        other = losses.distribution_focal_loss(torch.randn(4), torch.tensor(distance))
        assert other >= best


@pytest.mark.parametrize("wild", [-5.0, 99.0])
def test_distribution_focal_loss_is_finite_for_targets_beyond_the_bins(wild: float) -> None:
    assert losses.distribution_focal_loss(torch.randn(4), torch.tensor(wild)).isfinite()


def test_giou_loss_is_zero_for_equal_and_above_one_for_disjoint_boxes() -> None:
    box = torch.tensor([0.0, 0.0, 10.0, 10.0])
    assert losses.giou_loss(box, box) == 0
    assert losses.giou_loss(box, box + 100) > 1


def test_box_losses_of_empty_and_reversed_boxes_have_finite_values_and_gradients() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [9, 9, 1, 1], [0, 0, 4, 4]], requires_grad=True)
    target = torch.tensor([[5.0, 5, 5, 5], [1, 1, 9, 9], [50, 50, 60, 60]])
    for function in (losses.giou_loss, losses.log_iou_loss):
        loss = function(boxes, target)
        (gradient,) = torch.autograd.grad(loss.sum(), boxes)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


def test_kl_divergence_equals_torchs_between_distributions() -> None:
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    p, q = (torch.distributions.Categorical(logits=x / 3) for x in (student, teacher))
    wanted = torch.distributions.kl_divergence(q, p) * 9
    torch.testing.assert_close(losses.kl_divergence(student, teacher, 3.0), wanted)


def test_kl_divergence_of_equal_and_of_extreme_logits() -> None:
    logits = torch.randn(4, 6) * 1e3
    assert (losses.kl_divergence(logits, logits) == 0).all()
    assert losses.kl_divergence(logits, -logits).isfinite().all()


def test_weighted_mean_divides_by_what_it_is_told() -> None:
    loss = torch.tensor([1.0, 2.0, 3.0])
    assert losses.weighted_mean(loss, None, 2.0) == pytest.approx(3.0)
    assert losses.weighted_mean(loss, torch.tensor([0.0, 1.0, 0.0]), 4.0) == pytest.approx(0.5)
    assert losses.weighted_mean(loss * 0, loss, 0.0) == 0


def test_standardised_channels_have_mean_zero_and_deviation_one() -> None:
    maps = losses.standardise(torch.randn(3, 4, 5, 6) * 7 + 2)
    torch.testing.assert_close(maps.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.std(dim=(0, 2, 3)), torch.ones(4))


def test_a_channel_of_one_element_is_standardised_to_zero_unless_asked_otherwise() -> None:
    maps = torch.randn(1, 3, 1, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.standardise(maps).sum(), maps)
    assert (losses.standardise(maps) == 0).all()
    assert (gradient == 0).all()
    assert losses.standardise(maps, lone=False).isnan().all()


def test_the_gradient_of_standardised_channels_is_that_of_the_standard_deviation() -> None:
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    std, mean = torch.std_mean(maps, dim=(0, 2, 3), keepdim=True)
    wanted = ((maps - mean) / (std + 1e-6)).pow(3)
    (slope,) = torch.autograd.grad(wanted.sum(), maps)
    (ours,) = torch.autograd.grad(losses.standardise(maps).pow(3).sum(), maps)
    torch.testing.assert_close(ours, slope)


def test_a_constant_channel_is_standardised_to_zero_with_no_gradient() -> None:
    maps = torch.full((2, 1, 3, 3), 7.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.standardise(maps).sum(), maps)
    assert (losses.standardise(maps) == 0).all()
    assert (gradient == 0).all()


def test_maps_take_over_the_statistics_of_a_model() -> None:
    model = torch.randn(2, 3, 4, 5) * torch.tensor([1.0, 5.0, 9.0]).view(1, 3, 1, 1) - 4
    mean, std = losses.channel_statistics(losses.with_statistics_of(torch.randn(2, 3, 4, 5), model))
    wanted_mean, wanted_std = losses.channel_statistics(model)
    torch.testing.assert_close(mean, wanted_mean)
    torch.testing.assert_close(std, wanted_std)


def _computations(x: Tensor) -> dict[str, Tensor]:
    target = torch.full(x.shape[:-1], 0.3)
    return {
        "distribution": losses.distribution_focal_loss(x, target),
        "giou": losses.giou_loss(x, x + 1),
        "iou": losses.log_iou_loss(x, x + 1),
        "kl": losses.kl_divergence(x, x + 1),
        "standardised": losses.standardise(x[None]),
    }


@pytest.mark.parametrize("name", _computations(torch.rand(2, 3, 4)))
def test_half_precision_input_is_computed_in_float32(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = _computations(torch.rand(2, 3, 4, dtype=torch.bfloat16))[name]
    assert result.dtype == torch.float32


@pytest.mark.parametrize("name", _computations(torch.rand(2, 3, 4)))
def test_gradients_agree_with_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    low = torch.rand(2, 3, 2, dtype=torch.float64)
    boxes = torch.cat([low, low + 1.7 + torch.rand_like(low)], dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _computations(x)[name], (boxes,))
