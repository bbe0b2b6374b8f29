"""Instances, one by one: objects, and boxes on which two detectors disagree.

Which priors belong to them, and what the neck holds of them. Shape letters as in `structures`;
M instances per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import log2
from operator import add
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes, losses, masks
from detdistill.levels import Levels, of_class, take
from detdistill.structures import DensePredictions, Targets, Truth

Gap = Literal["best", "class"]

# Objects


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


def object_quality(said: DensePredictions, targets: Targets) -> masks.ObjectQuality:
    """How well a detector names and finds the objects that are assigned to `targets.rows`."""
    rows, labels = targets.rows, take(targets.labels, targets.rows)
    prob = losses.precise(take(said.flat_logits(), rows)).sigmoid()
    overlap = boxes.iou(take(said.decoded(), rows), take(targets.boxes, rows))
    positive = labels < prob.shape[-1]
    return masks.ObjectQuality(of_class(prob, labels) * positive, overlap * positive)


# General instances


@torch.no_grad()
def disagreement(
    student: DensePredictions, teacher: DensePredictions, gap: Gap
) -> tuple[Tensor, Tensor]:
    """How far the class scores of each prior are apart, and the box of who is surer.

    Args:
        student: on the same priors as the teacher's.
        teacher: on the same priors as the student's.
        gap: between the `best` scores of both, or between those of the `class` that differs most.
            As released, the surer of two that are equally sure is the student in the first case
            and the teacher in the second.

    Returns:
        (B, N) from 0 to 1, and (B, N, 4).
    """
    ours, theirs = student.flat_logits(), teacher.flat_logits()
    if gap == "best":
        ours, theirs = (logits.amax(dim=-1, keepdim=True) for logits in (ours, theirs))
    ours, theirs = (losses.precise(logits).sigmoid() for logits in (ours, theirs))
    ahead = theirs - ours
    apart, which = ahead.abs().max(dim=-1)
    lead = ahead.gather(-1, which.unsqueeze(-1))
    surer = lead > 0 if gap == "best" else lead >= 0
    return apart, torch.where(surer, teacher.decoded(), student.decoded())


@torch.no_grad()
def general_instances(
    apart: Tensor,
    corners: Tensor,
    sizes: Tensor,
    *,
    candidates: int,
    overlap: float,
    count: int,
    side: float,
) -> tuple[Tensor, Tensor]:
    """The boxes on which two detectors disagree most, spread over the image.

    Args:
        apart: (B, N) how much they disagree.
        corners: (B, N, 4); clipped to the image.
        sizes: (B, 2) height and width of the images.
        candidates: how many boxes per image are considered.
        overlap: IoU with a better one above which a box is left out.
        count: M, how many to take per image at most.
        side: boxes with a shorter side, or one of this length, are left out.

    Returns:
        (B, M, 4), best first, zeros where there are fewer, and (B, M) bool, where there are.
    """
    order = apart.topk(min(candidates, apart.shape[1]), dim=1).indices
    ranked = boxes.clipped(take(corners, order), sizes)
    large = (boxes.sides(ranked) > side).all(dim=-1)
    kept = masks.survivors(ranked, large, overlap, count)
    best = masks.ranking(kept.byte())[:, :count]
    valid = take(kept, best)
    return take(ranked, best) * valid.unsqueeze(-1), valid


@torch.no_grad()
def matched(priors: Tensor, corners: Tensor, valid: Tensor, least: float) -> Tensor:
    """Which priors stand for one of the boxes, by the rule of RetinaNet's positives: (B, N) bool.

    Args:
        priors: (N, 4).
        corners: (B, M, 4).
        valid: (B, M) bool, which boxes count.
        least: IoU from which a prior stands for a box; the best prior of a box always does.
    """
    overlap = boxes.iou(priors, corners.unsqueeze(2))  # (B, M, N)
    best = overlap.amax(dim=2, keepdim=True)
    near = (overlap >= least) | ((overlap == best) & (best > 0))
    return (near & valid.unsqueeze(2)).any(dim=1)


def pooled(neck: Levels, strides: Sequence[int], corners: Tensor, size: int) -> Tensor:
    """What the neck holds of each box, from the level that its size calls for: RoI-align.

    As in FPN, a box of 224 pixels looks at stride 16, one of twice the side at stride 32. Rows and
    columns are weighed one after the other by products of matrices, with the results of
    torchvision's operator but for rounding. Its gradient takes ten times as long on a CPU, and is
    another at every run on a GPU. In between, each row of a box is as long as a sheet on which all
    levels lie.

    Args:
        neck: (B, C, H, W) per level.
        strides: of the levels, each twice the one before.
        corners: (B, M, 4) in pixels, within the image: a box larger than its level comes out too
            small.
        size: cells per side of the result.

    Returns:
        (B·M, C, size, size); zeros for a box without extent.
    """
    maps, tops, lefts = _on_one_sheet(neck)
    corners = corners.to(maps)
    level = _level_of(corners, strides)
    cells = corners / (strides[0] * level.exp2()).unsqueeze(-1) - 0.5
    heights, widths = ([features.shape[axis] for features in neck] for axis in (-2, -1))
    rows = _shares(cells[..., 1::2], level, heights, tops, size)
    columns = _shares(cells[..., ::2], level, widths, lefts, size)
    along = (rows.flatten(1, 2) @ maps.flatten(2)).view(*rows.shape[:3], *maps.shape[2:])
    return (columns.unsqueeze(2) @ along).flatten(0, 1).permute(0, 3, 1, 2)


def _on_one_sheet(neck: Levels) -> tuple[Tensor, list[int], list[int]]:
    """The finest level, and below it the others side by side: (B, H, W, C), zeros between them.

    Also the first row and the first column of each level.
    """
    finest, *others = neck
    height = max((level.shape[-2] for level in others), default=0)
    below = [F.pad(level, (0, 0, 0, height - level.shape[-2])) for level in others]
    bands = [finest, torch.cat(below, dim=-1)] if below else [finest]
    width = max(band.shape[-1] for band in bands)
    filled = [F.pad(band, (0, width - band.shape[-1])) for band in bands]
    ends = accumulate((level.shape[-1] for level in others), initial=0)
    tops = [0, *(finest.shape[-2] for _ in others)]
    return torch.cat(filled, dim=-2).permute(0, 2, 3, 1), tops, [0, *ends][: len(neck)]


@torch.no_grad()
def _shares(
    edges: Tensor, level: Tensor, extents: Sequence[int], firsts: Sequence[int], size: int
) -> Tensor:
    """How much each cell of a row counts in each part of a box: as much as in the mean of samples.

    Samples are at most a cell apart; each is interpolated between two cells.

    Args:
        edges: (B, M, 2) where the boxes begin and end, in cells of their level.
        level: (B, M).
        extents: cells of each level.
        firsts: where each level begins on the sheet, which is as long as all need.
        size: parts of a box.

    Returns:
        (B, M, size, cells of the sheet).
    """
    start, long = edges[..., :1], edges[..., 1:] - edges[..., :1]  # (B, M, 1)
    count = (long / size).ceil()
    sample = torch.arange(-(-max(extents) // size), device=edges.device)
    within = (sample + 0.5) / count.clamp(min=1)  # (B, M, samples)
    part = torch.arange(size, device=edges.device).unsqueeze(1)
    place = start.unsqueeze(-1) + (part + within.unsqueeze(2)) * (long / size).unsqueeze(-1)
    extent, first = (_value_at(level, values)[..., None, None] for values in (extents, firsts))
    place = torch.minimum(place.clamp(min=0), extent - 1) + first  # (B, M, size, samples)
    row = torch.arange(max(map(add, extents, firsts)), device=edges.device)
    near = (1 - (place.unsqueeze(-1) - row).abs()).clamp(min=0)
    taken = (sample < count).unsqueeze(2).unsqueeze(-1)
    return (near * taken).sum(dim=3) / count.clamp(min=1).unsqueeze(-1)


def _value_at(level: Tensor, values: Sequence[int]) -> Tensor:
    """(B, M) numbers of levels -> (B, M) what there is for each."""
    found = torch.zeros_like(level)
    for number, value in enumerate(values):
        found = found.masked_fill(level == number, value)
    return found


@torch.no_grad()
def covered(neck: Levels, strides: Sequence[int], corners: Tensor, valid: Tensor) -> Levels:
    """Which cells `pooled` looks at: (B, H, W) bool per level, those inside a valid box.

    Args:
        neck: (B, C, H, W) per level.
        strides: of the levels.
        corners: (B, M, 4) in pixels.
        valid: (B, M) bool, which boxes count.
    """
    level = _level_of(corners.to(neck[0]), strides)
    return tuple(
        masks.inside_any(
            masks.cell_centers(features, stride), corners, valid & (level == i)
        ).unflatten(1, features.shape[-2:])
        for i, (features, stride) in enumerate(zip(neck, strides, strict=True))
    )


def _level_of(corners: Tensor, strides: Sequence[int]) -> Tensor:
    """(..., 4) -> (...) number of the level."""
    level = (boxes.area(corners).sqrt() / 224 + 1e-8).log2().floor() + 4 - log2(strides[0])
    return level.clamp(0, len(strides) - 1)
