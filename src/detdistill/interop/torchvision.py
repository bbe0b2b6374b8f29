"""torchvision's one-stage detectors, as state dicts, into ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from detdistill import detectors
from detdistill.detectors import Architecture
from detdistill.detectors.architecture import Points, Selection
from detdistill.detectors.backbones import Backbone
from detdistill.errors import UserError, unknown_name
from detdistill.interop import unpickle
from detdistill.interop.transfer import Imported, Rules, transfer

UNNAMED = ("__background__", "N/A")
"""Rows of the class layer that stand for no class; they are left out."""
RESIZE = (800, 1333)
EPS = 1e-5
"""What our norms add to a variance."""
ZERO_EPS = ("retinanet_resnet50_fpn",)
NOTE = (
    "The norms of torchvision's published COCO_V1 weights of this detector, and of what was "
    "trained from them, add nothing to the variance: for these give --norm_eps 0."
)
RESNET50 = Backbone(name="resnet50", stages=(2, 3, 4), frozen_norm=True)
ANCHORS = {
    "extra_relu": True,
    "level_scales": False,
    "whole_pixels": True,
}
RETINANET = {
    **ANCHORS,
    "family": "retinanet",
    "anchor_scale": 4.0,
    "anchor_octaves": 3,
    "anchor_ratios": (0.5, 1.0, 2.0),
    "selection": Selection(nms_iou=0.5, per_image=300),
}
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "retinanet_resnet50_fpn": {**RETINANET, "norm_groups": 0},
        "retinanet_resnet50_fpn_v2": {**RETINANET, "extra_from": "backbone"},
        "fcos_resnet50_fpn": {
            **ANCHORS,
            "family": "fcos",
            "tower_bias": True,
            "quality_on": "reg",
            "anchor_scale": 0.0,
            "points": Points(radius=1.5, in_strides=True, box_loss="giou"),
            "selection": Selection(min_score=0.2, joint=True),
        },
    }
)
"""How ours must be built to compute the same."""


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
    weights = _weights(path)
    settings = Architecture(backbone=RESNET50, classes=(), **PRESETS[preset])
    rows = weights["head.classification_head.cls_logits.bias"].unflatten(
        0, (settings.priors_per_cell, -1)
    )
    names = _names(rows.shape[1], classes)
    kept = [row for row, name in enumerate(names) if name not in UNNAMED]
    architecture = replace(settings, classes=tuple(names[row] for row in kept))
    detector = detectors.from_architecture(architecture)
    fitting = {
        name: _fitted(name, tensor, kept, rows.shape, norm_eps) for name, tensor in weights.items()
    }
    report = transfer(fitting, detector, rules(preset, architecture), partial=partial)
    left_out = tuple(f"the class row of {name}" for name in dict.fromkeys(names) if name in UNNAMED)
    notes = (NOTE,) if preset in ZERO_EPS and norm_eps == EPS else ()
    return Imported(
        detector=detector,
        report=replace(report, left_out=left_out, notes=notes),
        resize=RESIZE,
    )


def rules(preset: str, architecture: Architecture) -> Rules:
    """What torchvision calls our weights."""
    return (
        (r"backbone\.body\.", r"backbone."),
        (r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(?:0\.)?", r"neck.fpn.\1_blocks.\2.0."),
        (r"backbone\.fpn\.extra_blocks\.p6\.", r"neck.fpn.extra_blocks.convs.0."),
        (r"backbone\.fpn\.extra_blocks\.p7\.", r"neck.fpn.extra_blocks.convs.1."),
        *_tower_rules(grouped="retinanet" in preset, depth=architecture.tower_depth),
        (r"head\.classification_head\.cls_logits\.", r"head.cls."),
        (r"head\.regression_head\.bbox_reg\.", r"head.reg."),
        (r"head\.regression_head\.bbox_ctrness\.", r"head.quality."),
    )


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


def _weights(path: Path) -> dict[str, Tensor]:
    state = unpickle.read(path)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if _is_state(state) else {}
    if not tensors:
        raise UserError(
            f"{path} is not the state dict of a one-stage detector of torchvision: it has no "
            "'head.classification_head.cls_logits.bias'."
        )
    return tensors


def _is_state(state: object) -> bool:
    return isinstance(state, Mapping) and "head.classification_head.cls_logits.bias" in state


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


def _fitted(
    name: str, tensor: Tensor, kept: Sequence[int], rows: Sequence[int], norm_eps: float
) -> Tensor:
    """A tensor without the rows of no class, and with what our norms do not add to a variance."""
    if ".cls_logits." in name:
        return tensor.unflatten(0, tuple(rows))[:, kept].flatten(0, 1)
    if name.endswith(".running_var"):
        return tensor + (norm_eps - EPS)
    return tensor
