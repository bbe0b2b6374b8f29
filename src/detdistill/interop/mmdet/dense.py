"""MMDetection's one-stage detectors as ours: GFL, ATSS, RetinaNet, FCOS."""

from __future__ import annotations

from typing import Any

from detdistill.detectors.architecture import Architecture, Points
from detdistill.interop.mmdet import backbones, parts
from detdistill.interop.mmdet.config import Config
from detdistill.interop.mmdet.section import UNREAD, Section
from detdistill.interop.transfer import Rules

FAMILIES = {
    "GFLHead": "gfl",
    "LDHead": "gfl",
    "ATSSHead": "atss",
    "RetinaHead": "retinanet",
    "FCOSHead": "fcos",
}
"""By the type of `bbox_head`."""
EXTRA = [True, "on_input", "on_output"]
"""What extra levels can be made from; True is the backbone's last stage."""
DISTILLER = ("kd_cfg", "teacher_config", "teacher_ckpt", "eval_teacher")
"""A distiller's checkpoint holds its student; these describe the teacher beside it."""
GN = {"type": "GN", "num_groups": 32}
DISTANCES = {"type": "DistancePointBBoxCoder"}
UNIT_STDS = (1.0, 1.0, 1.0, 1.0)
ATSS_STDS = (0.1, 0.1, 0.2, 0.2)
FCOS_STRIDES = (4, 8, 16, 32, 64)
FCOS_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
RETINA_ANCHORS = {
    "type": "AnchorGenerator",
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": [0.5, 1.0, 2.0],
    "strides": [8, 16, 32, 64, 128],
}


def architecture(config: Config, model: Section, classes: tuple[str, ...]) -> Architecture:
    """The detector that a config's model describes.

    Raises:
        UserError: something in it cannot be built here.
    """
    head, neck = model.section("bbox_head"), model.section("neck")
    family = FAMILIES[head.of_type(*FAMILIES)]
    backbone = backbones.backbone(model.section("backbone"), neck.get("start_level", 0))
    channels, extra = parts.pyramid(neck, len(backbone.stages))
    test = Section(model.get("test_cfg") or config.get("test_cfg"), "model.test_cfg")
    found = Architecture(
        family=family,
        backbone=backbone,
        classes=classes,
        preprocessing=parts.preprocessing(config, model),
        selection=parts.selection(test),
        neck_channels=channels,
        extra_levels=extra,
        **_extra_levels(neck, extra),
        **_towers(head),
        **_family(family, head),
    )
    parts.check_classes(head, classes)
    head.require("in_channels", [found.neck_channels])
    _check_strides(head, found)
    head.skip("loss_cls", "loss_bbox", "loss_dfl", "loss_centerness", "loss_ld", *UNREAD)
    head.finish()
    model.skip("type", "train_cfg", *DISTILLER, *UNREAD)
    model.finish()
    return found


def names(built: Architecture) -> Rules:
    """What MMDetection calls our weights."""
    return (
        *parts.names(built.backbone, built.extra_levels),
        (r"bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.", r"head.\1_tower.\2.conv."),
        (r"bbox_head\.(cls|reg)_convs\.(\d+)\.gn\.", r"head.\1_tower.\2.norm."),
        (r"bbox_head\.(?:gfl|atss|retina|fcos|conv)_(cls|reg)\.", r"head.\1."),
        (r"bbox_head\.(?:atss_|fcos_|conv_)centerness\.", r"head.quality."),
        (r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1"),
    )


def _extra_levels(neck: Section, extra: int) -> dict[str, Any]:
    """What they are made from; 2.x also has `add_extra_convs=True`, `extra_convs_on_inputs`."""
    neck.require("add_extra_convs", EXTRA if extra else [False, *EXTRA], default=False)
    on_input = neck.get("extra_convs_on_inputs", default=True)
    on_output = neck.get("add_extra_convs") == "on_output" or not on_input
    relu = neck.get("relu_before_extra_convs", default=False)
    neck.finish()
    return {"extra_from": "output" if on_output else "backbone", "extra_relu": relu}


def _towers(head: Section) -> dict[str, Any]:
    """Depth, width and norm of the head's towers."""
    head.require("conv_cfg", [None])
    default = None if head.type == "RetinaHead" else GN
    values = head.get("norm_cfg", default)
    groups = 0
    if values is not None:
        norm = Section(values, f"{head.place}.norm_cfg")
        norm.of_type("GN")
        norm.skip("requires_grad")
        groups = norm.get("num_groups")
        norm.finish()
    return {
        "tower_depth": head.get("stacked_convs", 4),
        "tower_channels": head.get("feat_channels", 256),
        "norm_groups": groups,
    }


def _family(family: str, head: Section) -> dict[str, Any]:
    """What one family alone decides."""
    if family == "fcos":
        return _fcos(head)
    anchors = parts.anchors(head.section("anchor_generator", RETINA_ANCHORS))
    found = {f"anchor_{name}": value for name, value in anchors.items()}
    if family == "gfl":
        head.section("bbox_coder", DISTANCES).of_type("DistancePointBBoxCoder")
        return {**found, "reg_max": head.get("reg_max", 16)}
    parts.check_coder(head, ATSS_STDS if family == "atss" else UNIT_STDS, UNIT_STDS)
    if family == "atss":
        head.require("pred_kernel_size", [3], default=3)
        head.skip("reg_decoded_bbox")
        return {**found, "quality_on": "reg"}
    return {**found, "level_scales": False}


def _fcos(head: Section) -> dict[str, Any]:
    """Points instead of anchors."""
    ranges = head.get("regress_ranges", FCOS_RANGES)
    limits = tuple(float(high) for _, high in ranges[:-1])
    if [low for low, _ in ranges] != [-1, *limits]:
        raise head.refusal("regress_ranges", ranges, "ranges that follow each other from -1 on")
    head.section("bbox_coder", DISTANCES).of_type("DistancePointBBoxCoder")
    radius = head.get("center_sample_radius", 1.5)
    box_loss = Section(head.get("loss_bbox", {"type": "IoULoss"}), f"{head.place}.loss_bbox").type
    return {
        "quality_on": "reg" if head.get("centerness_on_reg", False) else "cls",
        "tower_bias": head.require("conv_bias", ["auto", True], default="auto") is True,
        "anchor_scale": 0.0,
        "anchor_offset": 0.5,
        "points": Points(
            limits=limits,
            radius=radius if head.get("center_sampling", False) else None,
            in_strides=head.get("norm_on_bbox", False),
            box_loss="giou" if box_loss == "GIoULoss" else "iou",
        ),
    }


def _check_strides(head: Section, found: Architecture) -> None:
    """The head's strides must be those of the pyramid's levels."""
    if found.family == "fcos":
        head.require("strides", [found.strides], default=FCOS_STRIDES)
    else:
        head.section("anchor_generator", RETINA_ANCHORS).require("strides", [found.strides])
