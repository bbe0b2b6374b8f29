"""torchvision's own detectors, as state dicts, into ours.

Ours compute the same but for two things that trained detectors do not do: they drop boxes without
area, and make no box 62 times flatter or narrower than its anchor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from detdistill import detectors
from detdistill.detectors import Architecture
from detdistill.detectors.architecture import Points, Selection
from detdistill.detectors.backbones import Backbone
from detdistill.detectors.region_architecture import RegionArchitecture
from detdistill.errors import UserError, unknown_name
from detdistill.interop import unpickle
from detdistill.interop.transfer import Imported, Rules, transfer

UNNAMED = ("__background__", "N/A")
"""Rows of the class layer that stand for no class; they are left out."""
RESIZE = (800, 1333)
EPS = 1e-5
"""What our norms add to a variance."""
ZERO_EPS = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn")
NOTE = (
    "The norms of torchvision's published COCO_V1 weights of this detector, and of what was "
    "trained from them, add nothing to the variance: for these give --norm_eps 0."
)
RESNET50 = Backbone(name="resnet50", stages=(2, 3, 4), frozen_norm=True)
DENSE = partial(
    Architecture,
    backbone=RESNET50,
    classes=(),
    extra_relu=True,
    level_scales=False,
    whole_pixels=True,
)
RETINANET = partial(
    DENSE,
    family="retinanet",
    anchor_scale=4.0,
    anchor_octaves=3,
    anchor_ratios=(0.5, 1.0, 2.0),
    selection=Selection(nms_iou=0.5, per_image=300),
)
PRESETS: Mapping[str, Architecture | RegionArchitecture] = MappingProxyType(
    {
        "retinanet_resnet50_fpn": RETINANET(norm_groups=0),
        "retinanet_resnet50_fpn_v2": RETINANET(extra_from="backbone"),
        "fcos_resnet50_fpn": DENSE(
            family="fcos",
            tower_bias=True,
            quality_on="reg",
            anchor_scale=0.0,
            points=Points(radius=1.5, in_strides=True, box_loss="giou"),
            selection=Selection(min_score=0.2, joint=True),
        ),
        "fasterrcnn_resnet50_fpn": RegionArchitecture(
            backbone=replace(RESNET50, stages=(1, 2, 3, 4)),
            classes=(),
            whole_pixels=True,
            pool_samples=2,
            pool_shifted=False,
        ),
    }
)
"""How ours must be built to compute the same."""
DENSE_CLASSES = "head.classification_head.cls_logits."
REGION_CLASSES = "roi_heads.box_predictor.cls_score."
REGION_BOXES = "roi_heads.box_predictor.bbox_pred."
NECK = (
    (r"backbone\.body\.", r"backbone."),
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(?:0\.)?", r"neck.fpn.\1_blocks.\2.0."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", r"neck.fpn.extra_blocks.convs.0."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", r"neck.fpn.extra_blocks.convs.1."),
)
SECOND_STAGE = (
    (r"rpn\.head\.conv\.(?:0\.0\.)?", r"rpn.convs.conv.0.0."),
    (r"rpn\.head\.", r"rpn.convs."),
    (r"roi_heads\.box_head\.", r"head.layers."),
    (r"roi_heads\.box_predictor\.cls_score\.", r"head.cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", r"head.reg."),
)


def load(
    path: Path,
    *,
    preset: str,
    classes: Sequence[str] | None = None,
    norm_eps: float = EPS,
    partial: bool = False,
) -> Imported:
    """The detector in a state dict of torchvision.

    Args:
        path: the file.
        preset: the name of the function that built the detector.
        classes: their names in order, with or without the background in front; None: COCO's.
        norm_eps: what the detector's norms add to a variance.
        partial: accept what does not fit.

    Raises:
        UserError: the file is not allowed or damaged, or does not fit the preset and the classes.
    """
    if preset not in PRESETS:
        raise unknown_name("preset of torchvision", preset, PRESETS)
    built = PRESETS[preset]
    weights = _weights(path, preset)
    rows = _rows(weights, built)
    names = _names(rows, classes)
    if isinstance(built, RegionArchitecture) and names[0] not in UNNAMED:
        raise UserError(f"Row 0 of {preset} is the background, not {names[0]!r}: leave it out.")
    kept = [row for row, name in enumerate(names) if name not in UNNAMED]
    architecture = replace(built, classes=tuple(names[row] for row in kept))
    detector = detectors.from_architecture(architecture)
    fitting = {
        name: _fitted(name, tensor, kept, rows, norm_eps) for name, tensor in weights.items()
    }
    report = transfer(fitting, detector, rules(preset), partial=partial)
    return Imported(
        detector=detector,
        report=replace(report, left_out=_left_out(built, names), notes=_notes(preset, norm_eps)),
        resize=RESIZE,
    )


def rules(preset: str) -> Rules:
    """What torchvision calls our weights."""
    built = PRESETS[preset]
    if isinstance(built, RegionArchitecture):
        return (*NECK, *SECOND_STAGE)
    return (
        *NECK,
        *_tower_rules(grouped="retinanet" in preset, depth=built.tower_depth),
        (r"head\.classification_head\.cls_logits\.", r"head.cls."),
        (r"head\.regression_head\.bbox_reg\.", r"head.reg."),
        (r"head\.regression_head\.bbox_ctrness\.", r"head.quality."),
    )


def _notes(preset: str, norm_eps: float) -> tuple[str, ...]:
    return (NOTE,) if preset in ZERO_EPS and norm_eps == EPS else ()


def _left_out(built: Architecture | RegionArchitecture, names: Sequence[str]) -> tuple[str, ...]:
    """Background is a class of the second stage's; what is not a class has a share there, too."""
    two_stages = isinstance(built, RegionArchitecture)
    unnamed = [name for name in dict.fromkeys(names) if name in UNNAMED[two_stages:]]
    more = ", with its share of the probability, next to nothing once trained" * two_stages
    return tuple(f"the class row of {name}{more}" for name in unnamed)


def _tower_rules(*, grouped: bool, depth: int) -> Rules:
    """Convolution, norm and activation of a block stand together, or all in one row."""
    found = []
    for branch, ours in (("classification", "cls"), ("regression", "reg")):
        for i in range(depth):
            places = (rf"{i}\.0", rf"{i}\.1") if grouped else (f"{3 * i}", f"{3 * i + 1}")
            for place, part in zip(places, ("conv", "norm"), strict=True):
                pattern = rf"head\.{branch}_head\.conv\.{place}\."
                found.append((pattern, f"head.{ours}_tower.{i}.{part}."))
    return found


def _weights(path: Path, preset: str) -> dict[str, Tensor]:
    weights = unpickle.state_dict(unpickle.read(path))
    layer = _class_layer(PRESETS[preset])
    if f"{layer}bias" not in weights:
        raise UserError(f"{path} is not the state dict of {preset}: it has no '{layer}bias'.")
    return weights


def _class_layer(built: Architecture | RegionArchitecture) -> str:
    return REGION_CLASSES if isinstance(built, RegionArchitecture) else DENSE_CLASSES


def _rows(weights: Mapping[str, Tensor], built: Architecture | RegionArchitecture) -> int:
    """How many classes the file knows, what is none included."""
    rows = len(weights[f"{_class_layer(built)}bias"])
    return rows if isinstance(built, RegionArchitecture) else rows // built.priors_per_cell


def _names(rows: int, classes: Sequence[str] | None) -> Sequence[str]:
    """What each row of the class layer stands for."""
    coco: Sequence[str] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    named = [name for name in coco if name not in UNNAMED]
    if len(coco) == rows and (classes is None or list(classes) == named):
        return coco
    if classes is None or rows - len(classes) not in {0, 1}:
        raise UserError(
            f"The class layer has {rows} rows: name what they stand for with --classes, the first "
            f"row, the background, may be left out ({len(classes or ())} names were given)."
        )
    return [UNNAMED[0], *classes] if len(classes) < rows else classes


def _fitted(name: str, tensor: Tensor, kept: Sequence[int], rows: int, norm_eps: float) -> Tensor:
    """A tensor without the rows of no class, and with what our norms do not add to a variance.

    Of two stages the background is kept, as the last row instead of the first.
    """
    if name.startswith(DENSE_CLASSES):
        return tensor.unflatten(0, (-1, rows))[:, kept].flatten(0, 1)
    if name.startswith(REGION_CLASSES):
        return tensor[[*kept, 0]]
    if name.startswith(REGION_BOXES):
        return tensor.unflatten(0, (rows, -1))[kept].flatten(0, 1)
    if name.endswith(".running_var"):
        return tensor + (norm_eps - EPS)
    return tensor
