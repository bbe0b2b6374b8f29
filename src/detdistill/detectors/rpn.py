"""The first stage of a two-stage detector: where there may be objects, of whatever class.

Source: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", 2015, section 3; on a pyramid, Lin et al., "Feature Pyramid Networks for Object
Detection", 2017, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms

from detdistill.boxes import DeltaCoder, clipped
from detdistill.detectors import assign
from detdistill.detectors.priors import Priors
from detdistill.detectors.region_architecture import Proposing, RegionArchitecture, Sampling
from detdistill.detectors.sampling import sample
from detdistill.levels import Levels, take
from detdistill.losses import delta_error, precise, soft_bce, weighted_mean
from detdistill.structures import (
    DensePredictions,
    Proposals,
    Targets,
    Truth,
)

CODER = DeltaCoder()
OBJECT, NOTHING = 0, 1
"""The labels of the first stage, which knows one class."""


class RegionProposer(nn.Module):
    """A convolution over every level, and per anchor a logit and a box."""

    def __init__(self, architecture: RegionArchitecture) -> None:
        super().__init__()
        ratios = architecture.anchor_ratios
        self.convs = RPNHead(architecture.neck_channels, len(ratios))
        self.priors = Priors(
            scale=architecture.anchor_scale,
            octaves=1,
            ratios=ratios,
            offset=0.0,
            whole_pixels=architecture.whole_pixels,
        )
        self.strides = architecture.strides
        for module in self.convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=architecture.head_deviation)

    def forward(self, neck: Levels) -> DensePredictions:
        """Logits and boxes of all anchors."""
        logits, boxes = self.convs(list(neck))
        return DensePredictions(
            logits=tuple(logits),
            boxes=tuple(boxes),
            priors=self.priors.of_levels(neck, self.strides),
            strides=self.strides,
            coder=CODER,
        )


@torch.no_grad()
def propose(predictions: DensePredictions, sizes: Tensor, settings: Proposing) -> Proposals:
    """The best boxes of each image, clipped to its size and without near-duplicates.

    Args:
        predictions: of the first stage.
        sizes: (B, 2) heights and widths.
        settings: how many.
    """
    scores = precise(predictions.flat_logits()).squeeze(-1).sigmoid()
    counts = [len(level) for level in predictions.priors]
    rows, levels = _best_of_levels(scores, counts, settings.per_level)
    boxes = clipped(take(predictions.decoded(), rows), sizes)
    kept = [
        _suppressed(box, score, levels, settings)
        for box, score in zip(boxes, take(scores, rows), strict=True)
    ]
    return _padded(kept, min(settings.per_image, len(levels)))


def _best_of_levels(scores: Tensor, counts: list[int], most: int) -> tuple[Tensor, Tensor]:
    """(B, N) scores -> (B, n) anchors, at most so many of each level, and their levels (n,)."""
    rows, levels, start = [], [], 0
    for number, level in enumerate(scores.split(counts, dim=1)):
        best = level.topk(min(most, level.shape[1]), dim=1).indices
        rows.append(best + start)
        levels.append(torch.full_like(best[0], number))
        start += level.shape[1]
    return torch.cat(rows, dim=1), torch.cat(levels)


def _suppressed(boxes: Tensor, scores: Tensor, levels: Tensor, settings: Proposing) -> Tensor:
    """(n, 4) boxes of one image -> (at most P, 4), best first."""
    visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, scores, levels = boxes[visible], scores[visible], levels[visible]
    return boxes[batched_nms(boxes, scores, levels, settings.nms_iou)[: settings.per_image]]


def _padded(kept: list[Tensor], most: int) -> Proposals:
    """Regions of several images, padded to a number that depends on shapes alone."""
    boxes = torch.stack([F.pad(image, (0, 0, 0, most - len(image))) for image in kept])
    counts = torch.tensor([[len(image)] for image in kept], device=boxes.device)
    return Proposals(boxes=boxes, valid=torch.arange(most, device=boxes.device) < counts)


def assign_anchors(
    predictions: DensePredictions, truth: Truth, world_mean: Callable[[Tensor], Tensor]
) -> Targets:
    """Which anchors learn an object, which background: section 3.1.2 of the paper."""
    return assign.max_iou(
        predictions.flat_priors(),
        (),
        replace(truth, labels=torch.full_like(truth.labels, OBJECT)),
        inside=predictions.inside(truth.sizes),
        num_classes=NOTHING,
        positive_iou=0.7,
        negative_iou=0.3,
        low_quality=0.3,
        world_mean=world_mean,
    )


def anchor_losses(
    predictions: DensePredictions,
    targets: Targets,
    sampling: Sampling,
    world_mean: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Cross entropy of a sample of anchors and L1 loss of the positive ones' deltas.

    Both are divided by the size of the sample.
    """
    positive = targets.labels == OBJECT
    background = ~positive & (targets.weights > 0)
    drawn = sample(positive, background, sampling)
    parts = torch.stack([(drawn & positive).sum(dim=1), (drawn & background).sum(dim=1)])
    total = world_mean(parts.clamp(min=1).sum().float())
    entropy = soft_bce(predictions.flat_logits().squeeze(-1), positive)
    error = delta_error(
        predictions.flat_boxes(), targets.boxes, predictions.flat_priors(), positive, CODER
    )
    return {
        "rpn_cls": weighted_mean(entropy, drawn, total),
        "rpn_box": weighted_mean(error, drawn.unsqueeze(-1), total),
    }
