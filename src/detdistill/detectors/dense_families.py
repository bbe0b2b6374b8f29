"""The one-stage families, and what their names stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from detdistill.detectors.architecture import Architecture, Points, Selection
from detdistill.detectors.atss import atss
from detdistill.detectors.backbones import Backbone
from detdistill.detectors.dense import DenseDetector
from detdistill.detectors.family import DEVIATIONS, SMALL_CHANNELS, Family, Kind
from detdistill.detectors.fcos import fcos
from detdistill.detectors.gfl import gfl
from detdistill.detectors.retinanet import OCTAVES, RATIOS, retinanet

FAMILY_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gfl": {},
        "atss": {"quality_on": "reg"},
        "retinanet": {
            "extra_from": "backbone",
            "norm_groups": 0,
            "level_scales": False,
            "anchor_scale": 4.0,
            "anchor_octaves": OCTAVES,
            "anchor_ratios": RATIOS,
            "selection": Selection(nms_iou=0.5),
        },
        "fcos": {
            "extra_relu": True,
            "tower_bias": True,
            "quality_on": "reg",
            "anchor_scale": 0.0,
            "anchor_offset": 0.5,
            "points": Points(radius=1.5, in_strides=True, box_loss="giou"),
        },
    }
)
"""Where each family's standard configuration departs from the defaults."""
SMALL_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gfl": {"anchor_scale": 5.0, "norm_groups": 8},
        "atss": {"anchor_scale": 5.0, "norm_groups": 8},
        "retinanet": {"anchor_scale": 3.0, "norm_groups": 8},
        "fcos": {
            "norm_groups": 8,
            "points": Points(limits=(32.0, 64.0), radius=1.5, in_strides=True, box_loss="giou"),
        },
    }
)
"""What images of about 128 pixels want otherwise."""


def dense_families() -> dict[str, Family]:
    """GFL, ATSS, RetinaNet and FCOS by name."""
    builders: dict[str, Callable[[Architecture], DenseDetector]] = {
        "gfl": gfl,
        "atss": atss,
        "retinanet": retinanet,
        "fcos": fcos,
    }
    return {
        name: Family(
            architecture=Architecture,
            build=build,
            full=partial(full, name),
            small=partial(small, name),
        )
        for name, build in builders.items()
    }


def full(family: str, backbone: Backbone, classes: tuple[str, ...]) -> Architecture:
    """The detector of the papers: levels at strides 8 to 128, 256 channels, four convolutions."""
    return Architecture(
        family=family,
        backbone=replace(backbone, stages=(2, 3, 4)),
        classes=classes,
        **FAMILY_SETTINGS[family],
    )


def small(family: str, backbone: Backbone, classes: tuple[str, ...], kind: Kind) -> Architecture:
    """A detector for images of about 128 pixels: strides 4 to 16, 32 channels, two convolutions."""
    settings = {**FAMILY_SETTINGS[family], **SMALL_SETTINGS[family]}
    return Architecture(
        family=family,
        backbone=replace(backbone, stages=(1, 2, 3)),
        classes=classes,
        neck_channels=SMALL_CHANNELS,
        extra_levels=0,
        tower_channels=SMALL_CHANNELS,
        tower_depth=2,
        reg_max=8,
        head_deviation=DEVIATIONS[kind],
        **settings,
    )
