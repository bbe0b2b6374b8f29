"""Detectors of torchvision against ours with the same random weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from detdistill.detectors.selection import select
from detdistill.errors import UserError
from detdistill.interop import foreign, torchvision

SIZE = (96, 160)
CLASSES = ["apple", "bolt", "cup", "duck"]
MANY = 10_000


LIMIT = {False: "detections_per_img", True: "box_detections_per_img"}
DENSE = [name for name in torchvision.PRESETS if not name.startswith("faster")]


def two_stage(preset: str) -> bool:
    return preset not in DENSE


@cache
def original(preset: str) -> nn.Module:
    """With lively random weights, and a first class, the background, that is never seen."""
    torch.manual_seed(0)
    build = getattr(detection, preset)
    built = build(
        weights=None,
        weights_backbone=None,
        num_classes=len(CLASSES) + 1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        **{LIMIT[two_stage(preset)]: MANY},
    ).eval()
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        if two_stage(preset):
            built.rpn.head.cls_logits.weight.mul_(0.3)
            built.rpn.head.bbox_pred.weight.mul_(0.03)
            built.roi_heads.box_predictor.bbox_pred.weight.mul_(0.1)
            built.roi_heads.box_predictor.cls_score.weight.mul_(2)
            return built
        head = built.head.classification_head
        features = list(built.backbone(torch.randn(1, 3, *SIZE)).values())
        said = head(features)
        head.cls_logits.weight.mul_(2 / (said[0] if isinstance(said, tuple) else said).std())
        head.cls_logits.bias.zero_().view(-1, len(CLASSES) + 1)[:, 0] = -50
        built.head.regression_head.bbox_reg.bias.add_(0.5 if "fcos" in preset else 0.0)
    return built


def saved(folder: Path, preset: str) -> Path:
    torch.save(original(preset).state_dict(), folder / "a.pth")
    return folder / "a.pth"


def in_order(boxes: Tensor, scores: Tensor, labels: Tensor) -> list[tuple[float, ...]]:
    """Rows without those that have no area, which only torchvision keeps."""
    seen = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    rows = torch.cat([scores[seen, None], labels[seen, None], boxes[seen]], dim=1)
    return sorted(map(tuple, rows.tolist()), key=lambda row: (row[1], *row[2:]))


@pytest.mark.parametrize("preset", DENSE)
def test_outputs_and_detections_are_the_same(tmp_path: Path, preset: str) -> None:
    theirs = original(preset)
    imported = torchvision.load(saved(tmp_path, preset), preset=preset, classes=CLASSES)
    ours = imported.detector.eval()
    assert imported.report.complete
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scaled, _ = theirs.transform([image])
        raw = theirs.head(list(theirs.backbone(scaled.tensors).values()))
        expected = theirs([image])[0]
        output = ours((255 * image).unsqueeze(0))
    logits = raw["cls_logits"][..., 1:]
    torch.testing.assert_close(output.dense.flat_logits(), logits, rtol=1e-4, atol=1e-4)
    settings = replace(ours.architecture.selection, per_image=MANY)
    found = select(output.dense, torch.tensor([SIZE]), settings)
    ours_in_order = in_order(found.boxes[0], found.scores[0], found.labels[0] + 1)
    theirs_in_order = in_order(expected["boxes"], expected["scores"], expected["labels"])
    assert len(ours_in_order) > 100
    torch.testing.assert_close(
        torch.tensor(ours_in_order), torch.tensor(theirs_in_order), rtol=1e-4, atol=1e-2
    )


def test_a_training_state_of_several_processes_is_unwrapped(tmp_path: Path) -> None:
    preset = DENSE[0]
    plain = original(preset).state_dict()
    state = {
        "model": {f"module.{name}": tensor for name, tensor in plain.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(lr=0.02, device="cuda", aspect_ratio_group_factor=3),
        "epoch": 25,
    }
    torch.save(state, tmp_path / "checkpoint.pth")
    found = torchvision.load(tmp_path / "checkpoint.pth", preset=preset, classes=CLASSES)
    wanted = torchvision.load(saved(tmp_path, preset), preset=preset, classes=CLASSES)
    assert found.report.complete
    for mine, theirs in zip(found.detector.parameters(), wanted.detector.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_both_stages_are_the_same(tmp_path: Path) -> None:
    preset = "fasterrcnn_resnet50_fpn"
    theirs = original(preset)
    imported = torchvision.load(saved(tmp_path, preset), preset=preset, classes=CLASSES)
    ours = imported.detector.eval()
    assert imported.report.complete
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scaled, _ = theirs.transform([image])
        features = theirs.backbone(scaled.tensors)
        proposals, _ = theirs.rpn(scaled, features)
        pooled = theirs.roi_heads.box_roi_pool(features, proposals, [SIZE])
        logits, boxes = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
        expected = theirs([image])[0]
        output = ours((255 * image).unsqueeze(0))
        found = ours.detect(output, torch.tensor([SIZE]))
        scores = ours.head.classify(output.neck, output.regions.proposals)
    valid = output.regions.proposals.valid[0]
    close = {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(output.regions.proposals.boxes[0][valid], proposals[0], **close)
    with_background_last = torch.cat([logits[:, 1:], logits[:, :1]], dim=1)
    torch.testing.assert_close(scores.logits[0][valid], with_background_last, **close)
    torch.testing.assert_close(scores.boxes[0][valid].flatten(1), boxes[:, 4:], **close)
    count = int(found.counts[0])
    most = min(count, 50)
    assert most == 50
    torch.testing.assert_close(found.scores[0, :most], expected["scores"][:most], **close)


def test_the_background_of_two_stages_is_the_first_row(tmp_path: Path) -> None:
    preset = "fasterrcnn_resnet50_fpn"
    with pytest.raises(UserError, match="Row 0"):
        torchvision.load(saved(tmp_path, preset), preset=preset, classes=["a", *CLASSES])
    names = ["__background__", "apple", "N/A", "bolt", "cup"]
    imported = torchvision.load(saved(tmp_path, preset), preset=preset, classes=names)
    predictor = original(preset).roi_heads.box_predictor
    assert torch.equal(imported.detector.head.cls.bias, predictor.cls_score.bias[[1, 3, 4, 0]])
    assert imported.detector.head.reg.bias.shape == (12,)
    assert len(imported.report.left_out) == 1


def test_rows_of_no_class_are_left_out(tmp_path: Path) -> None:
    preset = "retinanet_resnet50_fpn"
    names = ["__background__", "apple", "N/A", "bolt", "cup"]
    imported = torchvision.load(saved(tmp_path, preset), preset=preset, classes=names)
    assert imported.detector.spec.classes == ("apple", "bolt", "cup")
    weight = original(preset).head.classification_head.cls_logits.weight
    kept = weight.unflatten(0, (9, 5))[:, [1, 3, 4]].flatten(0, 1)
    assert torch.equal(imported.detector.head.cls.weight, kept)


def test_the_eighty_classes_of_coco_are_known() -> None:
    names = foreign.coco_names()
    assert len(names) == 80
    assert names[0] == "person"
    assert names[-1] == "toothbrush"


def test_norms_without_eps_are_the_same_too(tmp_path: Path) -> None:
    preset = "retinanet_resnet50_fpn"
    file = saved(tmp_path, preset)
    bare = torchvision.load(file, preset=preset, classes=CLASSES, norm_eps=0.0)
    usual = torchvision.load(file, preset=preset, classes=CLASSES)
    norms = (bare.detector.backbone.bn1, usual.detector.backbone.bn1)
    variance = original(preset).backbone.body.bn1.running_var
    torch.testing.assert_close(norms[0].running_var + norms[0].eps, variance)
    assert torch.equal(norms[1].running_var, variance)
    assert not bare.report.notes
    assert "--norm_eps 0" in usual.report.notes[0]


def test_mistakes_are_named(tmp_path: Path) -> None:
    file = saved(tmp_path, "fcos_resnet50_fpn")
    with pytest.raises(UserError, match=r"has 5 rows.*7 names"):
        torchvision.load(file, preset="fcos_resnet50_fpn", classes=list("abcdefg"))
    with pytest.raises(UserError, match="has 5 rows"):
        torchvision.load(file, preset="fcos_resnet50_fpn")
    with pytest.raises(UserError, match="Did you mean 'fcos_resnet50_fpn'"):
        torchvision.load(file, preset="fcos_resnet50")
    with pytest.raises(UserError, match="--preset retinanet_resnet50_fpn"):
        foreign.load("torchvision", file)
    with pytest.raises(UserError, match="--norm_eps"):
        foreign.load("mmdet", file, norm_eps=0.0)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="not the state dict"):
        torchvision.load(tmp_path / "b.pth", preset="fcos_resnet50_fpn")
