"""Instances, one by one: objects, and boxes on which two detectors disagree.

Which priors belong to them, and what the neck holds of them. Shape letters as in `structures`;
M instances per image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill.structures import Targets, Truth, take


@torch.no_grad()
def owners(targets: Targets, truth: Truth) -> Tensor:
    """The object that each prior is assigned to: (B, P) slot of the truth, G for none.

    P are the priors of `targets.rows`. Of objects with one box and one class the first owns all.
    """
    labels, corners = take(targets.labels, targets.rows), take(targets.boxes, targets.rows)
    slots = truth.valid.shape[1]
    if slots == 0:
        return torch.zeros_like(labels)
    same = (labels.unsqueeze(2) == truth.labels.unsqueeze(1)) & truth.valid.unsqueeze(1)
    for axis in range(4):
        same &= corners[:, :, None, axis] == truth.boxes[:, None, :, axis]
    return same.byte().argmax(dim=2).masked_fill(~same.any(dim=2), slots)
