"""Methods that look at objects and other boxes one by one: `rm_`, `pfi_`, `gid_`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from tests.golden_cases.case import Case, MismatchError
from torch import Tensor

from detdistill.levels import Levels
from detdistill.methods import Method, combine
from detdistill.methods.gid import GID
from detdistill.methods.pfi import PFI
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


class Verbatim:
    """A coder whose numbers are the boxes."""

    numbers = 4

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:  # noqa: ARG002
        return raw


def _said(logits: Levels, count: int, neck: Levels = ()) -> DetectorOutput:
    """Class scores alone; boxes and priors are empty."""
    shapes = [(len(level), *level.shape[-2:]) for level in logits]
    return DetectorOutput(
        neck=neck,
        predictions=DensePredictions(
            logits=logits,
            boxes=tuple(logits[0].new_zeros(b, 4 * count, h, w) for b, h, w in shapes),
            priors=tuple(logits[0].new_zeros(h * w * count, 4) for _, h, w in shapes),
            strides=tuple(8 * 2**i for i in range(len(logits))),
            coder=cast("BoxCoder", Verbatim()),
        ),
    )


def _step(student: DetectorOutput, teacher: DetectorOutput, targets: Targets, truth: Truth) -> Step:
    return Step(
        truth=truth,
        student=student,
        teacher=teacher,
        targets=targets,
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )


def _fitted(name: str, settings: Mapping[str, object], **facts: Any) -> Method:
    """A method for two detectors of which these facts are known."""
    method = combine.build(name, settings)
    spec = Spec(**{"family": "dense", "channels": 1, "strides": (8,), "classes": ("a",), **facts})
    combine.setup({name: method}, spec, spec)
    return method


# Rank mimicking


def rm(case: Case) -> Mapping[str, Tensor]:
    """mmrazor's, and the paper's, for which only the value is known."""
    classes, count = case.setting("num_classes"), case.setting("num_anchors")
    student = _said(case.leaf_levels("cls_s"), count)
    teacher = _said(case.levels("cls_t"), count)
    facts = {"classes": tuple(map(str, range(classes))), "priors_per_cell": count}
    facts["strides"] = student.dense.strides
    step = _step(student, teacher, *_assigned(case, classes))
    settings = {"cls_weight": case.setting("loss_weight"), "box_weight": 0.0}
    ordered = _fitted("rm", settings, **facts)(step)["cls"]
    known = case.optional("paper_loss_unsorted64")
    if known is not None and not torch.allclose(ordered, known.to(ordered), rtol=1e-5):
        raise MismatchError("paper_loss_unsorted64 differs")
    return {"loss": _fitted("rm", {**settings, "ordered": False}, **facts)(step)["cls"]}


def _assigned(case: Case, background: int) -> tuple[Targets, Truth]:
    """The recorded assignment; the box of object k reaches from k to k + 1."""
    owner, labels = torch.stack(case.levels("gt_inds")), torch.stack(case.levels("labels"))
    counts = torch.tensor(case.setting("num_gts"))
    slots = torch.arange(1, int(counts.max()) + 1)
    positive = owner > 0
    mine = (owner.unsqueeze(1) == slots.view(1, -1, 1)) * (labels + 1).unsqueeze(1)
    valid = slots <= counts.unsqueeze(1)

    def boxes(number: Tensor) -> Tensor:
        return torch.stack([number, number, number + 1, number + 1], dim=-1).to(case.dtype)

    targets = Targets(
        labels=labels.where(positive, background),
        boxes=boxes(owner) * positive.unsqueeze(-1),
        weights=torch.ones_like(owner).to(case.dtype),
        positives=positive.sum(),
    )
    truth = Truth(
        boxes=boxes(slots).expand(len(counts), -1, 4),
        labels=mine.amax(dim=2).clamp(min=1) - 1,
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.zeros(len(counts), 2),
    )
    return targets, truth


# Prediction-guided feature imitation


def pfi(case: Case) -> Mapping[str, Tensor]:
    """Both of mmrazor's versions; the later has a value per image."""
    student = _said(case.leaf_levels("cls_s"), 1, case.leaf_levels("stu"))
    teacher = _said(case.levels("cls_t"), 1, case.levels("tea"))
    per_image = case.arrays["out_loss"].ndim == 1
    method = _fitted(
        "pfi",
        {
            "weight": case.setting("loss_weight"),
            "scores": "logit",
            "reduction": "norm" if per_image else "mean",
        },
        channels=student.neck[0].shape[1],
        strides=student.dense.strides,
    )
    step = _step(student, teacher, cast("Targets", None), cast("Truth", None))
    terms = torch.stack(cast("PFI", method).of_images(step)).sum(dim=0)
    total = torch.stack(list(method(step).values())).sum()
    if not torch.allclose(terms.mean(), total):
        raise MismatchError("the terms do not add up")
    return {"loss": terms if per_image else total}


# General instances


def gid(case: Case) -> Mapping[str, Tensor]:
    """The losses on given boxes, their features and their priors."""
    case.fixed(relation_smooth_l1_beta=1.0, reg_smooth_l1_beta=0.0)
    weights = {
        "feature": case.setting("w_feature"),
        "relation": case.setting("w_relation"),
        "cls": case.setting("w_cls"),
        "reg": case.setting("w_reg"),
    }
    settings = {f"{name}_weight": 1.0 for name in ("feature", "relation", "cls", "box")}
    known, mask = {"s": case.leaf("feat_s"), "t": case["feat_t"]}, case["mask"]
    student, teacher = (_rows(known[r], case, r) for r in ("s", "t"))
    facts = {
        "classes": tuple(map(str, range(case["cls_t"].shape[1]))),
        "channels": known["t"].shape[1],
    }
    method = cast("GID", _fitted("gid", {**settings, "entropy": True}, **facts))
    found = torch.zeros(1, len(known["t"]), 4)
    method.selected = lambda *_: (found, torch.ones(1, len(known["t"])) > 0)  # type: ignore[method-assign]
    method.features = lambda neck, *_: neck[0]  # type: ignore[method-assign]
    method.priors = lambda *_: mask[None]  # type: ignore[method-assign]
    terms = method(_step(student, teacher, cast("Targets", None), cast("Truth", None)))
    parts = {"reg" if name == "box" else name: term for name, term in terms.items()}
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return {"loss": total, **parts}


def _rows(features: Tensor, case: Case, role: str) -> DetectorOutput:
    """Recorded rows of one side as a map of one row, its features as the neck."""
    said = [case.leaf(f"{n}_s") if role == "s" else case[f"{n}_t"] for n in ("cls", "reg")]
    logits, numbers = (flat.T.reshape(1, -1, 1, len(flat)) for flat in said)
    output = _said((logits,), 1, (features,))
    return dataclasses.replace(
        output, predictions=dataclasses.replace(output.dense, boxes=(numbers,))
    )
