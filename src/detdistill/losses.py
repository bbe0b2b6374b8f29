"""How far predictions are from what they should be: pure functions, one number per sample.

Nothing here sums over samples except the means; nothing has parameters. "..." is any batch
shape, K classes. All compute in float32 or better, whatever autocast made of their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes

EPS = 2.0**-23
"""What mmdet 3 adds to a divisor: the distance from 1 to the next float32."""

LEAST_SUM = 1e-30
"""What weights add up to at least where released code divides by their sum however small it is."""

TINY = torch.finfo(torch.float32).tiny
"""What keeps the gradient of a square root finite."""

SMALL_DEVIATION = 1e-6
"""What is added to a channel's deviation before it divides."""

SMALL_SUM = 1e-6
"""What the weights of a mean of squared errors add up to at least."""

LEAST_DISTANCE = 1e-6
"""How far equal rows are taken to be apart."""

FEW = 1000
"""Elements of a channel up to which its statistics are computed as in released codes."""

Fading = Literal["none", "linear", "cosine"]
"""How the weight of a loss falls to nothing by the end of a training."""


def precise(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 if they came so."""
    return x if x.dtype == torch.float64 else x.float()


def weighted_mean(loss: Tensor, weight: Tensor | None, divisor: Tensor | float) -> Tensor:
    """Sum of the weighted losses over a divisor of the caller's, such as the positives.

    Args:
        loss: (...).
        weight: broadcasts to (...), None for ones.
        divisor: a number; never differentiated by any caller here.
    """
    weighted = loss if weight is None else loss * weight
    return weighted.sum() / (divisor + EPS)


# Classification


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class numbers (...) -> (..., K) bool; a background label, K, is a row of False."""
    return labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)


def soft_bce(logits: Tensor, target: Tensor, *, background: float = 1.0) -> Tensor:
    """Binary cross entropy against probabilities: (...) and (...) -> (...).

    Args:
        logits: (...).
        target: (...) probabilities.
        background: how much more "no" counts than "yes".
    """
    logits, target = precise(logits), target.to(precise(logits))
    if background == 1:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return target * F.softplus(-logits) + background * (1 - target) * F.softplus(logits)


# Boxes


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """GFL's edge loss: the two bins around the true distance share the probability.

    Args:
        logits: (..., bins).
        target: (...) distance in bins, from 0 to bins - 1; not differentiated.

    Returns:
        (...) one number per edge.
    """
    shares = precise(logits).log_softmax(dim=-1)
    target = target.detach().to(shares)
    left = target.floor().clamp(0, logits.shape[-1] - 2)
    index = torch.stack([left, left + 1], dim=-1).long()
    at_left, at_right = shares.gather(-1, index).unbind(-1)
    return (target - left - 1) * at_left + (left - target) * at_right


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - generalised IoU: boxes (..., 4) and (..., 4) -> (...), from 0 to 2."""
    return 1 - boxes.giou(precise(predicted), precise(target))


def iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU: boxes (..., 4) and (..., 4) -> (...), from 0 to 1."""
    return 1 - boxes.iou(precise(predicted), precise(target))


def log_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """FCOS's box loss, -log IoU: boxes (..., 4) and (..., 4) -> (...), from 0 to 13.8."""
    overlap = boxes.iou(precise(predicted), precise(target))
    return -overlap.clamp(min=boxes.EPS).log()


def delta_error(
    raw: Tensor, wanted: Tensor, priors: Tensor, positive: Tensor, coder: boxes.DeltaCoder
) -> Tensor:
    """How far the numbers of a box branch are from those that say the wanted boxes.

    Args:
        raw: (..., 4) as emitted.
        wanted: (..., 4) boxes.
        priors: broadcasts to (..., 4).
        positive: (...) where there is a wanted box; the error is 0 elsewhere.
        coder: of the branch.

    Returns:
        (..., 4) absolute differences.
    """
    counts = positive.unsqueeze(-1)
    any_box = F.pad(wanted.new_ones(2), (2, 0))
    deltas = coder.encode(wanted.where(counts, any_box), priors.where(counts, any_box))
    return (precise(raw) - deltas).abs() * counts


# Distillation


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of each number: (...) and (...) -> (...)."""
    return (precise(student) - precise(teacher)).square()


def mean_over(
    loss: Tensor,
    weight: Tensor,
    world_mean: Callable[[Tensor], Tensor],
    *,
    least: float = 1.0,
) -> Tensor:
    """The weighted mean, over all ranks; 0 where nothing has a weight.

    Args:
        loss: (...); what follows the dimensions of `weight` is summed.
        weight: (...) numbers or bool.
        world_mean: mean of the sum of the weights over ranks; see `Step`.
        least: what the sum of the weights is taken to be at least.
    """
    weight = weight.to(loss)
    total = world_mean(weight.sum()).clamp(min=least)
    spread = weight.view(*weight.shape, *(1,) * (loss.ndim - weight.ndim))
    return (loss * spread).sum() / total


def half_mean(error: Tensor, weight: Tensor, world_mean: Callable[[Tensor], Tensor]) -> Tensor:
    """Half the weighted mean of squared errors; see `mean_over`."""
    return mean_over(error, weight, world_mean, least=SMALL_SUM) / 2


def faded(kind: Fading, progress: float) -> float:
    """What is left of a weight when a share `progress` of the training is done: 1 to 0."""
    if kind == "linear":
        return 1 - progress
    return (1 + math.cos(math.pi * progress)) / 2 if kind == "cosine" else 1.0


def resized(maps: Tensor, like: Tensor) -> Tensor:
    """Maps (B, C, H, W) scaled bilinearly to the height and width of others, if they differ."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(precise(maps), like.shape[-2:], mode="bilinear", align_corners=False)


def kl_divergence(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """What is lost by taking one softmax for another, KL(target || logits).

    Args:
        logits: (..., n).
        target: (..., n) logits of the distribution to be met.
        temperature: divides both; the result is multiplied by its square.

    Returns:
        (...) summed over the n outcomes.
    """
    log_p, log_q = (
        _cooled(precise(raw), temperature).log_softmax(dim=-1) for raw in (logits, target)
    )
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1)
    return divergence * temperature**2


def binary_divergence(
    logits: Tensor, target: Tensor, temperature: float = 1.0, *, entropy: bool = False
) -> Tensor:
    """What is lost by taking one yes-or-no probability for another: (...) and (...) -> (...).

    Args:
        logits: (...).
        target: (...) logits of the probabilities to be met; never differentiated by any caller.
        temperature: divides both; the result is multiplied by its square.
        entropy: add that of the target, a constant: the cross entropy.
    """
    said, wanted = (_cooled(precise(raw), temperature) for raw in (logits, target))
    probability = wanted.sigmoid()
    lost = soft_bce(said, probability)
    if not entropy:
        lost = lost - soft_bce(wanted, probability)
    return lost if temperature == 1 else lost * temperature**2


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by a temperature, which at 1 costs nothing."""
    return logits if temperature == 1 else logits / temperature


def relative_distances(rows: Tensor, valid: Tensor) -> Tensor:
    """Distances between rows, divided by their mean.

    Args:
        rows: (n, d).
        valid: (n,) bool, which rows take part.

    Returns:
        (n, n), 0 between rows of which one is not valid; equal rows are 1e-6 apart.
    """
    others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    pairs = valid & valid.unsqueeze(1) & others
    rows = precise(rows)
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    between = apart.clamp(min=LEAST_DISTANCE) * pairs
    mean = between.sum() / pairs.sum().clamp(min=1)
    return between / mean.clamp(min=1e-12)


def relation_error(
    student: Tensor, teacher: Tensor, valid: Tensor, world_mean: Callable[[Tensor], Tensor]
) -> Tensor:
    """How differently the rows of two lists are apart; 0 for two rows, whose distance is the mean.

    Args:
        student: (n, ...).
        teacher: (n, ...).
        valid: (n,) bool, which rows take part.
        world_mean: mean of the number of pairs over ranks; see `Step`.
    """
    ours, theirs = (relative_distances(rows.flatten(1), valid) for rows in (student, teacher))
    apart = F.smooth_l1_loss(ours, theirs, reduction="sum")
    count = valid.sum().to(apart)
    pairs = world_mean(count * (count - 1)).clamp(min=1)
    return apart * (count > 2) / pairs  # noqa: PLR2004 - see above


def log_softmax_within(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Logarithm of the softmax of each group of scores, which are small numbers.

    Args:
        scores: (B, P), such as probabilities; nothing is done against overflow.
        group: (B, P) to which group each belongs, from 0 to `groups`, the last for none.
        groups: how many there are per image.

    Returns:
        (B, P).
    """
    powers = precise(scores).exp()
    totals = powers.new_zeros((len(powers), groups + 1)).scatter_add(1, group, powers)
    return scores - totals.gather(1, group).log()


def channel_statistics(maps: Tensor, *, lone: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each channel over batch, height and width.

    Sums of squares take a tenth of the time that `Tensor.std` takes on a CPU.

    Args:
        maps: (B, C, H, W).
        lone: whether a channel of one element has a deviation, next to 0; otherwise it is NaN, as
            released codes have it.

    Returns:
        (1, C, 1, 1) each.
    """
    maps, dims = precise(maps), (0, 2, 3)
    mean = maps.mean(dim=dims, keepdim=True)
    count = maps.numel() // max(maps.shape[1], 1)
    if count > 1 and _is_small(maps):
        return mean, maps.std(dim=dims, keepdim=True)
    freedom = count if lone and count == 1 else count - 1
    centred = maps - mean.detach()  # what the mean adds to the gradient of a variance is 0
    variance = centred.square().sum(dim=dims, keepdim=True) / freedom
    return mean, variance.clamp(min=TINY).sqrt()


def standardise(maps: Tensor, *, lone: bool = True) -> Tensor:
    """Each channel with mean 0 and deviation 1 over batch, height and width: (B, C, H, W).

    The statistics are differentiated. A constant channel becomes 0 but for the rounding of its
    mean; so does a channel of one element, unless `lone` is False.
    """
    rows = _rows(precise(maps))
    mean, std = channel_statistics(rows, lone=lone)
    return _maps((rows - mean) / (std + SMALL_DEVIATION), maps)


def with_statistics_of(maps: Tensor, model: Tensor, *, lone: bool = True) -> Tensor:
    """The maps shifted and scaled, per channel, to another's mean and deviation: (B, C, H, W).

    The other's are constant.
    """
    rows = _rows(precise(maps))
    mean, std = channel_statistics(rows, lone=lone)
    wanted_mean, wanted_std = channel_statistics(_rows(model.detach()), lone=lone)
    return _maps((rows - mean) / (std + SMALL_DEVIATION) * wanted_std + wanted_mean, maps)


def _rows(maps: Tensor) -> Tensor:
    """Small maps (B, C, H, W) -> (1, C, 1, B·H·W), as released codes lay them out; others stay.

    What is left of the gradient of two elements, or of a constant channel, is rounding, which
    depends on the order in which elements are added up.
    """
    return maps.transpose(0, 1).flatten(1)[None, :, None] if _is_small(maps) else maps


def _is_small(maps: Tensor) -> bool:
    return maps.numel() <= FEW * maps.shape[1]


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """The way back, to the shape of some maps."""
    if rows.shape == like.shape:
        return rows
    batch, channels, height, width = like.shape
    return rows.view(channels, batch, height, width).transpose(0, 1)
