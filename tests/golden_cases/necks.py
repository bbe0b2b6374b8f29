"""Methods that compare necks: `pkd_`, `fgd_`, `mgd_`, `frs_`, `fgfi_`, `defeat_neck_`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from tests.golden_cases.case import Case, MismatchError
from tests.golden_cases.heads import truth_of
from torch import Tensor
from torch.nn import Module

from detdistill import masks
from detdistill.levels import Levels
from detdistill.methods import Method, combine
from detdistill.methods.fgd import FGD
from detdistill.methods.fgfi import FGFI
from detdistill.methods.mgd import MGD
from detdistill.methods.parts.attention import attention
from detdistill.methods.parts.necks import adapted
from detdistill.structures import (
    BoxCoder,
    DensePredictions,
    DetectorOutput,
    Head,
    Spec,
    Step,
    Targets,
    Truth,
)


def pkd(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6, unbiased=True)
    settings = {"weight": case.setting("loss_weight"), "lone": False}
    terms = _run("pkd", settings, (case.leaf("pred"),), (case["target"],), strides=(8,))
    return {"loss": terms["level0"]}


def pkd_resize(case: Case) -> Mapping[str, Tensor]:
    settings = {
        "weight": case.setting("loss_weight"),
        "resize": "student" if case.setting("resize_stu") else "teacher",
        "lone": False,
    }
    terms = _run("pkd", settings, (case.leaf("pred_S"),), (case["pred_T"],), strides=(8,))
    return {"loss": terms["level0"]}


def fitnet(case: Case) -> Mapping[str, Tensor]:
    case.fixed(type="mask-neck-one,pixel-wise")
    case.setting("image_hw")
    if not all((mask == 1).all() for mask in case.levels("mask")):
        raise MismatchError("a mask is not all ones")
    terms = _run(
        "fitnet",
        {"weight": case.setting("hint_neck_w")},
        case.leaf_levels("stu"),
        case.levels("tea"),
        strides=tuple(case.setting("strides")),
    )
    total = sum(terms.values(), terms["level0"].new_zeros(()))
    return {"loss": total, "losskd_neck": total}


# FGD


def fgd(case: Case) -> Mapping[str, Tensor]:
    case.fixed(layernorm_eps=1e-5)
    settings = {
        "foreground_weight": case.setting("alpha_fgd"),
        "background_weight": case.setting("beta_fgd"),
        "attention_weight": case.setting("gamma_fgd"),
        "relation_weight": case.setting("lambda_fgd"),
        "temperature": case.setting("temp"),
    }
    method, step = made("fgd", settings, (case.leaf("pred_S"),), (case["pred_T"],))
    method = cast("FGD", method)
    sizes = torch.tensor(case.setting("img_shapes"))
    step = dataclasses.replace(step, truth=truth_of(case, sizes))
    _load(method.adapters[0], case, "align")
    for ours, role in ((method.student_context[0], "s"), (method.teacher_context[0], "t")):
        _load(ours.mask, case, f"conv_mask_{role}", ignored=("bias",))
        for layer, i in ((ours.narrow, 0), (ours.norm, 1), (ours.widen, 3)):
            _load(layer, case, f"channel_add_conv_{role}__{i}")
    ((student, teacher),) = adapted(method.adapters, step)
    parts = method.level(0, student, teacher, step)
    cells, channels = attention(case["pred_T"], case.setting("temp"))
    foreground, background = method.shares(0, step)
    return {
        "loss": torch.stack(list(method(step).values())).sum(),
        "fg": parts["foreground"],
        "bg": parts["background"],
        "mask": parts["attention"],
        "rela": parts["relation"],
        "S_attention_t": cells,
        "C_attention_t": channels,
        "Mask_fg": foreground,
        "Mask_bg": background,
    }


def _load(layer: Module, case: Case, name: str, ignored: tuple[str, ...] = ()) -> None:
    """Recorded weights into a layer; gradients of them will be compared."""
    layer.to(case.dtype)
    for ours, parameter in layer.named_parameters():
        key = f"w_{name}__{ours.replace('.', '__')}"
        parameter.data = case[key].reshape(parameter.shape)
        if f"grad_{key}" in case:
            case.leaves[key] = parameter
    parts = (*dict(layer.named_parameters()), *ignored)
    known = {f"w_{name}__{part.replace('.', '__')}" for part in parts}
    if extra := {key for key in case.arrays if key.startswith(f"w_{name}__")} - known:
        raise MismatchError(f"nothing takes {sorted(extra)}")


# MGD


def mgd(case: Case) -> Mapping[str, Tensor]:
    settings = {"weight": case.setting("alpha_mgd"), "blank": case.setting("lambda_mgd")}
    method, step = made("mgd", settings, (case.leaf("pred_S"),), (case["pred_T"],))
    method = cast("MGD", method)
    _load(method.adapters[0], case, "align")
    _load(method.generators[0], case, "generation")
    method.chance = lambda *_: case["rand"]  # type: ignore[method-assign]
    return {"loss": method(step)["level0"], "keep_mask": method.kept(0, step)}


# FRS


def frs(case: Case) -> Mapping[str, Tensor]:
    settings = {
        "neck_weight": case.setting("distill_feat_weight"),
        "cls_weight": case.setting("distill_cls_weight"),
        "warm_up": case.setting("distill_warm_step"),
        "entropy": True,
    }
    student, teacher = case.leaf_levels("stu"), case.levels("tea")
    count, strides = case.setting("num_anchors"), tuple(8 * 2**i for i in range(len(teacher)))
    spec = {
        "priors_per_cell": count,
        "classes": tuple(map(str, range(case.setting("num_classes")))),
    }
    method, step = made("frs", settings, student, teacher, strides, **spec)

    def said(neck: Levels, logits: Levels) -> DetectorOutput:
        predictions = DensePredictions(
            logits=logits,
            boxes=logits,
            priors=tuple(_squares(one, count) for one in neck),
            strides=strides,
            coder=cast("BoxCoder", None),
        )
        return DetectorOutput(neck=neck, predictions=predictions)

    step = dataclasses.replace(
        step,
        index=case.setting("iter") - 1,
        student=said(student, case.leaf_levels("cls_s")),
        teacher=said(teacher, case.levels("cls_t")),
    )
    terms = method(step)
    return {"loss": terms["neck"] + terms["cls"], "feat": terms["neck"], "cls": terms["cls"]}


def _squares(level: Tensor, count: int) -> Tensor:
    """Priors that nobody looks at."""
    return torch.zeros(level.shape[-2] * level.shape[-1] * count, 4)


# FGFI


def fgfi(case: Case) -> Mapping[str, Tensor]:
    """The authors' version."""
    case.fixed(iou_convention="legacy +1")
    scales, ratios = case.setting("anchor_scales"), case.setting("anchor_ratios")
    settings = {
        "version": "authors",
        "weight": case.setting("imitation_weight"),
        "ratio": case.setting("psi"),
        "floor": 0.0,
    }
    stride, count = case.setting("stride"), len(scales) * len(ratios)
    neck, recorded = (case.leaf("stu"),), case["gt_boxes"]
    spec = {"priors_per_cell": count}
    method, step = made("fgfi", settings, neck, (case["tea"],), (stride,), **spec)
    valid = (recorded[..., :4] != 0).any(dim=-1)
    truth = Truth(
        boxes=recorded[..., :4],
        labels=recorded[..., 4].long(),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.zeros(len(recorded), 2),
    )
    step = with_anchors(dataclasses.replace(step, truth=truth), (case["anchors"],), (stride,))
    (mask,) = cast("FGFI", method).cells(step)
    pairs = []
    for slot in range(valid.shape[1]):  # one object at a time, so that pairs can be counted
        alone = valid & (torch.arange(valid.shape[1]) == slot)
        near = masks.fine_grained(
            (case["anchors"],),
            dataclasses.replace(truth, valid=alone),
            ratio=settings["ratio"],
            scope="image",
            legacy=True,
        )
        pairs.append(near.unflatten(1, (*mask.shape[1:], count)).sum(dim=-1))
    return {"loss": method(step)["near"], "mask": mask, "count": torch.stack(pairs).sum(dim=0)}


def fgfi_pyramid(case: Case) -> Mapping[str, Tensor]:
    """DeFeat's version, with the anchors of its Faster R-CNN."""
    case.fixed(type="mask-neck-roi,pixel-wise")
    case.setting("image_hw")
    strides = tuple(case.setting("strides"))
    neck, teacher = case.leaf_levels("stu"), case.levels("tea")
    method, step = made(
        "fgfi", {"weight": case.setting("hint_neck_w")}, neck, teacher, strides, priors_per_cell=3
    )
    step = dataclasses.replace(step, truth=truth_of(case))
    pairs = zip(neck, strides, strict=True)
    step = with_anchors(step, tuple(anchors(level, s).to(level) for level, s in pairs), strides)
    cells = cast("FGFI", method).cells(step)
    if any((a != b).any() for a, b in zip(cells, case.levels("mask"), strict=True)):
        raise MismatchError("a mask differs")
    term = method(step)["near"]
    return {"loss": term, "losskd_neck": term}


def anchors(
    level: Tensor,
    stride: int,
    ratios: Sequence[float] = (0.5, 1, 2),
    scales: Sequence[float] = (8,),
) -> Tensor:
    """(H·W·A, 4) of some sizes in strides and shapes, around the cells' corners."""
    height, width = level.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middle = (torch.stack([x, y], dim=-1) * stride).reshape(-1, 1, 2)
    tall = torch.tensor(ratios).sqrt()
    shapes = torch.stack([1 / tall, tall], dim=-1).unsqueeze(1)  # (ratios, 1, 2)
    half = (shapes * torch.tensor(scales).view(-1, 1) * stride / 2).flatten(0, 1)
    return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1)


def with_anchors(step: Step, anchors: Levels, strides: tuple[int, ...]) -> Step:
    predictions = DensePredictions(
        logits=(), boxes=(), priors=anchors, strides=strides, coder=cast("BoxCoder", None)
    )
    said = dataclasses.replace(step.student, predictions=predictions)
    return dataclasses.replace(step, student=said)


def made(
    name: str,
    settings: Mapping[str, object],
    student: Levels,
    teacher: Levels,
    strides: tuple[int, ...] = (8,),
    **facts: Any,
) -> tuple[Method, Step]:
    """A method that fits the necks, and a step of them."""
    method = combine.build(name, settings)
    facts = {"classes": ("a",), **facts}
    specs = [
        Spec(family="dense", strides=strides, channels=neck[0].shape[1], **facts)
        for neck in (teacher, student)
    ]
    combine.setup({name: method}, *specs)
    return method, Step(
        truth=cast("Truth", None),
        student=DetectorOutput(neck=student),
        teacher=DetectorOutput(neck=teacher),
        targets=cast("Targets", None),
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )


def _run(
    name: str,
    settings: dict[str, object],
    student: Levels,
    teacher: Levels,
    strides: tuple[int, ...],
) -> Mapping[str, Tensor]:
    """The terms of a method that reads only the necks."""
    method, step = made(name, settings, student, teacher, strides)
    return method(step)
