"""Detectors by name, and detectors as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from detdistill.detectors.architecture import Architecture, Points, Preprocessing, Selection
from detdistill.detectors.atss import atss
from detdistill.detectors.backbones import RESNET_BLOCKS, Backbone
from detdistill.detectors.dense import DenseDetector
from detdistill.detectors.detector import Detector
from detdistill.detectors.fcos import fcos
from detdistill.detectors.gfl import gfl
from detdistill.detectors.retinanet import OCTAVES, RATIOS, retinanet
from detdistill.errors import UserError, unknown_name

FAMILIES: dict[str, Callable[[Architecture], DenseDetector]] = {
    "gfl": gfl,
    "atss": atss,
    "retinanet": retinanet,
    "fcos": fcos,
}
SMALL_WIDTHS = (8, 16, 32)
SMALL_CHANNELS = 32
SMALL_DEVIATIONS = {"mini": 0.01, "quick": math.sqrt(2 / (9 * SMALL_CHANNELS))}
"""Where the heads of the small detectors start: as published, or as He et al. (2015) advise.

The first suits long trainings from pretrained backbones; from scratch, within some hundred steps,
the second is far ahead. The networks are the same.
"""

_NAME = re.compile(
    r"(?P<family>[a-z]+)-(?P<backbone>r\d+|mini|quick|timm/[\w.]+)(-w(?P<width>[\d.]+))?"
)


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
        "retinanet": {"anchor_scale": 3.0},
        "fcos": {
            "norm_groups": 8,
            "points": Points(limits=(32.0, 64.0), radius=1.5, in_strides=True, box_loss="giou"),
        },
    }
)
"""What images of about 128 pixels want otherwise."""


def names() -> list[str]:
    """The detectors with a name; `-w0.25` behind a full-size one scales the backbone's width."""
    full = [f"{family}-r{depth}" for family in FAMILIES for depth in RESNET_BLOCKS]
    small = [
        f"{family}-{kind}-w{width}"
        for family in FAMILIES
        for kind in SMALL_DEVIATIONS
        for width in SMALL_WIDTHS
    ]
    return full + small


def describe(name: str, classes: Sequence[str]) -> Architecture:
    """What a name stands for.

    Raises:
        UserError: no detector has this name.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise unknown_name("detector", name, names())
    if match["backbone"] in SMALL_DEVIATIONS:
        width = _first_width(name, match["width"])
        return _small(match["family"], match["backbone"], width, tuple(classes))
    if match["backbone"].startswith("r") and int(match["backbone"][1:]) not in RESNET_BLOCKS:
        raise unknown_name("detector", name, names())
    return _full(match["family"], match["backbone"], _multiplier(name, match["width"]), classes)


def build(name: str, classes: Sequence[str]) -> Detector:
    """A detector with fresh weights.

    Raises:
        UserError: no detector has this name, or there are no classes.
    """
    if not classes:
        raise UserError(f"Detector {name!r} needs at least one class, the data set has none.")
    return from_architecture(describe(name, classes))


def from_architecture(architecture: Architecture) -> Detector:
    """A detector with fresh weights."""
    return FAMILIES[architecture.family](architecture)


def to_card(architecture: Architecture) -> dict[str, Any]:
    """The architecture as plain JSON values."""
    return asdict(architecture)


def from_card(card: dict[str, Any]) -> Architecture:
    """The architecture that `to_card` described.

    Raises:
        UserError: the card is of another version or of something else.
    """
    parts = {
        "backbone": Backbone,
        "points": Points,
        "preprocessing": Preprocessing,
        "selection": Selection,
    }
    card = {"points": {}, **card}
    try:
        built = {key: kind(**_tuples(card[key])) for key, kind in parts.items()}
        architecture = Architecture(**_tuples({**card, **built}))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"The card does not describe a detector of this version: {error}."
        ) from error
    if architecture.family not in FAMILIES:
        raise unknown_name("detector family", architecture.family, FAMILIES)
    return architecture


def _full(family: str, backbone: str, width: float, classes: Sequence[str]) -> Architecture:
    """The detector of the papers: levels at strides 8 to 128, 256 channels, four convolutions."""
    name = backbone if backbone.startswith("timm/") else f"resnet{backbone[1:]}"
    return Architecture(
        family=family,
        backbone=Backbone(name=name, width=round(64 * width), stages=(2, 3, 4)),
        classes=tuple(classes),
        **FAMILY_SETTINGS[family],
    )


def _small(family: str, kind: str, width: int, classes: tuple[str, ...]) -> Architecture:
    """A detector for images of about 128 pixels: strides 4 to 16, 32 channels, two convolutions."""
    settings = {**FAMILY_SETTINGS[family], **SMALL_SETTINGS[family]}
    return Architecture(
        family=family,
        backbone=Backbone(name="resnet18", width=width, stages=(1, 2, 3)),
        classes=classes,
        neck_channels=SMALL_CHANNELS,
        extra_levels=0,
        tower_channels=SMALL_CHANNELS,
        tower_depth=2,
        reg_max=8,
        head_deviation=SMALL_DEVIATIONS[kind],
        **settings,
    )


def _first_width(name: str, width: str | None) -> int:
    if width is None or not width.isdigit() or not int(width):
        raise UserError(
            f"Detector {name!r} needs a whole first-stage width, such as "
            + ", ".join(name.split("-w", maxsplit=1)[0] + f"-w{w}" for w in SMALL_WIDTHS)
            + "."
        )
    return int(width)


def _multiplier(name: str, width: str | None) -> float:
    multiplier = float(width) if width else 1.0
    if multiplier <= 0 or not (64 * multiplier).is_integer():
        raise UserError(
            f"Detector {name!r}: the width must be a multiple of 1/64 above 0, such as 0.25."
        )
    return multiplier


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the dataclasses have tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
