"""What methods that compare the predictions of dense heads share."""

from __future__ import annotations

from torch import Tensor

from detdistill import boxes, losses
from detdistill.structures import DensePredictions


def edge_divergence(
    said: DensePredictions, wanted: DensePredictions, bins: int, temperature: float
) -> Tensor:
    """(B, N) divergence of the distributions of a box's edges, averaged over the four."""
    mine, theirs = (one.flat_boxes().unflatten(-1, (4, bins)) for one in (said, wanted))
    return losses.kl_divergence(mine, theirs, temperature).mean(dim=-1)


def emitted(said: DensePredictions) -> Tensor:
    """(B, N, 4) the numbers of the box branch; of distributions the mean, in strides."""
    numbers = losses.precise(said.flat_boxes())
    if isinstance(said.coder, boxes.DistributionCoder):
        return boxes.expected_bin(numbers, said.coder.bins)
    return numbers
