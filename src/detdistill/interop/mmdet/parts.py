"""What MMDetection's detectors have in common: backbone, pyramid, normalisation, selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from detdistill.detectors.architecture import Preprocessing, Selection
from detdistill.detectors.backbones import Backbone
from detdistill.errors import UserError
from detdistill.interop.mmdet import backbones
from detdistill.interop.mmdet.config import Config
from detdistill.interop.mmdet.section import UNREAD, Section
from detdistill.interop.transfer import Rules


def pyramid(section: Section, levels: int) -> tuple[int, int]:
    """Channels of an FPN over `levels` stages, and how many levels it adds to them.

    What these are made from remains to be asked.
    """
    section.of_type("FPN")
    section.require("end_level", [-1, levels - 1], default=-1)
    section.require("upsample_cfg", [{"mode": "nearest"}], default={"mode": "nearest"})
    for key in ("norm_cfg", "act_cfg", "conv_cfg"):
        section.require(key, [None])
    section.skip("in_channels", "start_level", *UNREAD)
    return section.get("out_channels", 256), section.get("num_outs", levels) - levels


def preprocessing(config: Config, model: Section) -> Preprocessing:
    """How pixels are normalised: 3.x says it in the model, 2.x in the pipelines."""
    values = model.get("data_preprocessor")
    if values is None:
        values = config.get("img_norm_cfg") or next(_steps(config, "Normalize"), None)
    section = Section(values, "data_preprocessor or img_norm_cfg")
    to_rgb = section.get("bgr_to_rgb", section.get("to_rgb", False))
    return Preprocessing(
        mean=_per_channel(section.get("mean", (0, 0, 0))),
        std=_per_channel(section.get("std", (1, 1, 1))),
        bgr=not to_rgb,
    )


def _per_channel(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def resize(config: Config) -> tuple[int, int] | None:
    """Lengths of a picture's shorter and longer side in the test pipeline, if it says so."""
    data = config.get("data") or {}
    pipeline = config.get("test_pipeline") or data.get("test") or config.get("test_dataloader")
    for name in ("Resize", "MultiScaleFlipAug", "FixScaleResize"):
        for step in _steps(pipeline, name):
            scale = step.get("scale", step.get("img_scale"))
            if isinstance(scale, list | tuple) and [type(side) for side in scale] == [int, int]:
                return min(scale), max(scale)
    return None


def _steps(config: object, name: str) -> Iterator[Mapping[str, Any]]:
    """Every dictionary in a config that is of a type."""
    if isinstance(config, Mapping):
        if str(config.get("type", "")).rpartition(".")[2] == name:
            yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _steps(part, name)


def selection(section: Section) -> Selection:
    """Which predictions become detections."""
    section.require("min_bbox_size", [0], default=0)
    nms = section.section("nms")
    nms.of_type("nms")
    found = Selection(
        min_score=section.get("score_thr", 0.0),
        per_level=section.count("nms_pre"),
        nms_iou=nms.get("iou_threshold", nms.get("iou_thr")),
        per_image=section.count("max_per_img"),
    )
    nms.finish()
    section.finish()
    return found


def names(backbone: Backbone, extra: int = 0) -> Rules:
    """What MMDetection calls the weights of a backbone and of an FPN over its stages."""
    levels = len(backbone.stages)
    return (
        *backbones.names(backbone),
        (r"neck\.lateral_convs\.(\d+)\.conv\.", r"neck.fpn.inner_blocks.\1.0."),
        *(
            (rf"neck\.fpn_convs\.{levels + i}\.conv\.", rf"neck.fpn.extra_blocks.convs.{i}.")
            for i in range(extra)
        ),
        (r"neck\.fpn_convs\.(\d+)\.conv\.", r"neck.fpn.layer_blocks.\1.0."),
    )


def anchors(section: Section) -> dict[str, Any]:
    """Sizes and shapes of anchors; one size, or sizes that divide an octave evenly."""
    section.of_type("AnchorGenerator")
    section.require("scale_major", [True], default=True)
    section.skip("strides")
    scales = section.get("scales")
    if scales is not None:
        section.require("scales", [[scales[0]]])
    found = {
        "scale": float(scales[0] if scales else section.get("octave_base_scale")),
        "octaves": 1 if scales else section.get("scales_per_octave", 1),
        "ratios": tuple(map(float, section.get("ratios"))),
        "offset": float(section.get("center_offset", 0.0)),
    }
    section.finish()
    return found


def check_classes(head: Section, classes: Sequence[str]) -> None:
    """There must be as many names as the head has classes."""
    number = head.get("num_classes", 80)
    if number != len(classes):
        names = shorten(", ".join(classes), 60, placeholder=" ...")
        raise UserError(
            f"The config says that {head.place} knows {number} classes, but {len(classes)} are "
            f"named ({names}): name them all, in order, with --classes."
        )


def check_coder(head: Section, stds: tuple[float, ...], default: tuple[float, ...]) -> None:
    """Deltas of a box must be scaled as ours are."""
    coder = head.section("bbox_coder", {"type": "DeltaXYWHBBoxCoder", "target_stds": default})
    coder.of_type("DeltaXYWHBBoxCoder")
    coder.require("target_means", [(0.0, 0.0, 0.0, 0.0)], default=(0.0, 0.0, 0.0, 0.0))
    coder.require("target_stds", [stds], default=default)
    coder.skip("clip_border")
    coder.finish()
