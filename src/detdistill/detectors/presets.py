"""Detectors by name, and detectors as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, cast, get_args

from detdistill.detectors import backbones
from detdistill.detectors.architecture import AnyArchitecture, preprocessing_of
from detdistill.detectors.backbones.features import STANDARD_WIDTH
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
SMALL_BACKBONE = "r18"
OTHER_SMALL = ("r50-w8", "mobilenetv2-w32", "swin-t-w16")
"""Small backbones of other kinds, for pairs of unlike detectors."""

_NAME = re.compile(
    rf"(?P<family>[a-z_]+)(-(?P<kind>{'|'.join(KINDS)}))?(-(?P<backbone>[\w./-]+?))??"
    r"(-w(?P<width>\d+(\.\d+)?))?"
)


def names() -> list[str]:
    """The detectors with a name; `-w0.25` behind a full-size one scales the backbone's width."""
    full = [f"{family}-{backbone}" for family in FAMILIES for backbone in backbones.NAMES]
    small = [
        f"{family}-{kind}-w{width}"
        for family in FAMILIES
        for kind in KINDS
        for width in SMALL_WIDTHS
    ]
    others = [f"{family}-quick-{backbone}" for family in FAMILIES for backbone in OTHER_SMALL]
    return full + small + others


def describe(name: str, classes: Sequence[str]) -> AnyArchitecture:
    """What a name stands for.

    Raises:
        UserError: no detector has this name.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise unknown_name("detector", name, names())
    family, is_small = FAMILIES[match["family"]], match["kind"] is not None
    backbone = backbones.named(match["backbone"] or (SMALL_BACKBONE if is_small else ""))
    if backbone is None:
        raise unknown_name("detector", name, names())
    if is_small:
        narrow = replace(backbone, width=_first_width(name, match["width"]), drop_path=0.0)
        architecture = family.small(narrow, tuple(classes), cast("Kind", match["kind"]))
    else:
        width = round(STANDARD_WIDTH * _multiplier(name, match["width"]))
        architecture = family.full(replace(backbone, width=width), tuple(classes))
    return replace(architecture, preprocessing=preprocessing_of(backbone))


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
    if multiplier <= 0 or not (STANDARD_WIDTH * multiplier).is_integer():
        raise UserError(
            f"Detector {name!r}: the width must be a multiple of 1/64 above 0, such as 0.25."
        )
    return multiplier
