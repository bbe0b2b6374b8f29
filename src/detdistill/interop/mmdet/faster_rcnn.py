"""MMDetection's Faster R-CNN with FPN as ours."""

from __future__ import annotations

from detdistill.detectors.region_architecture import (
    Proposing,
    RegionArchitecture,
    RegionSelection,
    Sampling,
)
from detdistill.interop.mmdet import backbones, parts
from detdistill.interop.mmdet.config import Config
from detdistill.interop.mmdet.section import UNREAD, Section
from detdistill.interop.transfer import Rules

RPN_STDS = (1.0, 1.0, 1.0, 1.0)
HEAD_STDS = (0.1, 0.1, 0.2, 0.2)
LOSSES = ("loss_cls", "loss_bbox")
FIRST = Sampling(number=256, positive_share=0.5)
SECOND = Sampling(number=512, positive_share=0.25)


def architecture(config: Config, model: Section, classes: tuple[str, ...]) -> RegionArchitecture:
    """The detector that a config's model describes.

    Raises:
        UserError: something in it cannot be built here.
    """
    neck, rpn, head = (model.section(key) for key in ("neck", "rpn_head", "roi_head"))
    head.of_type("StandardRoIHead")
    neck.require("start_level", [0], default=0)
    backbone = backbones.backbone(model.section("backbone"), first=0)
    channels, extra = parts.pyramid(neck, len(backbone.stages))
    neck.require("num_outs", [len(backbone.stages), len(backbone.stages) + 1])
    neck.finish()
    test, train = (model.section(f"{mode}_cfg", {}) for mode in ("test", "train"))
    anchors = parts.anchors(_first_stage(rpn, channels))
    second = head.section("bbox_head")
    found = RegionArchitecture(
        backbone=backbone,
        classes=classes,
        neck_channels=channels,
        subsampled_level=bool(extra),
        anchor_scale=anchors["scale"],
        anchor_ratios=anchors["ratios"],
        train_proposals=_proposing(train.section("rpn_proposal", {"nms_pre": 2000})),
        test_proposals=_proposing(test.section("rpn")),
        anchor_sampling=_sampling(train.section("rpn", {}), FIRST),
        region_sampling=_sampling(train.section("rcnn", {}), SECOND),
        pool_size=second.get("roi_feat_size", 7),
        finest_scale=float(_pooling(head, channels).get("finest_scale", 56)),
        hidden_channels=second.get("fc_out_channels", 1024),
        preprocessing=parts.preprocessing(config, model),
        selection=_selection(test.section("rcnn")),
    )
    rpn.section("anchor_generator").require("strides", [found.strides])
    head.section("bbox_roi_extractor").require("featmap_strides", [found.pooled_strides])
    parts.check_classes(second, classes)
    _second_stage(second, channels)
    head.skip(*UNREAD)
    head.finish()
    model.skip("type", *UNREAD)
    model.finish()
    return found


def names(built: RegionArchitecture) -> Rules:
    """What MMDetection calls our weights."""
    return (
        *parts.names(built.backbone),
        (r"rpn_head\.rpn_conv\.", r"rpn.convs.conv.0.0."),
        (r"rpn_head\.rpn_cls\.", r"rpn.convs.cls_logits."),
        (r"rpn_head\.rpn_reg\.", r"rpn.convs.bbox_pred."),
        (r"roi_head\.bbox_head\.shared_fcs\.0\.", r"head.layers.fc6."),
        (r"roi_head\.bbox_head\.shared_fcs\.1\.", r"head.layers.fc7."),
        (r"roi_head\.bbox_head\.fc_(cls|reg)\.", r"head.\1."),
    )


def _first_stage(rpn: Section, channels: int) -> Section:
    """Checks the proposals' head; its anchors remain to be read."""
    rpn.of_type("RPNHead")
    rpn.require("in_channels", [channels])
    rpn.require("feat_channels", [channels], default=256)
    rpn.require("num_convs", [1], default=1)
    parts.check_coder(rpn, RPN_STDS, RPN_STDS)
    rpn.skip(*LOSSES, *UNREAD)
    anchors = rpn.section("anchor_generator")
    anchors.require("center_offset", [0.0], default=0.0)
    anchors.require("scales_per_octave", [1], default=1)
    rpn.finish()
    return anchors


def _second_stage(head: Section, channels: int) -> None:
    """Checks what looks into the proposals."""
    head.of_type("Shared2FCBBoxHead")
    head.require("in_channels", [channels], default=256)
    head.require("reg_class_agnostic", [False], default=False)
    parts.check_coder(head, HEAD_STDS, HEAD_STDS)
    head.skip("roi_feat_size", *LOSSES, *UNREAD)
    head.finish()


def _pooling(head: Section, channels: int) -> Section:
    """How features of a region are taken from the pyramid."""
    extractor = head.section("bbox_roi_extractor")
    extractor.of_type("SingleRoIExtractor")
    extractor.require("out_channels", [channels])
    extractor.skip("featmap_strides", "finest_scale", *UNREAD)
    layer = extractor.section("roi_layer")
    layer.of_type("RoIAlign")
    size = head.section("bbox_head").get("roi_feat_size", 7)
    layer.require("output_size", [size, (size, size)])
    layer.require("sampling_ratio", [0, -1], default=0)
    layer.require("aligned", [True], default=True)
    layer.finish()
    extractor.finish()
    return extractor


def _proposing(section: Section) -> Proposing:
    """Which boxes become proposals; 2.x has its own words for the same."""
    section.require("min_bbox_size", [0], default=0)
    section.require("nms_across_levels", [False], default=False)
    number = section.get("nms_post", section.get("max_num", 1000))
    nms = section.section("nms", {"type": "nms", "iou_threshold": section.get("nms_thr", 0.7)})
    nms.of_type("nms")
    found = Proposing(
        per_level=section.count("nms_pre", 1000),
        nms_iou=nms.get("iou_threshold"),
        per_image=section.count("max_per_img", number),
    )
    nms.finish()
    section.finish()
    return found


def _sampling(section: Section, default: Sampling) -> Sampling:
    """On how much a stage was trained."""
    sampler = section.section("sampler", {})
    return Sampling(
        number=sampler.get("num", default.number),
        positive_share=sampler.get("pos_fraction", default.positive_share),
    )


def _selection(section: Section) -> RegionSelection:
    """Which regions become detections."""
    nms = section.section("nms")
    nms.of_type("nms")
    found = RegionSelection(
        min_score=section.get("score_thr"),
        nms_iou=nms.get("iou_threshold", nms.get("iou_thr")),
        per_image=section.count("max_per_img"),
    )
    nms.finish()
    section.finish()
    return found
