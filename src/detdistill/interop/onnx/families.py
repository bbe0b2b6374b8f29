"""What ONNX files of each kind of detector compute."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from detdistill.boxes import clipped
from detdistill.detectors import Detector
from detdistill.detectors.dense import DenseDetector
from detdistill.detectors.faster_rcnn import FasterRCNN
from detdistill.detectors.region_architecture import Proposing, RegionSelection
from detdistill.detectors.selection import class_and_quality
from detdistill.interop.onnx.graph import (
    NOT_THERE,
    Found,
    Graph,
    Selected,
    best,
    candidates,
    suppressed,
)
from detdistill.interop.onnx.suppression import survivors
from detdistill.levels import Levels, take
from detdistill.losses import precise
from detdistill.structures import PREDICTIONS, DensePredictions, Proposals, Reads

NECK = Reads()


def graph_of(detector: Detector) -> Graph:
    """What a file of this detector computes."""
    return GRAPHS[detector.spec.family](detector).eval()


class DenseGraph(Graph):
    """GFL, ATSS, RetinaNet and FCOS."""

    detector: DenseDetector

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """See `Graph.forward`."""
        selection, classes = self.detector.architecture.selection, len(self.detector.spec.classes)
        predictions = self.detector(images, sizes, PREDICTIONS).dense
        scores, quality = class_and_quality(predictions, joint=selection.joint)
        boxes = predictions.decoded()
        score, pair = candidates(
            scores, _counts(predictions), least=selection.min_score, per_level=selection.per_level
        )
        prior, label = pair // classes, pair % classes
        score, box = score * take(quality, prior), clipped(take(boxes, prior), sizes)
        found = suppressed(box, score, label, classes=classes, settings=selection)
        return Found(*found, boxes, scores * quality.unsqueeze(-1))

    def _half(self) -> Detector:
        """Corners of priors need more."""
        return _half_but(self.detector, "head.priors")


class RegionGraph(Graph):
    """Faster R-CNN."""

    detector: FasterRCNN
    ranked = True

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """See `Graph.forward`."""
        settings, head = self.detector.architecture, self.detector.head
        neck = self.detector(images, sizes, NECK).neck
        regions = proposals(self.detector.rpn(neck), sizes, settings.test_proposals)
        trace = head.pool(neck, regions)
        trace = replace(trace, features=trace.features.to(head.cls.weight.dtype))
        scores = head.resume(trace)
        shares = precise(scores.logits).softmax(dim=-1)[..., :-1] * regions.valid.unsqueeze(-1)
        boxes = scores.decoded()
        likely = shares.where(shares > settings.selection.min_score, NOT_THERE)
        found = _of_regions(clipped(boxes, sizes), likely, settings.selection)
        return Found(*found, boxes, shares)

    def _half(self) -> Detector:
        """Corners of anchors need more."""
        return _half_but(self.detector, "rpn.priors")


class QueryGraph(Graph):
    """Deformable DETR."""

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """See `Graph.forward`."""
        output = self.detector(images, sizes, PREDICTIONS)
        found = self.detector.detect(output, sizes)
        boxes, scores = output.queries.boxes[-1], output.queries.logits[-1].float().sigmoid()
        return Found(found.boxes, found.scores, found.labels, found.counts, boxes, scores)

    def _half(self) -> Detector:
        """Places at which attention looks need more; the layers are of `transformers`."""
        half = _half_but(self.detector, "encoder", "head")
        half.neck = nn.Sequential(half.neck, _Widened())
        return half


GRAPHS: Mapping[str, type[Graph]] = {
    "dense": DenseGraph,
    "region": RegionGraph,
    "query": QueryGraph,
}


class _Widened(nn.Module):
    """Maps in half precision, in single precision."""

    def forward(self, levels: Levels) -> Levels:
        """(B, C, H, W) per level."""
        return tuple(level.float() for level in levels)


def _half_but(detector: Detector, *parts: str) -> Any:  # noqa: ANN401 - as the detector
    """A copy in half precision, but for some parts."""
    half = copy.deepcopy(detector).half()
    for part in parts:
        half.set_submodule(part, copy.deepcopy(detector.get_submodule(part)))
    return half


def _counts(predictions: DensePredictions) -> Sequence[int]:
    """Priors of each level; `len` would fix them in the file."""
    return [level.shape[0] for level in predictions.priors]


def proposals(predictions: DensePredictions, sizes: Tensor, settings: Proposing) -> Proposals:
    """As `detectors.rpn.propose`: suppression among the candidates of a level, as if of a class."""
    scores = precise(predictions.flat_logits()).sigmoid()
    counts = _counts(predictions)
    score, prior = candidates(scores, counts, least=0.0, per_level=settings.per_level)
    boxes = clipped(take(predictions.decoded(), prior), sizes)
    level = torch.arange(len(counts), device=prior.device).repeat_interleave(settings.per_level)
    found = suppressed(boxes, score, level.expand_as(prior), classes=len(counts), settings=settings)
    return Proposals(boxes=found.boxes, valid=found.scores > 0)


def _of_regions(boxes: Tensor, scores: Tensor, selection: RegionSelection) -> Selected:
    """The best classes of regions, of boxes (B, P, K, 4) and scores (B, P, K).

    Every class has boxes of its own, so that suppression sees it as an image of its own.
    """
    images, regions, classes = scores.shape
    box, score = boxes.transpose(1, 2).flatten(1, 2), scores.transpose(1, 2).flatten(1)
    kept = survivors(
        box.reshape(images * classes, regions, 4),
        score.reshape(images * classes, 1, regions),
        selection.nms_iou,
        selection.per_image,
    ).reshape(images, classes * regions)
    label = torch.arange(classes, device=scores.device).repeat_interleave(regions)
    return best(box, score.where(kept, NOT_THERE), label.expand_as(score), selection.per_image)
