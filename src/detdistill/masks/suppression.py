"""Which of overlapping boxes are left."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from detdistill import boxes
from detdistill.levels import take
from detdistill.masks.exact import exact, upright

BLOCK = 128
"""Boxes that are suppressed at a time."""


@torch.no_grad()
def survivors(ranked: Tensor, alive: Tensor, threshold: float, count: int) -> Tensor:
    """Greedy suppression of overlapping boxes, stopped after a number of survivors.

    Args:
        ranked: (B, P, 4) boxes, best first.
        alive: (B, P) bool: which take part.
        threshold: a box is suppressed if its overlap with a better survivor is above this.
        count: how many to find per image at most.

    Returns:
        (B, P) bool: the survivors, in the order of `ranked`.
    """
    corners = upright(exact(ranked))
    if ranked.device.type == "cpu":
        kept = by_block(corners, alive, threshold, count)
    else:
        kept = by_image(corners, alive, threshold)
    return kept & (kept.cumsum(dim=1) <= count)


def by_block(corners: Tensor, alive: Tensor, threshold: float, count: int) -> Tensor:
    """Looks at a block of all images at a time, and at no more than it takes to find so many.

    It asks the device for numbers with every block, which nobody notices on a CPU.
    """
    kept = torch.zeros_like(alive)
    last = int((alive * torch.arange(1, alive.shape[1] + 1, device=alive.device)).max())
    for start in range(0, last, BLOCK):
        found = kept.sum(dim=1)
        if int(found.min()) >= count:
            break
        block = corners[:, start : start + BLOCK]
        better = _first(kept, int(found.max()))
        taken = boxes.pairwise_iou(block, take(corners, better)) > threshold
        free = ~(taken & take(kept, better).unsqueeze(1)).any(dim=2)
        overlaps = boxes.pairwise_iou(block, block) > threshold
        kept[:, start : start + BLOCK] = _greedy(alive[:, start : start + BLOCK] & free, overlaps)
    return kept


def by_image(corners: Tensor, alive: Tensor, threshold: float) -> Tensor:
    """Compares all boxes of an image at once, as a GPU can, and waits for it once or twice."""
    kept = torch.zeros_like(alive)
    falling = torch.arange(alive.shape[1], 0, -1, dtype=corners.dtype, device=corners.device)
    for image, (box, able) in enumerate(zip(corners, alive, strict=True)):
        rows = able.nonzero().squeeze(1)
        kept[image, rows[nms(box[rows], falling[rows], threshold)]] = True
    return kept


def _first(kept: Tensor, count: int) -> Tensor:
    """(B, P) bool -> (B, count): the first that are true, then the first that are not."""
    return kept.byte().argsort(dim=1, descending=True, stable=True)[:, :count]


def _greedy(alive: Tensor, overlaps: Tensor) -> Tensor:
    """The boxes (B, n) that overlap, (B, n, n) bool, no survivor before them.

    A round settles every box whose better neighbours are settled, so few rounds are needed.
    """
    before = overlaps.tril(-1)
    kept, settled = alive, alive & ~(before & alive.unsqueeze(1)).any(dim=2)
    while not torch.equal(kept, settled):
        kept, settled = settled, alive & ~(before & settled.unsqueeze(1)).any(dim=2)
    return kept
