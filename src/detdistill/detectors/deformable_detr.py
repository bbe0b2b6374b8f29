"""Deformable DETR: queries that look for one object each, and no suppression of duplicates.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
2021. Encoder and decoder layers are those of `transformers`, which is an extra.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detdistill.boxes import clipped
from detdistill.detectors.assign import normaliser
from detdistill.detectors.backbones import build_backbone
from detdistill.detectors.detector import Detector, whole
from detdistill.detectors.matching import as_shares, match
from detdistill.detectors.projection import Projection
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.detectors.query_encoder import Encoder
from detdistill.detectors.query_head import Decoder
from detdistill.focal import sigmoid_focal_loss
from detdistill.levels import take, within
from detdistill.losses import giou_loss, weighted_mean
from detdistill.structures import (
    EVERYTHING,
    Detections,
    DetectorOutput,
    Matches,
    QueryPredictions,
    Reads,
    Spec,
    Targets,
    Truth,
    local_mean,
)

CLASS_WEIGHT = 2.0
BOX_WEIGHT = 5.0
GIOU_WEIGHT = 2.0


class DeformableDetr(Detector):
    """Backbone, projection, encoder, and a decoder as the head."""

    head: Decoder

    def __init__(self, architecture: QueryArchitecture) -> None:
        super().__init__(architecture.preprocessing)
        self.architecture: QueryArchitecture = architecture
        self.backbone = build_backbone(architecture.backbone)
        self.neck = Projection(self.backbone.channels, architecture)
        self.encoder = Encoder(architecture)
        self.head = Decoder(architecture)
        self.spec = Spec(
            family="query",
            classes=architecture.classes,
            strides=architecture.strides,
            channels=architecture.neck_channels,
            queries=architecture.queries,
            stages=architecture.decoder_layers,
            backbone_channels=self.backbone.channels,
        )

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        """See `Detector.forward`."""
        backbone = self.backbone(self.normalise(images, sizes))
        neck = self.neck(backbone)
        predictions = trace = None
        if reads.predictions or reads.encoder:
            sizes = whole(images) if sizes is None else sizes
            trace = self.encoder(neck, within(sizes, images.shape[-2:]), sizes)
        if trace is not None and reads.predictions:
            predictions = self.head.resume(trace)
        return DetectorOutput(
            neck=neck,
            predictions=predictions,
            trace=trace if reads.encoder else None,
            backbone=backbone if reads.backbone else None,
        )

    def criterion(
        self,
        output: DetectorOutput,
        truth: Truth,
        world_mean: Callable[[Tensor], Tensor] = local_mean,
    ) -> tuple[dict[str, Tensor], Targets]:
        """See `Detector.criterion`. Every loss is summed over the decoder's stages."""
        matches = match(output.queries, truth)
        targets = _targets(matches, len(self.spec.classes), world_mean)
        return losses(output.queries, matches, targets.positives, truth), targets

    @torch.no_grad()
    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        """See `Detector.detect`. The best pairs of query and class, all of them different."""
        logits, boxes = output.queries.logits[-1].float(), output.queries.boxes[-1]
        count = min(self.architecture.per_image, logits.shape[1] * logits.shape[2])
        best = logits.sigmoid().flatten(1).topk(count, dim=1)
        query = best.indices // logits.shape[2]
        return Detections(
            boxes=clipped(take(boxes, query), sizes),
            scores=best.values,
            labels=best.indices % logits.shape[2],
            counts=torch.full_like(query[:, 0], count),
        )


def losses(
    predictions: QueryPredictions, matches: Matches, positives: Tensor, truth: Truth
) -> dict[str, Tensor]:
    """Focal loss of all queries, L1 and GIoU loss of those with an object, summed over stages."""
    logits, boxes = torch.stack(predictions.logits), torch.stack(predictions.boxes)
    matched = matches.labels < logits.shape[-1]
    distance = (as_shares(boxes, truth) - as_shares(matches.boxes, truth)).abs().sum(dim=-1)
    return {
        "cls": CLASS_WEIGHT
        * weighted_mean(sigmoid_focal_loss(logits, matches.labels), None, positives),
        "box": BOX_WEIGHT * weighted_mean(distance, matched, positives),
        "giou": GIOU_WEIGHT * weighted_mean(giou_loss(boxes, matches.boxes), matched, positives),
    }


def _targets(matches: Matches, num_classes: int, world_mean: Callable[[Tensor], Tensor]) -> Targets:
    """The last stage's, where every query counts; each stage has as many queries with objects."""
    labels = matches.labels[-1]
    return Targets(
        labels=labels,
        boxes=matches.boxes[-1],
        weights=torch.ones_like(labels, dtype=torch.float32),
        positives=normaliser(labels < num_classes, world_mean, per_image=False),
        per_image=False,
        matches=matches,
    )
