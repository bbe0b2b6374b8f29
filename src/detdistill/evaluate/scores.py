"""What a one-stage head says of the classes, cell by cell, and what its labels ask of it.

Shape letters as in `structures`. Of a two-stage detector this is the first stage, which knows one
class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill import boxes, losses
from detdistill.boxes import DistributionCoder
from detdistill.levels import Levels, unflatten
from detdistill.structures import DensePredictions, Targets


@torch.no_grad()
def cell_scores(said: DensePredictions) -> Levels:
    """Probability of every class in every cell: (B, K, H, W) per level.

    Of several priors in a cell the surest speaks for each class.
    """
    return _of_cells(losses.precise(said.flat_logits()).sigmoid(), said)


@torch.no_grad()
def wanted_scores(said: DensePredictions, targets: Targets) -> Levels:
    """The scores that the labels ask of a head, laid out as `cell_scores`.

    1 for the class of the assigned object; of heads with distributions of edges (GFL), whose score
    stands for the quality of the box too, the overlap of the head's box with the object.
    """
    classes = said.flat_logits().shape[-1]
    wanted = losses.one_hot(targets.labels, classes).float()
    if isinstance(said.coder, DistributionCoder):
        wanted = wanted * boxes.iou(said.decoded(), targets.boxes).unsqueeze(-1)
    return _of_cells(wanted, said)


@torch.no_grad()
def score_sums(scores: Levels) -> Levels:
    """Sum over the classes: (B, H, W) per level. A softmax would make it 1 everywhere.

    Source: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense
    Object Detection", 2023, figure 1.
    """
    return tuple(level.sum(dim=1) for level in scores)


@torch.no_grad()
def score_errors(student: Levels, teacher: Levels) -> Levels:
    """Absolute differences of two heads' scores, summed over the classes: (B, H, W) per level.

    Source: as `score_sums`, figure 3.
    """
    return tuple((a - b).abs().sum(dim=1) for a, b in zip(student, teacher, strict=True))


def _of_cells(flat: Tensor, said: DensePredictions) -> Levels:
    """(B, N, K) of priors -> (B, K, H, W) per level, the largest of each cell."""
    cells = sum(level.shape[-2] * level.shape[-1] for level in said.logits)
    return unflatten(flat.unflatten(1, (cells, -1)).amax(dim=2), said.logits)
