"""CrossKD: `crosskd_cls_`, `crosskd_align_`, the predictions of four heads, and end to end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from tests.golden_cases.case import Case, MismatchError, reduced
from torch import Tensor

from detdistill import boxes, focal, losses
from detdistill.detectors.architecture import Architecture
from detdistill.detectors.backbones import Backbone
from detdistill.detectors.head import DenseHead
from detdistill.levels import Levels
from detdistill.methods import combine
from detdistill.methods.crosskd import CrossKD
from detdistill.methods.parts.mimicry import Comparison
from detdistill.structures import (
    BoxCoder,
    DensePredictions,
    DetectorOutput,
    Reads,
    Spec,
    Step,
    Targets,
    Towers,
    Truth,
)

STRIDES = (8, 16, 32, 64, 128)


def cls(case: Case) -> Mapping[str, Tensor]:
    elements = focal.soft_focal_loss(
        case.leaf("pred"), case["teacher"].sigmoid(), case.setting("beta")
    )
    total = reduced(case, elements.sum(dim=-1))
    return {"elem": elements, "loss": case.setting("loss_weight") * total}


def align(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6, unbiased=True)
    aligned = losses.with_statistics_of(case.leaf("stu"), case["tea"], lone=False)
    return {"aligned": aligned, "loss": (aligned * case["upstream"]).sum()}


# Predictions that were crossed elsewhere


@dataclass
class Replay:
    """A head that resumes to given predictions."""

    crossed: DensePredictions

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:  # noqa: ARG002
        return self.crossed


def gfl_pred(case: Case) -> Mapping[str, Tensor]:
    bins = case.setting("reg_max") + 1
    coder = boxes.DistributionCoder(bins)
    settings = {"beta": case.setting("beta"), "temperature": case.setting("T")}
    if case.setting("class_reduction") == "mean":
        settings["box_weight"] = case.setting("loss_weight_reg") / bins
    method, step = _replayed(case, coder, _squares(case), settings, bins=bins)
    terms = method(step)
    average = _compared(method, step).confidence().sum()
    return {
        "loss": terms["cls"] + terms["box"],
        "cls": terms["cls"],
        "reg": terms["box"],
        "reg_avg": average,
    }


def anchor_pred(case: Case) -> Mapping[str, Tensor]:
    """ATSS and RetinaNet."""
    case.fixed(target_means=[0, 0, 0, 0], wh_ratio_clip=0.016, giou_eps=1e-6)
    coder = boxes.DeltaCoder(stds=tuple(case.setting("target_stds")))
    centerness = case.setting("loss_weight_ctr")
    settings = {} if centerness is None else {"centerness_weight": centerness}
    anchors = tuple(level[0] for level in case.levels("anchors"))
    method, step = _replayed(
        case, coder, anchors, settings, priors_per_cell=case.setting("num_anchors")
    )
    terms = method(step)
    results = {"cls": terms["cls"], "reg": terms["box"], "loss": sum(terms.values())}
    if "centerness" in terms:
        results["ctr"] = terms["centerness"]
    return cast("Mapping[str, Tensor]", results)


def fcos_pred(case: Case) -> Mapping[str, Tensor]:
    case.fixed(iou_mode="log", iou_eps=1e-6)
    settings = {"beta": case.setting("beta"), "floor": case.setting("denorm_min")}
    points = tuple(torch.cat([level, level], dim=-1) for level in case.levels("points"))
    method, step = _replayed(case, boxes.DistanceCoder(), points, settings)
    terms = method(step)
    return {
        "loss": terms["cls"] + terms["box"],
        "cls": terms["cls"],
        "reg": terms["box"],
        "denorm": _compared(method, step).divisor,
    }


def _compared(method: CrossKD, step: Step) -> Comparison:
    said, wanted = method.compared(step)
    return method.comparison(cast("DensePredictions", said), cast("DensePredictions", wanted), step)


def _squares(case: Case) -> Levels:
    """Priors for heads whose boxes are never decoded."""
    return tuple(
        torch.zeros(level.shape[-2] * level.shape[-1], 4) for level in case.levels("tea_cls")
    )


def _replayed(
    case: Case, coder: BoxCoder, priors: Levels, settings: Mapping[str, Any], **spec: Any
) -> tuple[Any, Step]:
    """The method, and the step of a case that records crossed predictions."""
    strides = STRIDES[: len(priors)]
    if "levels" in case.settings:
        case.fixed(levels=len(priors))
    both = Spec(
        family="dense",
        classes=tuple(map(str, range(case.setting("num_classes")))),
        strides=strides,
        channels=1,
        coder=coder,
        **spec,
    )
    weights = {
        "cls_weight": case.setting("loss_weight_cls"),
        "box_weight": case.setting("loss_weight_reg"),
        "align": False,
        "cut": 0,
    }
    method = combine.build("crosskd", {**weights, **settings})
    method.setup(both, both)
    made = {"priors": priors, "strides": strides, "coder": coder}
    crossed = DensePredictions(
        logits=case.leaf_levels("reused_cls"),
        boxes=case.leaf_levels("reused_reg"),
        quality=case.leaf_levels("reused_ctr") or None,
        **made,
    )
    teacher = DensePredictions(
        logits=case.levels("tea_cls"),
        boxes=case.levels("tea_reg"),
        quality=case.levels("tea_ctr") or None,
        **made,
    )
    neck = tuple(level[:, :1] for level in teacher.logits)
    nothing = Towers(cls={0: neck}, reg={0: neck})
    return method, Step(
        truth=cast("Truth", None),
        student=DetectorOutput(neck=neck, predictions=crossed, trace=nothing),
        teacher=DetectorOutput(neck=neck, predictions=teacher, trace=nothing),
        targets=_targets(case, teacher),
        student_head=Replay(crossed),
        teacher_head=Replay(crossed),
    )


def _targets(case: Case, teacher: DensePredictions) -> Targets:
    """The recorded assignment, as far as there is one."""
    logits = teacher.flat_logits()
    shape, batch = logits.shape[:2], len(logits)
    labels = torch.full(shape, logits.shape[-1])
    weights, wanted = torch.ones(shape), torch.zeros(*shape, 4)
    if recorded := case.levels("labels"):
        labels = _rows(recorded, (batch, -1))
    if recorded := case.levels("label_weights"):
        weights = _rows(recorded, (batch, -1))
    if recorded := case.levels("bbox_targets"):
        points = boxes.centers(teacher.flat_priors())
        wanted = boxes.from_distances(points, _rows(recorded, (batch, -1, 4)))
    positives = case.setting("avg_factor") if "avg_factor" in case.settings else 1.0
    return Targets(labels=labels, boxes=wanted, weights=weights, positives=torch.tensor(positives))


def _rows(levels: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """(B·n, ...) or (B, n, ...) per level, image by image -> (B, N, ...)."""
    return torch.cat([level.reshape(shape) for level in levels], dim=1)


# End to end, through a real head

NAMES = {
    "cls_convs": "cls_tower",
    "reg_convs": "reg_tower",
    "gn": "norm",
    "gfl_cls": "cls",
    "gfl_reg": "reg",
}


def end_to_end(case: Case) -> Mapping[str, Tensor]:
    case.fixed(gn_eps=1e-5)
    teacher, student = _head(case, "tea"), _head(case, "stu")
    teacher.requires_grad_(requires_grad=False)
    spec = Spec(
        family="dense",
        classes=tuple(map(str, range(case.setting("num_classes")))),
        strides=teacher.strides,
        channels=case["tea_x_0"].shape[1],
        tower_channels=case["tea_x_0"].shape[1],
        tower_depth=case.setting("stacked_convs"),
        coder=teacher.coder,
        bins=case.setting("reg_max") + 1,
    )
    start = case.setting("reused_teacher_head_idx")
    method = CrossKD(
        cut=start,
        cls_weight=case.setting("loss_weight_cls"),
        box_weight=case.setting("loss_weight_reg"),
        temperature=case.setting("T"),
        preactivation=not case.setting("inplace_relu"),
        lone=False,
    )
    method.setup(spec, spec)
    step = _step(case, method.reads, student, teacher)
    terms = method(step)
    results = {"loss": terms["cls"] + terms["box"], "cls": terms["cls"], "reg": terms["box"]}
    results |= _predictions(method, step, start)
    results["loss"].backward(retain_graph=True)
    _check_reached(case, student)
    for leaf in [*student.parameters(), *case.leaves.values()]:
        leaf.grad = None
    case.leaves |= {
        f"stu.{theirs}": parameter
        for theirs, parameter in _by_their_name(student, case)
        if f"grad_stu.{theirs}" in case
    }
    return results


def _head(case: Case, role: str) -> DenseHead:
    """The library's head with recorded weights."""
    levels, channels = case.setting("levels"), case["tea_x_0"].shape[1]
    architecture = Architecture(
        family="gfl",
        backbone=Backbone(stages=tuple(range(2, 2 + levels))),
        classes=tuple(map(str, range(case.setting("num_classes")))),
        neck_channels=channels,
        extra_levels=0,
        tower_channels=channels,
        tower_depth=case.setting("stacked_convs"),
        norm_groups=case.setting("gn_groups"),
    )
    coder = boxes.DistributionCoder(case.setting("reg_max") + 1)
    head = DenseHead(architecture, coder=coder).to(case.dtype)
    prefix = f"w_{role}."
    recorded = {k.removeprefix(prefix): case[k] for k in case.arrays if k.startswith(prefix)}
    scales = torch.stack([recorded.pop(f"scales.{level}.scale") for level in range(levels)])
    state = {_our_name(name): value for name, value in recorded.items()}
    head.load_state_dict({**state, "scales": scales})
    return head


def _our_name(theirs: str) -> str:
    return ".".join(NAMES.get(part, part) for part in theirs.split("."))


def _by_their_name(head: DenseHead, case: Case) -> list[tuple[str, Tensor]]:
    """The head's parameters, but for the scales, under their recorded names."""
    ours = dict(head.named_parameters())
    names = [k.removeprefix("w_stu.") for k in case.arrays if k.startswith("w_stu.")]
    return [(name, ours[_our_name(name)]) for name in names if not name.startswith("scales.")]


def _step(case: Case, reads: Reads, student: DenseHead, teacher: DenseHead) -> Step:
    outputs = []
    for head, neck in ((student, case.leaf_levels("stu_x")), (teacher, case.levels("tea_x"))):
        with torch.set_grad_enabled(head is student):
            predictions, towers = head(neck, reads)
        outputs.append(DetectorOutput(neck=neck, predictions=predictions, trace=towers))
    return Step(
        truth=cast("Truth", None),
        student=outputs[0],
        teacher=outputs[1],
        targets=_targets(case, outputs[1].dense),
        student_head=student,
        teacher_head=teacher,
    )


def _predictions(method: CrossKD, step: Step, start: int) -> dict[str, Tensor]:
    """Everything that was recorded on the way, level by level."""
    crossed = cast("DensePredictions", method.predicted(step))
    maps = {
        "reused_cls": crossed.logits,
        "reused_reg": crossed.boxes,
        "tea_cls": step.teacher.dense.logits,
        "tea_reg": step.teacher.dense.boxes,
        "stu_cls": step.student.dense.logits,
        "hold_tea_cls": step.teacher.towers.cls[start],
        "hold_stu_cls": step.student.towers.cls[start],
    }
    return {f"{name}_{i}": level for name, levels in maps.items() for i, level in enumerate(levels)}


def _check_reached(case: Case, student: DenseHead) -> None:
    """The student's layers behind the cut get no gradient, those before it do."""
    reached = {n for n, p in _by_their_name(student, case) if p.grad is not None}
    wanted = set(json.loads(str(case.arrays["grad_param_names_with_grad"])))
    if reached != wanted or cast("Tensor", student.scales).grad is not None:
        raise MismatchError(f"other layers get gradient: {sorted(reached ^ wanted)}")
