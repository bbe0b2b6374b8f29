"""How a Deformable DETR is built, and what its names stand for; needs no extra to be read."""

from __future__ import annotations

from dataclasses import replace

from detdistill.detectors.backbones import Backbone
from detdistill.detectors.detector import Detector
from detdistill.detectors.family import Family, Kind
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.errors import MissingExtraError


def build(architecture: QueryArchitecture) -> Detector:
    """A Deformable DETR with fresh weights.

    Raises:
        MissingExtraError: `transformers` or `scipy` is not installed.
    """
    try:
        from detdistill.detectors.deformable_detr import DeformableDetr
    except ImportError as error:
        raise MissingExtraError("Deformable DETR", "detr", error) from error
    return DeformableDetr(architecture)


def full(backbone: Backbone, classes: tuple[str, ...]) -> QueryArchitecture:
    """The detector of the paper: levels at strides 8 to 64, 300 queries."""
    return QueryArchitecture(
        family="deformable_detr", backbone=replace(backbone, stages=(2, 3, 4)), classes=classes
    )


def small(backbone: Backbone, classes: tuple[str, ...], kind: Kind) -> QueryArchitecture:  # noqa: ARG001
    """A detector for images of about 128 pixels: strides 8 to 32, 64 channels, 100 queries.

    It refines boxes and starts as published, in either kind. From scratch it wants a learning rate
    of about 0.0015.
    """
    return QueryArchitecture(
        family="deformable_detr",
        backbone=replace(backbone, stages=(2, 3, 4)),
        classes=classes,
        neck_channels=64,
        extra_levels=0,
        norm_groups=8,
        heads=4,
        points=2,
        hidden_channels=256,
        encoder_layers=2,
        decoder_layers=3,
        dropout=0.0,
        queries=100,
        refine=True,
    )


DEFORMABLE_DETR = Family(architecture=QueryArchitecture, build=build, full=full, small=small)
