"""Detectors by name, and detectors as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast, get_args

from detdistill.detectors.architecture import AnyArchitecture
from detdistill.detectors.backbones import RESNET_BLOCKS, Backbone
from detdistill.detectors.deformable_detr_family import DEFORMABLE_DETR
from detdistill.detectors.dense_families import dense_families
from detdistill.detectors.detector import Detector
from detdistill.detectors.family import Family, Kind
from detdistill.detectors.faster_rcnn import FASTER_RCNN
from detdistill.detectors.plain import from_plain
from detdistill.errors import UserError, unknown_name

FAMILIES: dict[str, Family] = {
    **dense_families(),
    "faster_rcnn": FASTER_RCNN,
    "deformable_detr": DEFORMABLE_DETR,
}
KINDS: tuple[Kind, ...] = get_args(Kind)
SMALL_WIDTHS = (8, 16, 32)

_NAME = re.compile(
    r"(?P<family>[a-z_]+)-(?P<backbone>r\d+|mini|quick|timm/[\w.]+)(-w(?P<width>[\d.]+))?"
)


def names() -> list[str]:
    """The detectors with a name; `-w0.25` behind a full-size one scales the backbone's width."""
    full = [f"{family}-r{depth}" for family in FAMILIES for depth in RESNET_BLOCKS]
    small = [
        f"{family}-{kind}-w{width}"
        for family in FAMILIES
        for kind in KINDS
        for width in SMALL_WIDTHS
    ]
    return full + small


def describe(name: str, classes: Sequence[str]) -> AnyArchitecture:
    """What a name stands for.

    Raises:
        UserError: no detector has this name.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise unknown_name("detector", name, names())
    family = FAMILIES[match["family"]]
    if match["backbone"] in KINDS:
        narrow = Backbone(name="resnet18", width=_first_width(name, match["width"]))
        return family.small(narrow, tuple(classes), cast("Kind", match["backbone"]))
    return family.full(_backbone(name, match["backbone"], match["width"]), tuple(classes))


def build(name: str, classes: Sequence[str]) -> Detector:
    """A detector with fresh weights.

    Raises:
        UserError: no detector has this name, or there are no classes.
    """
    if not classes:
        raise UserError(f"Detector {name!r} needs at least one class, the data set has none.")
    return from_architecture(describe(name, classes))


def from_architecture(architecture: AnyArchitecture) -> Detector:
    """A detector with fresh weights."""
    return FAMILIES[architecture.family].build(architecture)


def to_card(architecture: AnyArchitecture) -> dict[str, Any]:
    """The architecture as plain JSON values."""
    return asdict(architecture)


def from_card(card: dict[str, Any]) -> AnyArchitecture:
    """The architecture that `to_card` described.

    Raises:
        UserError: the card is of another version or of something else.
    """
    if "family" not in card:
        raise UserError("The card does not describe a detector of this version: it has no family.")
    if card["family"] not in FAMILIES:
        raise unknown_name("detector family", card["family"], FAMILIES)
    try:
        architecture: AnyArchitecture = from_plain(FAMILIES[card["family"]].architecture, card)
    except TypeError as error:
        raise UserError(
            f"The card does not describe a detector of this version: {error}."
        ) from error
    return architecture


def _backbone(name: str, backbone: str, width: str | None) -> Backbone:
    """The feature extractor that a full-size detector's name speaks of."""
    if backbone.startswith("r") and int(backbone[1:]) not in RESNET_BLOCKS:
        raise unknown_name("detector", name, names())
    return Backbone(
        name=backbone if backbone.startswith("timm/") else f"resnet{backbone[1:]}",
        width=round(64 * _multiplier(name, width)),
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
