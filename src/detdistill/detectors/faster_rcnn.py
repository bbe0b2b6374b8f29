"""Faster R-CNN: proposals from one stage over a pyramid, classes and boxes from a second.

Source: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", 2015, on the pyramid of Lin et al., 2017; settings as in MMDetection's standard
configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from detdistill.detectors.backbones import Backbone, Pyramid, build_backbone
from detdistill.detectors.detector import Detector, whole
from detdistill.detectors.family import DEVIATIONS, SMALL_CHANNELS, Family, Kind
from detdistill.detectors.region_architecture import Proposing, RegionArchitecture, Sampling
from detdistill.detectors.region_head import (
    TwoLayerHead,
    assign_regions,
    region_losses,
    sample_regions,
)
from detdistill.detectors.rpn import (
    CODER,
    RegionProposer,
    anchor_losses,
    assign_anchors,
    propose,
)
from detdistill.detectors.selection import select_regions
from detdistill.levels import Levels
from detdistill.structures import (
    EVERYTHING,
    Detections,
    DetectorOutput,
    Reads,
    RegionPredictions,
    Regions,
    Spec,
    Targets,
    Truth,
    local_mean,
)


class FasterRCNN(Detector):
    """Backbone, pyramid, a stage that proposes regions and a head that looks into them."""

    architecture: RegionArchitecture
    head: TwoLayerHead

    def __init__(self, architecture: RegionArchitecture) -> None:
        super().__init__(architecture.preprocessing)
        self.architecture = architecture
        self.backbone = build_backbone(architecture.backbone)
        self.neck = Pyramid(
            self.backbone.channels,
            architecture.neck_channels,
            extra=int(architecture.subsampled_level),
            extra_from="subsampling",
        )
        self.rpn = RegionProposer(architecture)
        self.head = TwoLayerHead(architecture)
        self.spec = Spec(
            family="region",
            classes=architecture.classes,
            strides=architecture.strides,
            channels=architecture.neck_channels,
            priors_per_cell=len(architecture.anchor_ratios),
            coder=CODER,
            backbone_channels=self.backbone.channels,
            pool_size=architecture.pool_size,
        )

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        """See `Detector.forward`. In training there are other numbers of proposals."""
        sizes = whole(images) if sizes is None else sizes
        backbone = self.backbone(self.normalise(images, sizes))
        neck = self.neck(backbone)
        return DetectorOutput(
            neck=neck,
            predictions=self._predict(neck, sizes) if reads.predictions else None,
            backbone=backbone if reads.backbone else None,
        )

    def _predict(self, neck: Levels, sizes: Tensor) -> RegionPredictions:
        settings = self.architecture
        rpn = self.rpn(neck)
        proposing = settings.train_proposals if self.training else settings.test_proposals
        return RegionPredictions(rpn=rpn, proposals=propose(rpn, sizes, proposing))

    def criterion(
        self,
        output: DetectorOutput,
        truth: Truth,
        world_mean: Callable[[Tensor], Tensor] = local_mean,
    ) -> tuple[dict[str, Tensor], Targets]:
        """See `Detector.criterion`. Each stage is trained on a random sample."""
        predictions = output.regions
        targets = assign_anchors(predictions.rpn, truth, world_mean)
        regions = self._regions(output, truth)
        losses = {
            **anchor_losses(
                predictions.rpn, targets, self.architecture.anchor_sampling, world_mean
            ),
            **region_losses(regions, world_mean),
        }
        return losses, replace(targets, regions=regions)

    def _regions(self, output: DetectorOutput, truth: Truth) -> Regions:
        """A sample of regions, and what the second stage says of them."""
        classes = len(self.spec.classes)
        assigned = assign_regions(output.regions.proposals, truth, classes)
        chosen = sample_regions(assigned, self.architecture.region_sampling, classes)
        trace = self.head.pool(output.neck, chosen.regions)
        scores = self.head.resume(trace)
        return Regions(trace=trace, scores=scores, labels=chosen.labels, boxes=chosen.boxes)

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        """See `Detector.detect`."""
        scores = self.head.classify(output.neck, output.regions.proposals)
        return select_regions(scores, sizes, self.architecture.selection)


def full(backbone: Backbone, classes: tuple[str, ...]) -> RegionArchitecture:
    """The detector of the papers: levels at strides 4 to 64, 256 channels, 1000 proposals."""
    return RegionArchitecture(backbone=replace(backbone, stages=(1, 2, 3, 4)), classes=classes)


def small(backbone: Backbone, classes: tuple[str, ...], kind: Kind) -> RegionArchitecture:
    """A detector for images of about 128 pixels: strides 4 to 16, 32 channels, 100 proposals."""
    return RegionArchitecture(
        backbone=replace(backbone, stages=(1, 2, 3)),
        classes=classes,
        neck_channels=SMALL_CHANNELS,
        subsampled_level=False,
        anchor_scale=4.0,
        train_proposals=Proposing(per_level=200, per_image=100),
        test_proposals=Proposing(per_level=200, per_image=100),
        anchor_sampling=Sampling(number=128, positive_share=0.5),
        region_sampling=Sampling(number=64, positive_share=0.25),
        finest_scale=28.0,
        pool_size=5,
        hidden_channels=128,
        head_deviation=DEVIATIONS[kind],
    )


FASTER_RCNN = Family(architecture=RegionArchitecture, build=FasterRCNN, full=full, small=small)
