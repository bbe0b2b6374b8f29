"""The skeleton of one-stage detectors: towers over a pyramid, an assigner, a coder, a criterion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from detdistill.detectors.backbones import Backbone, Pyramid, build_backbone
from detdistill.detectors.detector import Detector
from detdistill.structures import (
    EVERYTHING,
    BoxCoder,
    DensePredictions,
    Detections,
    DetectorOutput,
    Levels,
    Reads,
    Spec,
    Targets,
    Towers,
    Truth,
    local_mean,
)

RARE = 0.01
"""Class probability that a fresh head gives to every prior."""
PAD_MULTIPLE = 32
"""Cells up to the next multiple of an image's size belong to the image."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a detector normalises what it is given: RGB from 0 to 255."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Both in the detector's own channel order."""
    bgr: bool = False


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which predictions become detections."""

    min_score: float = 0.05
    per_level: int = 1000
    """Candidates that are kept on each level before NMS."""
    nms_iou: float = 0.6
    per_image: int = 100


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that is needed to build a dense detector again, but for its weights."""

    family: str
    backbone: Backbone
    classes: tuple[str, ...]
    neck_channels: int = 256
    extra_levels: int = 2
    tower_channels: int = 256
    tower_depth: int = 4
    norm_groups: int = 32
    reg_max: int = 16
    """Largest distance a box distribution can say, in units of the stride."""
    anchor_scale: float = 8.0
    """Side of the square anchor in units of the stride."""
    anchor_offset: float = 0.0
    """Where in its cell an anchor is centred: 0 the corner, 0.5 the middle."""
    head_deviation: float = 0.01
    """Standard deviation that the head's convolutions start from."""
    preprocessing: Preprocessing = Preprocessing()
    selection: Selection = Selection()


class Criterion(Protocol):
    """A family's own losses."""

    def __call__(
        self,
        predictions: DensePredictions,
        targets: Targets,
        world_mean: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Named scalar losses."""


class Assigner(Protocol):
    """A family's label assignment."""

    def __call__(
        self,
        priors: Tensor,
        counts: tuple[int, ...],
        truth: Truth,
        *,
        inside: Tensor,
        num_classes: int,
        world_mean: Callable[[Tensor], Tensor],
    ) -> Targets:
        """Targets of every prior."""


class ConvBlock(nn.Module):
    """3×3 convolution and GroupNorm; the activation is the tower's."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return self.norm(self.conv(x))


class DenseHead(nn.Module):
    """Two towers of convolutions over every level, and what they predict there."""

    def __init__(
        self,
        *,
        channels: int,
        tower_channels: int,
        depth: int,
        groups: int,
        num_classes: int,
        strides: tuple[int, ...],
        coder: BoxCoder,
        anchor_scale: float,
        anchor_offset: float = 0.0,
        deviation: float = 0.01,
    ) -> None:
        super().__init__()
        widths = [channels] + [tower_channels] * depth
        self.cls_tower = nn.ModuleList(ConvBlock(i, o, groups) for i, o in pairwise(widths))
        self.reg_tower = nn.ModuleList(ConvBlock(i, o, groups) for i, o in pairwise(widths))
        self.cls = nn.Conv2d(widths[-1], num_classes, 3, padding=1)
        self.reg = nn.Conv2d(widths[-1], coder.numbers, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(strides)))
        self.strides = strides
        self.coder = coder
        self.anchor_scale = anchor_scale
        self.anchor_offset = anchor_offset
        self._initialise(deviation)

    def _initialise(self, deviation: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(cast("Tensor", self.cls.bias), math.log(RARE / (1 - RARE)))

    def forward(self, neck: Levels, reads: Reads = EVERYTHING) -> tuple[Levels, Levels, Towers]:
        """Logits, box numbers, and the cuts of the towers that are read."""
        cls, cls_cuts = self._climb(self.cls_tower, neck, reads)
        reg, reg_cuts = self._climb(self.reg_tower, neck, reads)
        return *self._predict(cls, reg), Towers(cls=cls_cuts, reg=reg_cuts)

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:
        """Predictions from what block `start` put out (0: the neck), after its activation."""
        everything = Reads()
        cls, _ = self._climb(self.cls_tower, towers.cls[start], everything, start)
        reg, _ = self._climb(self.reg_tower, towers.reg[start], everything, start)
        return self.predictions(*self._predict(cls, reg))

    def predictions(self, logits: Levels, boxes: Levels) -> DensePredictions:
        """Puts raw maps together with the priors they speak of."""
        return DensePredictions(
            logits=logits,
            boxes=boxes,
            priors=tuple(self._anchors(m, s) for m, s in zip(logits, self.strides, strict=True)),
            strides=self.strides,
            coder=self.coder,
        )

    def _climb(
        self, tower: nn.ModuleList, levels: Levels, reads: Reads, start: int = 0
    ) -> tuple[Levels, dict[int, Levels]]:
        """Runs the blocks after `start`, keeping the cuts that are read."""
        cuts = {start: levels} if start in reads.towers else {}
        for i, block in enumerate(tower[start:], start + 1):
            raw = tuple(block(level) for level in levels)
            levels = tuple(F.relu(level) for level in raw)
            if i in reads.towers:
                cuts[i] = raw if reads.preactivation else levels
        return levels, cuts

    def _predict(self, cls: Levels, reg: Levels) -> tuple[Levels, Levels]:
        logits = tuple(self.cls(level) for level in cls)
        boxes = tuple(
            self.reg(level) * scale for level, scale in zip(reg, self.scales, strict=True)
        )
        return logits, boxes

    def _anchors(self, like: Tensor, stride: int) -> Tensor:
        """(H·W, 4) one square per cell of a map."""
        height, width = like.shape[-2:]
        x = (torch.arange(width, device=like.device) + self.anchor_offset) * stride
        y = (torch.arange(height, device=like.device) + self.anchor_offset) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        middle = torch.stack([columns, rows], dim=-1).reshape(-1, 2).float()
        half = self.anchor_scale * stride / 2
        return torch.cat([middle - half, middle + half], dim=-1)


class DenseDetector(Detector):
    """Backbone, pyramid and dense head; the family's pieces are handed in."""

    head: DenseHead
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        *,
        coder: BoxCoder,
        bins: int | None,
        assigner: Assigner,
        criterion: Criterion,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(architecture.backbone)
        self.neck = Pyramid(
            self.backbone.channels, architecture.neck_channels, architecture.extra_levels
        )
        strides = list(self.backbone.strides)
        for _ in range(architecture.extra_levels):
            strides.append(strides[-1] * 2)
        self.head = DenseHead(
            channels=architecture.neck_channels,
            tower_channels=architecture.tower_channels,
            depth=architecture.tower_depth,
            groups=architecture.norm_groups,
            num_classes=len(architecture.classes),
            strides=tuple(strides),
            coder=coder,
            anchor_scale=architecture.anchor_scale,
            anchor_offset=architecture.anchor_offset,
            deviation=architecture.head_deviation,
        )
        self.assigner = assigner
        self.family_criterion = criterion
        self.spec = Spec(
            family="dense",
            classes=architecture.classes,
            strides=tuple(strides),
            channels=architecture.neck_channels,
            tower_depth=architecture.tower_depth,
            tower_channels=architecture.tower_channels,
            coder=coder,
            bins=bins,
            backbone_channels=self.backbone.channels,
        )
        preprocessing = architecture.preprocessing
        self.register_buffer("mean", _per_channel(preprocessing.mean), persistent=False)
        self.register_buffer("std", _per_channel(preprocessing.std), persistent=False)

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        """See `Detector.forward`."""
        backbone = self.backbone(self.normalise(images, sizes))
        neck = self.neck(backbone)
        predictions = trace = None
        if reads.predictions or reads.towers:
            logits, boxes, trace = self.head(neck, reads)
            predictions = self.head.predictions(logits, boxes)
        return DetectorOutput(
            neck=neck,
            predictions=predictions,
            trace=trace if reads.towers else None,
            backbone=backbone if reads.backbone else None,
        )

    def normalise(self, images: Tensor, sizes: Tensor | None) -> Tensor:
        """Zero mean, unit variance, in the detector's channel order; padding becomes zero."""
        if self.architecture.preprocessing.bgr:
            images = images.flip(1)
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        if sizes is None:
            return normal
        return normal * _within(sizes, images.shape[-2:]).unsqueeze(1)

    def criterion(
        self,
        output: DetectorOutput,
        truth: Truth,
        world_mean: Callable[[Tensor], Tensor] = local_mean,
    ) -> tuple[dict[str, Tensor], Targets]:
        """See `Detector.criterion`."""
        predictions = output.dense
        targets = self.assigner(
            predictions.flat_priors(),
            tuple(len(level) for level in predictions.priors),
            truth,
            inside=priors_inside(predictions, truth.sizes),
            num_classes=len(self.spec.classes),
            world_mean=world_mean,
        )
        return self.family_criterion(predictions, targets, world_mean), targets

    @torch.no_grad()
    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        """See `Detector.detect`."""
        predictions, selection = output.dense, self.architecture.selection
        scores = predictions.flat_logits().float().sigmoid()
        boxes = predictions.decoded()
        counts = [len(level) for level in predictions.priors]
        found = [
            _select(s, clip_boxes_to_image(b, (int(h), int(w))), counts, selection)
            for s, b, (h, w) in zip(scores, boxes, sizes.tolist(), strict=True)
        ]
        return _pad(found)


def priors_inside(predictions: DensePredictions, sizes: Tensor) -> Tensor:
    """(B, N) whether each prior's cell lies in its image, rounded up to `PAD_MULTIPLE`."""
    padded = (sizes + PAD_MULTIPLE - 1) // PAD_MULTIPLE * PAD_MULTIPLE
    inside = []
    for level, stride, prior in zip(
        predictions.logits, predictions.strides, predictions.priors, strict=True
    ):
        shape = level.shape[-2:]
        cells = _within((padded + stride - 1) // stride, shape).flatten(1)
        inside.append(cells.repeat_interleave(len(prior) // cells.shape[1], dim=1))
    return torch.cat(inside, dim=1)


def _within(sizes: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """(B, H, W) bool: row and column are below each image's height and width."""
    rows = torch.arange(shape[0], device=sizes.device) < sizes[:, :1]
    columns = torch.arange(shape[1], device=sizes.device) < sizes[:, 1:]
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def _select(
    scores: Tensor, boxes: Tensor, counts: list[int], selection: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """One image's (N, K) scores and (N, 4) boxes -> boxes, scores and labels of its detections."""
    kept_scores, kept_priors, kept_labels, start = [], [], [], 0
    for level in scores.split(counts):
        prior, label = (level > selection.min_score).nonzero(as_tuple=True)
        best = level[prior, label].sort(descending=True, stable=True)
        order = best.indices[: selection.per_level]
        kept_scores.append(best.values[: selection.per_level])
        kept_priors.append(prior[order] + start)
        kept_labels.append(label[order])
        start += len(level)
    score, prior, label = map(torch.cat, (kept_scores, kept_priors, kept_labels))
    box = boxes[prior]
    visible = (box[:, 2:] > box[:, :2]).all(dim=1)
    box, score, label = box[visible], score[visible], label[visible]
    keep = batched_nms(box, score, label, selection.nms_iou)[: selection.per_image]
    return box[keep], score[keep], label[keep]


def _pad(found: list[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """Detections of several images, padded to the fullest."""
    boxes, scores, labels = (
        nn.utils.rnn.pad_sequence([image[i] for image in found], batch_first=True) for i in range(3)
    )
    counts = torch.tensor([len(image[1]) for image in found], device=scores.device)
    return Detections(boxes=boxes, scores=scores, labels=labels, counts=counts)
