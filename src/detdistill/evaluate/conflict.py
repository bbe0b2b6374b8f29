"""How often a teacher says something else than the labels: the conflict in which a student stands.

Source: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", 2024,
section 3.1 and figure 3. The paper does not say how classes are put together; here the class that
differs most speaks for the cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill.levels import Levels, cells_of
from detdistill.structures import DensePredictions, Targets


@torch.no_grad()
def discrepancy(wanted: Levels, said: Levels) -> Levels:
    """Largest difference of a class's score: (B, K, H, W) of both -> (B, H, W) per level."""
    return tuple((a - b).abs().amax(dim=1) for a, b in zip(wanted, said, strict=True))


@torch.no_grad()
def conflicts(apart: Levels, counted: Levels, thresholds: Tensor) -> Tensor:
    """How many cells are further apart than each threshold: (T,).

    Args:
        apart: (B, H, W) per level, from 0 to 1.
        counted: (B, H, W) bool per level, the cells that count.
        thresholds: (T,).
    """
    values = torch.cat([a[cells] for a, cells in zip(apart, counted, strict=True)])
    return (values > thresholds.unsqueeze(1)).sum(dim=1)


@torch.no_grad()
def counted_cells(said: DensePredictions, targets: Targets) -> Levels:
    """Cells that the labels speak of, which those of the padding are not: (B, H, W) bool."""
    return cells_of(targets.weights > 0, said.logits)


@torch.no_grad()
def positive_cells(said: DensePredictions, targets: Targets) -> Levels:
    """Cells that are assigned to an object: (B, H, W) bool per level."""
    background = said.flat_logits().shape[-1]
    return cells_of(targets.labels < background, said.logits)
