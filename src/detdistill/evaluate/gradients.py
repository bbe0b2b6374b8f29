"""Where a loss pulls at feature maps, and how hard.

Source: Guo et al., "Distilling Object Detectors via Decoupled Features", 2021, figure 2; Wang et
al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", 2024, figure 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill.levels import Levels


def gradient_maps(loss: Tensor, features: Levels) -> Levels:
    """Length of a loss's gradient in every cell: (B, H, W) per level.

    The graph is kept, for other losses.

    Args:
        loss: ().
        features: (B, C, H, W) per level, from which the loss was computed; levels that it does not
            depend on have length 0.
    """
    if not loss.requires_grad:
        return tuple(torch.zeros_like(level[:, 0]) for level in features)
    found = torch.autograd.grad(
        loss, features, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return tuple(gradient.norm(dim=1) for gradient in found)
