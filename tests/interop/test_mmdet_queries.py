"""Deformable DETR by MMDetection's names, of which no recorded numbers exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.interop import mmdet
from detdistill.interop.mmdet import config as configs
from detdistill.interop.mmdet.convert import describe

pytest.importorskip("transformers")

CONFIG = """
model = dict(
    type='DeformableDETR', num_queries=7, num_feature_levels=4, with_box_refine=REFINE,
    as_two_stage=False,
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=1),
    backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3),
        frozen_stages=1, norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True,
        style='pytorch'),
    neck=dict(type='ChannelMapper', in_channels=[16, 32, 64], kernel_size=1, out_channels=32,
        act_cfg=None, norm_cfg=dict(type='GN', num_groups=8), num_outs=4),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=dict(embed_dims=32, batch_first=True),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=48, ffn_drop=0.1))),
    decoder=dict(num_layers=2, return_intermediate=True, post_norm_cfg=None, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=32, num_heads=8, dropout=0.1, batch_first=True),
        cross_attn_cfg=dict(embed_dims=32, batch_first=True),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=48, ffn_drop=0.1))),
    positional_encoding=dict(num_feats=16, normalize=True, offset=-0.5),
    bbox_head=dict(type='DeformableDETRHead', num_classes=3, embed_dims=32,
        sync_cls_avg_factor=True, loss_cls=dict(type='FocalLoss'), loss_bbox=dict(type='L1Loss'),
        loss_iou=dict(type='GIoULoss')),
    test_cfg=dict(max_per_img=5))
"""
CLASSES = ("apple", "bolt", "cup")
THEIRS = (
    (r"neck\.lateral\.(\d)\.conv", r"neck.convs.\1.conv"),
    (r"neck\.lateral\.(\d)\.norm", r"neck.convs.\1.gn"),
    (r"neck\.extra\.(\d)\.conv", r"neck.extra_convs.\1.conv"),
    (r"neck\.extra\.(\d)\.norm", r"neck.extra_convs.\1.gn"),
    (r"encoder\.level_embed", r"level_embed"),
    (r"head\.queries", r"query_embedding"),
    (r"head\.reference_points", r"reference_points_fc"),
    (r"head\.cls\.(\d)", r"bbox_head.cls_branches.\1"),
    (r"head\.box\.(\d)\.layers\.0", r"bbox_head.reg_branches.\1.0"),
    (r"head\.box\.(\d)\.layers\.1", r"bbox_head.reg_branches.\1.2"),
    (r"head\.box\.(\d)\.layers\.2", r"bbox_head.reg_branches.\1.4"),
    (r"head\.layers", r"decoder.layers"),
    (r"(decoder\.layers\.\d)\.final_layer_norm", r"\1.norms.2"),
    (r"(decoder\.layers\.\d)\.encoder_attn_layer_norm", r"\1.norms.1"),
    (r"(encoder\.layers\.\d)\.final_layer_norm", r"\1.norms.1"),
    (r"(coder\.layers\.\d)\.self_attn_layer_norm", r"\1.norms.0"),
    (r"(decoder\.layers\.\d)\.encoder_attn", r"\1.cross_attn"),
    (r"mlp\.fc1", r"ffn.layers.0.0"),
    (r"mlp\.fc2", r"ffn.layers.1"),
    (r"self_attn\.o_proj", r"self_attn.attn.out_proj"),
)
OF_2X = (
    (r"^(encoder|decoder|level_embed)", r"bbox_head.transformer.\1"),
    (r"level_embed$", r"level_embeds"),
    (r"^reference_points_fc", r"bbox_head.transformer.reference_points"),
    (r"^query_embedding", r"bbox_head.query_embedding"),
    (r"\.self_attn\.", r".attentions.0."),
    (r"\.cross_attn\.", r".attentions.1."),
    (r"\.ffn\.", r".ffns.0."),
)


def text(*, refine: bool) -> str:
    return CONFIG.replace("REFINE", str(refine))


def fresh(*, refine: bool) -> Detector:
    torch.manual_seed(0)
    config = configs.parse(text(refine=refine), "a test")
    built = detectors.from_architecture(describe(config, CLASSES)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def renamed(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in patterns:
        name = re.sub(ours, theirs, name)
    return name


def as_mmdet(detector: Detector, *, refine: bool) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor; the branches of every stage, shared or not."""
    state = {renamed(name, THEIRS): tensor for name, tensor in detector.state_dict().items()}
    for i in range(2):
        for part in ("weight", "bias"):
            letters = [f"decoder.layers.{i}.self_attn.{letter}_proj.{part}" for letter in "qkv"]
            packed = torch.cat([state.pop(letter) for letter in letters])
            state[f"decoder.layers.{i}.self_attn.attn.in_proj_{part}"] = packed
    if not refine:
        branches = [name for name in state if re.match(r"bbox_head\.\w+_branches\.0", name)]
        state |= {name.replace("branches.0", "branches.1"): state[name] for name in branches}
    return state


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_its_weights_find_their_places(tmp_path: Path, version: int, *, refine: bool) -> None:
    original = fresh(refine=refine)
    state = as_mmdet(original, refine=refine)
    if version == 2:
        state = {renamed(name, OF_2X): tensor for name, tensor in state.items()}
    meta = {"cfg": text(refine=refine), "dataset_meta": {"classes": CLASSES}}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "a.pth")
    imported = mmdet.load(tmp_path / "a.pth")
    assert imported.report.complete
    assert imported.detector.architecture == original.architecture
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        found, expected = imported.detector.eval()(images).queries, original(images).queries
    assert torch.equal(torch.stack(found.boxes), torch.stack(expected.boxes))
    assert torch.equal(torch.stack(found.logits), torch.stack(expected.logits))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("as_two_stage=False", "as_two_stage=True", "model.as_two_stage = True"),
        ("offset=-0.5", "offset=0.0", "model.positional_encoding.offset = 0.0"),
        ("type='ChannelMapper'", "type='FPN'", "model.neck.type = 'FPN'"),
        ("cross_attn_cfg=dict(", "cross_attn_cfg=dict(num_points=2, ", "cross_attn_cfg"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(old: str, new: str, message: str) -> None:
    config = configs.parse(text(refine=False).replace(old, new), "a test")
    with pytest.raises(UserError) as refusal:
        describe(config, CLASSES)
    assert message in str(refusal.value)
