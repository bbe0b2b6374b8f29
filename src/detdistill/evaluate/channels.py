"""How far two necks are apart in each channel, on objects and beside them.

Source: Guo et al., "Distilling Object Detectors via Decoupled Features", 2021, figure 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill.losses import precise


@torch.no_grad()
def summed_distances(student: Tensor, teacher: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute differences of two maps in each channel, summed over some cells, and their number.

    Sums of several batches may be added up before they are divided.

    Args:
        student: (B, C, H, W).
        teacher: (B, C, H, W).
        cells: (B, H, W) bool.

    Returns:
        (C,) and ().
    """
    apart = (precise(student) - precise(teacher)).abs() * cells.unsqueeze(1)
    return apart.sum(dim=(0, 2, 3)), cells.sum()
