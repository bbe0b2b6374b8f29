"""The skeleton of one-stage detectors: towers over a pyramid, an assigner, a coder, a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from detdistill.detectors.architecture import Architecture
from detdistill.detectors.backbones import Pyramid, build_backbone
from detdistill.detectors.detector import Detector
from detdistill.detectors.head import BoxActivation, DenseHead, linear
from detdistill.detectors.selection import select
from detdistill.structures import (
    EVERYTHING,
    BoxCoder,
    DensePredictions,
    Detections,
    DetectorOutput,
    Reads,
    Spec,
    Targets,
    Truth,
    local_mean,
)


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


class DenseDetector(Detector):
    """Backbone, pyramid and dense head; the family's pieces are handed in."""

    architecture: Architecture
    head: DenseHead

    def __init__(
        self,
        architecture: Architecture,
        *,
        coder: BoxCoder,
        assigner: Assigner,
        criterion: Criterion,
        bins: int | None = None,
        activation: BoxActivation = linear,
    ) -> None:
        super().__init__(architecture.preprocessing)
        self.architecture = architecture
        self.backbone = build_backbone(architecture.backbone)
        self.neck = Pyramid(
            self.backbone.channels,
            architecture.neck_channels,
            architecture.extra_levels,
            extra_from=architecture.extra_from,
            extra_relu=architecture.extra_relu,
        )
        self.head = DenseHead(architecture, coder=coder, activation=activation)
        self.assigner = assigner
        self.family_criterion = criterion
        self.spec = Spec(
            family="dense",
            classes=architecture.classes,
            strides=architecture.strides,
            channels=architecture.neck_channels,
            tower_depth=architecture.tower_depth,
            tower_channels=architecture.tower_channels,
            priors_per_cell=architecture.priors_per_cell,
            coder=coder,
            bins=bins,
            quality=architecture.quality_on is not None,
            backbone_channels=self.backbone.channels,
        )

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        """See `Detector.forward`."""
        backbone = self.backbone(self.normalise(images, sizes))
        neck = self.neck(backbone)
        predictions = trace = None
        if reads.predictions or reads.towers:
            predictions, trace = self.head(neck, reads)
        return DetectorOutput(
            neck=neck,
            predictions=predictions,
            trace=trace if reads.towers else None,
            backbone=backbone if reads.backbone else None,
        )

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
            inside=predictions.inside(truth.sizes),
            num_classes=len(self.spec.classes),
            world_mean=world_mean,
        )
        return self.family_criterion(predictions, targets, world_mean), targets

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        """See `Detector.detect`."""
        return select(output.dense, sizes, self.architecture.selection)
