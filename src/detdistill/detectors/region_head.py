"""The second stage of a two-stage detector: what is in a region, and where exactly.

Source: Girshick, "Fast R-CNN", 2015, section 2; on a pyramid, Lin et al., "Feature Pyramid Networks
for Object Detection", 2017, section 4.2; RoIAlign of He et al., "Mask R-CNN", 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import roi_align

from detdistill.boxes import DeltaCoder, area
from detdistill.detectors import assign
from detdistill.detectors.region_architecture import RegionArchitecture, Sampling
from detdistill.detectors.sampling import sample
from detdistill.levels import Levels, of_class, take
from detdistill.losses import delta_error, precise, weighted_mean
from detdistill.structures import (
    Proposals,
    Regions,
    RegionScores,
    RegionTrace,
    Truth,
)

CODER = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
OUTSIDE = -1e6
"""Pixels, of where no map reaches."""
CLASS_DEVIATION, BOX_DEVIATION = 0.01, 0.001
"""Standard deviations that the last two layers start from."""


class TwoLayerHead(nn.Module):
    """Two layers over a region's pooled features, then classes with background, and boxes."""

    def __init__(self, architecture: RegionArchitecture) -> None:
        super().__init__()
        size, hidden = architecture.pool_size, architecture.hidden_channels
        self.classes = len(architecture.classes)
        self.layers = TwoMLPHead(architecture.neck_channels * size**2, hidden)
        self.cls = nn.Linear(hidden, self.classes + 1)
        self.reg = nn.Linear(hidden, self.classes * CODER.numbers)
        self.size = size
        self.samples, self.shifted = architecture.pool_samples, architecture.pool_shifted
        self.strides = architecture.pooled_strides
        self.finest_scale = architecture.finest_scale
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls.weight, std=CLASS_DEVIATION)
        nn.init.normal_(self.reg.weight, std=BOX_DEVIATION)

    def pool(self, neck: Levels, proposals: Proposals) -> RegionTrace:
        """Features of each region from the level that suits its size; of padding, zeros.

        All regions are looked up on all levels, but far outside where they do not belong: there
        are zeros, which cost next to nothing, and no device has to say how many belong where.
        """
        level_of = self._levels(proposals).flatten().unsqueeze(-1)
        boxes = proposals.boxes.flatten(0, 1)
        images = torch.arange(proposals.valid.shape[0], device=boxes.device)
        image = images.repeat_interleave(proposals.valid.shape[1]).unsqueeze(-1)
        pooled = (
            roi_align(
                precise(level),
                torch.cat([image, boxes.where(level_of == number, OUTSIDE)], dim=1).to(
                    precise(level)
                ),
                self.size,
                spatial_scale=1 / stride,
                sampling_ratio=self.samples,
                aligned=self.shifted,
            )
            for number, (level, stride) in enumerate(zip(neck, self.strides, strict=False))
        )
        features = reduce(torch.add, pooled).unflatten(0, proposals.valid.shape)
        return RegionTrace(features=features, proposals=proposals)

    def resume(self, trace: RegionTrace) -> RegionScores:
        """What the layers say of pooled features."""
        shape = trace.proposals.valid.shape
        hidden = self.layers(trace.features.flatten(0, 1))
        return RegionScores(
            logits=self.cls(hidden).unflatten(0, shape),
            boxes=self.reg(hidden).view(*shape, self.classes, CODER.numbers),
            proposals=trace.proposals,
            coder=CODER,
        )

    def classify(self, neck: Levels, proposals: Proposals) -> RegionScores:
        """What the layers say of regions."""
        return self.resume(self.pool(neck, proposals))

    def _levels(self, proposals: Proposals) -> Tensor:
        """(B, P) the level that each region is pooled from; -1 for padding."""
        scale = area(proposals.boxes).sqrt() / self.finest_scale
        level = (scale + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)
        return level.where(proposals.valid, -1)


class Assigned(NamedTuple):
    """Regions, and what there is in them."""

    regions: Proposals
    labels: Tensor
    """(B, P) class number, or K for background and padding."""
    boxes: Tensor
    """(B, P, 4) box of the assigned object; zeros for background."""


@torch.no_grad()
def assign_regions(proposals: Proposals, truth: Truth, num_classes: int) -> Assigned:
    """The objects themselves, which are regions too, and the proposals, by their overlap."""
    visible = truth.valid & (area(truth.boxes) > 0)
    targets = assign.max_iou(
        proposals.boxes,
        (),
        truth,
        inside=proposals.valid,
        num_classes=num_classes,
        positive_iou=0.5,
        negative_iou=0.5,
        low_quality=None,
    )
    return Assigned(
        regions=Proposals(
            boxes=torch.cat([truth.boxes, proposals.boxes], dim=1),
            valid=torch.cat([visible, proposals.valid], dim=1),
        ),
        labels=torch.cat([truth.labels.where(visible, num_classes), targets.labels], dim=1),
        boxes=torch.cat([truth.boxes * visible.unsqueeze(-1), targets.boxes], dim=1),
    )


@torch.no_grad()
def sample_regions(assigned: Assigned, sampling: Sampling, num_classes: int) -> Assigned:
    """A balanced sample, padded to a number that depends on shapes alone."""
    positive = assigned.labels < num_classes
    drawn = sample(positive, assigned.regions.valid & ~positive, sampling)
    most = min(sampling.number, drawn.shape[1])
    rows = drawn.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    valid = take(drawn, rows)
    kept = valid.unsqueeze(-1)
    return Assigned(
        regions=Proposals(boxes=take(assigned.regions.boxes, rows) * kept, valid=valid),
        labels=take(assigned.labels, rows).where(valid, num_classes),
        boxes=take(assigned.boxes, rows) * kept,
    )


def region_losses(regions: Regions, world_mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Cross entropy of the regions and L1 loss of the positive ones' deltas for their class.

    Both are divided by the number of regions.
    """
    scores, labels, valid = regions.scores, regions.labels, regions.scores.proposals.valid
    logits = precise(scores.logits)
    entropy = F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")
    error = delta_error(
        of_class(scores.boxes, labels),
        regions.boxes,
        scores.proposals.boxes,
        labels < scores.boxes.shape[2],
        CODER,
    )
    total = world_mean(valid.sum().float()).clamp(min=1)
    return {
        "cls": weighted_mean(entropy, valid, total),
        "box": weighted_mean(error, None, total),
    }
