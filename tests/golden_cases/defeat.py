"""DeFeat: its masks, its neck and backbone terms, its proposals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import cast

import torch
from tests.golden_cases.case import Case, MismatchError
from tests.golden_cases.heads import truth_of
from tests.golden_cases.necks import anchors, made, with_anchors
from torch import Tensor, nn

from detdistill import masks
from detdistill.levels import Levels, per_cell, unflatten
from detdistill.methods.defeat import DeFeat
from detdistill.structures import Step

NECK_MASKS = {
    "mask-neck-gt": "boxes",
    "mask-neck-roi": "fine",
    "mask-neck-gaussian": "gaussian",
    "mask-neck-one": "none",
}
SWITCHES = {"neck-adapt", "neck-decouple", "pixel-wise", "mask-bb-gt", "bb-adapt", "bb-decouple"}


# Masks


def mask(case: Case) -> Mapping[str, Tensor]:
    case.fixed(finest_scale=56, center_offset=0)
    ratios, scales = case.setting("anchor_ratios"), case.setting("anchor_scales")
    (height, width), strides = case.setting("image_hw"), case.setting("strides")
    truth = truth_of(case)
    neck = tuple(torch.zeros(len(truth.boxes), 1, -(-height // s), -(-width // s)) for s in strides)
    priors = tuple(
        anchors(level, s, ratios, scales) for level, s in zip(neck, strides, strict=True)
    )
    for made_here, recorded in zip(priors, case.levels("anchors"), strict=False):
        if len(recorded) and not torch.allclose(made_here.to(recorded), recorded):
            raise MismatchError("the anchors differ")
    fine = masks.fine_grained(priors, truth, ratio=case.setting("phi"), scope="own")
    whole = (neck[0].shape[-2], neck[0].shape[-1])
    by_level = {
        "gt_mask": masks.pyramid(masks.object_cells, truth, neck, strides),
        "gaussian_mask": masks.pyramid(masks.gaussian_cells, truth, neck, strides),
        "fgfi_mask": unflatten(per_cell(fine, neck), neck),
        "target_lvls": [
            masks.object_level(boxes.double(), len(strides)) for boxes in case.levels("gt_bboxes")
        ],
    }
    numbered = {f"{name}_{i}": one for name, ones in by_level.items() for i, one in enumerate(ones)}
    return {**numbered, "bb_gt_mask": masks.object_cells(truth, whole, strides[0])}


# Neck and backbone


def neck(case: Case) -> Mapping[str, Tensor]:
    """Any combination of the switches of the released code."""
    case.setting("image_hw")
    switches = set(case.setting("type").split(","))
    kinds = [kind for switch, kind in NECK_MASKS.items() if switch in switches]
    if switches - SWITCHES - set(NECK_MASKS) or len(kinds) != 1:
        raise MismatchError(f"cannot compute type {case.setting('type')}")
    settings: dict[str, object] = {
        "mask": kinds[0],
        "adapter": "conv3" if "neck-adapt" in switches else "none",
        "object_weight": case.setting("hint_neck_w"),
    }
    if "neck-decouple" in switches:
        settings["background_weight"] = case.setting("hint_neck_back_w")
    if "mask-bb-gt" in switches:
        case.fixed(bb_indices=[1, 2, 3])
        settings["backbone"] = True
        settings["backbone_adapter"] = "conv3" if "bb-adapt" in switches else "none"
        settings["backbone_object_weight"] = case.setting("hint_bb_w")
    if "bb-decouple" in switches:
        settings["backbone_background_weight"] = case.setting("hint_bb_back_w")
    method, step = _scene(case, settings)
    terms = {name: term for name, term in method(step).items() if f"{name}_weight" in settings}
    names = {
        "object": "losskd_neck",
        "background": "losskd_neck_back",
        "backbone_object": "losskd_bb",
        "backbone_background": "losskd_bb_back",
    }
    return {"loss": sum(terms.values()), **{names[name]: term for name, term in terms.items()}}


def _scene(case: Case, settings: Mapping[str, object]) -> tuple[DeFeat, Step]:
    """The method with the recorded adapters, and the step, whose masks are the recorded ones."""
    student, teacher = case.leaf_levels("stu"), case.levels("tea")
    stages = (case.leaf_levels("bb_stu"), case.levels("bb_tea"))
    strides = tuple(case.setting("strides"))
    widths = tuple(stage.shape[1] for stage in stages[0])
    method, step = made(
        "defeat", settings, student, teacher, strides, priors_per_cell=3, backbone_channels=widths
    )
    method = cast("DeFeat", method)
    priors = tuple(anchors(level, s).to(level) for level, s in zip(student, strides, strict=True))
    step = with_anchors(dataclasses.replace(step, truth=truth_of(case)), priors, strides)
    step = dataclasses.replace(
        step,
        student=dataclasses.replace(step.student, backbone=stages[0]),
        teacher=dataclasses.replace(step.teacher, backbone=stages[1]),
    )
    _load(case, method.adapters, "adapt")
    if method.backbone:
        _load(case, method.backbone_adapters, "bb_adapt")
        cells = masks.object_cells(step.truth, tuple(student[0].shape[-2:]), strides[0])
        _same((cells,), (case["bb_mask"],))
    _same(method.cells(step), case.levels("mask"))
    return method, step


def _load(case: Case, layers: nn.ModuleList, name: str) -> None:
    """Recorded weights into the convolutions; their gradients will be compared."""
    for i, layer in enumerate(layers):
        for conv in (part for part in layer.modules() if isinstance(part, nn.Conv2d)):
            for part, parameter in (("w", conv.weight), ("b", conv.bias)):
                key = f"{name}_{part}_{i}"
                parameter.data = case[key]
                case.leaves[key] = parameter


def _same(cells: Levels, recorded: Levels) -> None:
    if any((a != b).any() for a, b in zip(cells, recorded, strict=True)):
        raise MismatchError("a mask differs")


# Proposals


def cls(case: Case) -> Mapping[str, Tensor]:
    """The released code takes the largest label for background, and one temperature for both."""
    case.fixed(type="head-cls,KL-decouple")
    case.setting("head_cls_back_T")
    case.setting("num_classes")
    temperature, labels = case.setting("head_cls_T"), case["labels"]
    settings = {
        "positive_weight": case.setting("head_cls_w"),
        "negative_weight": case.setting("head_cls_back_w"),
        "positive_temperature": temperature,
        "negative_temperature": temperature,
    }
    nothing = (torch.zeros(1, 1, 1, 1),)
    method, step = made("defeat", settings, nothing, nothing)
    negative = labels == labels.max()
    terms = cast("DeFeat", method).divergences(
        case.leaf("cls_s"), case["cls_t"], (~negative, negative), step
    )
    return {
        "loss": terms["positive"] + terms["negative"],
        "losskd_hcls": terms["positive"],
        "losskd_hcls_back": terms["negative"],
    }
