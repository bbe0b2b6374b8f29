from __future__ import annotations

import dataclasses
import json

import pytest

from detdistill import detectors
from detdistill.detectors.architecture import Preprocessing
from detdistill.detectors.backbones import Backbone
from detdistill.errors import UserError

CLASSES = [f"class {i}" for i in range(12)]


def parameters(name: str) -> int:
    return sum(p.numel() for p in detectors.build(name, CLASSES).parameters())


def test_the_small_presets_have_the_size_of_the_benchmark() -> None:
    assert parameters("gfl-mini-w32") == 785_171
    assert parameters("gfl-mini-w8") == parameters("gfl-quick-w8") == 125_627


def test_the_head_of_a_quick_detector_starts_wider() -> None:
    mini, quick = (
        detectors.build(f"gfl-{kind}-w8", CLASSES).head.cls_tower[0].conv.weight.std().item()
        for kind in ("mini", "quick")
    )
    assert mini == pytest.approx(0.01, rel=0.1)
    assert quick == pytest.approx(0.083, rel=0.1)


def test_the_full_size_detector_is_the_one_of_the_paper() -> None:
    spec = detectors.build("gfl-r50-w0.25", CLASSES).spec
    assert spec.strides == (8, 16, 32, 64, 128)
    assert (spec.channels, spec.tower_depth, spec.bins) == (256, 4, 17)
    assert spec.backbone_channels == (128, 256, 512)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("gfl-r101", Backbone(name="resnet101")),
        ("gfl-r50-w0.25", Backbone(name="resnet50", width=16)),
        ("gfl-r50-caffe", Backbone(name="resnet50", style="caffe")),
        ("atss-x101-64x4d", Backbone(name="resnext101_64x4d")),
        ("retinanet-mobilenetv2", Backbone(name="mobilenetv2")),
        ("fcos-swin-t-w0.5", Backbone(name="swin_t", width=32, drop_path=0.2)),
        ("gfl-timm/resnet18d", Backbone(name="timm/resnet18d")),
    ],
)
def test_names_stand_for_backbones(name: str, backbone: Backbone) -> None:
    found = detectors.describe(name, CLASSES).backbone
    assert found == dataclasses.replace(backbone, stages=(2, 3, 4))


def test_small_detectors_stand_on_any_backbone() -> None:
    detector = detectors.build("retinanet-quick-mobilenetv2-w32", CLASSES)
    assert detector.spec.strides == (4, 8, 16)
    assert detector.spec.backbone_channels == (16, 16, 48)
    swin = detectors.describe("gfl-mini-swin-t-w16", CLASSES).backbone
    assert swin == Backbone(name="swin_t", width=16, stages=(1, 2, 3))


def test_a_backbone_gets_pictures_as_its_weights_expect_them() -> None:
    usual, caffe, timm = (
        detectors.describe(name, CLASSES).preprocessing
        for name in ("gfl-r50", "gfl-r50-caffe", "gfl-timm/vit_tiny_patch16_224")
    )
    assert usual == Preprocessing()
    assert (caffe.bgr, caffe.std) == (True, (1.0, 1.0, 1.0))
    assert caffe.mean == usual.mean[::-1]
    assert timm.mean == timm.std == (127.5, 127.5, 127.5)


@pytest.mark.parametrize(
    ("family", "priors", "quality", "limit"),
    [
        ("gfl", 1, False, 0.6),
        ("atss", 1, True, 0.6),
        ("retinanet", 9, False, 0.5),
        ("fcos", 1, True, 0.6),
    ],
)
def test_families_are_configured_as_published(
    family: str, priors: int, quality: bool, limit: float
) -> None:
    detector = detectors.build(f"{family}-r18-w0.25", CLASSES)
    assert detector.spec.priors_per_cell == priors
    assert detector.spec.quality == quality
    assert detector.spec.strides == (8, 16, 32, 64, 128)
    assert (detector.spec.bins is None) == (family != "gfl")
    assert detector.architecture.selection.nms_iou == limit


def test_a_card_from_before_there_were_other_families_is_read() -> None:
    architecture = detectors.describe("gfl-mini-w8", CLASSES)
    card = detectors.to_card(architecture)
    new = ("extra_from", "extra_relu", "tower_bias", "level_scales", "quality_on", "points")
    for field in (*new, "anchor_octaves", "anchor_ratios"):
        del card[field]
    del card["backbone"]["style"], card["backbone"]["drop_path"]
    assert detectors.from_card(card) == architecture


def test_fcos_needs_a_limit_between_every_two_levels() -> None:
    architecture = detectors.describe("fcos-r18", CLASSES)
    with pytest.raises(UserError, match="3 levels needs 2 limits"):
        detectors.from_architecture(dataclasses.replace(architecture, extra_levels=0))


@pytest.mark.parametrize("name", detectors.names())
def test_every_name_describes_a_detector_that_survives_its_card(name: str) -> None:
    architecture = detectors.describe(name, CLASSES)
    card = json.loads(json.dumps(detectors.to_card(architecture)))
    assert detectors.from_card(card) == architecture


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gfl-r81", "gfl-r18"),
        ("gfk-r18", "Did you mean 'gfl-r18'"),
        ("gfl-mini", "gfl-mini-w8"),
        ("gfl-r18-w0.3", "1/64"),
        ("gfl-mini-w0", "width"),
        ("gfl-r34-caffe", "gfl-r34"),
        ("gfl-x101-32x4", "Did you mean 'gfl-x101-32x4d'"),
        ("gfl-mobilenetv3", "Did you mean 'gfl-mobilenetv2'"),
        ("gfl-swin", "Did you mean 'gfl-swin-t'"),
        ("gfl-quick-swin-t", "gfl-quick-swin-t-w8"),
        ("gfl-timm/resnet_eighteen", "timm has no model"),
        ("gfl-r18-w1.2.3", "Unknown detector"),
        ("gfl-", "Unknown detector"),
    ],
)
def test_an_unknown_name_answers_with_what_to_do(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        detectors.build(name, CLASSES)


def test_a_detector_needs_classes() -> None:
    with pytest.raises(UserError, match="at least one class"):
        detectors.build("gfl-mini-w8", [])


def test_a_card_of_something_else_is_refused() -> None:
    with pytest.raises(UserError, match="does not describe"):
        detectors.from_card({"model": "yolo"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet18"}, "Backbone has entries, not 'resnet18'"),
        ({"colour": "red"}, "colour"),
        ({"family": "yolo"}, "yolo"),
    ],
)
def test_a_card_with_foreign_entries_is_refused(change: dict[str, object], message: str) -> None:
    card = detectors.to_card(detectors.describe("gfl-mini-w8", CLASSES))
    with pytest.raises(UserError, match=message):
        detectors.from_card({**card, **change})
