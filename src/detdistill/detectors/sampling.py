"""On which of many candidates a stage is trained: a random few, as balanced as there are."""

from __future__ import annotations

import torch
from torch import Tensor

from detdistill.detectors.region_architecture import Sampling


@torch.no_grad()
def sample(positive: Tensor, background: Tensor, sampling: Sampling) -> Tensor:
    """Draws candidates of every image; (B, N) bool.

    The lots come from the global random state, which the trainer derives anew for every step from
    seed, step and rank: a resumed training draws the same ones.

    Args:
        positive: (B, N) bool.
        background: (B, N) bool. Candidates that are neither are never drawn.
        sampling: how many of each.
    """
    wanted = int(sampling.number * sampling.positive_share)
    drawn = _draw(positive, wanted)
    return drawn | _draw(background, sampling.number - drawn.sum(dim=1, keepdim=True))


def _draw(candidates: Tensor, number: Tensor | int) -> Tensor:
    """As many of the candidates (B, N) as are wanted, (B, 1) or one number; all if there are few.

    Other entries get lots behind those of all candidates.
    """
    lots = torch.rand(candidates.shape, device=candidates.device).where(candidates, 1.0)
    place = lots.argsort(dim=1, stable=True).argsort(dim=1)
    return candidates & (place < number)
