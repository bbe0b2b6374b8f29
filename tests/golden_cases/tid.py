"""TID: `tid_`, with every intermediate map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from tests.golden_cases.case import Case
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detdistill.methods import combine
from detdistill.methods.tid import TID
from detdistill.structures import DensePredictions, DetectorOutput, Head, Spec, Step, Targets, Truth

SETTINGS = {
    "thr_pos": "positive_iou",
    "thr_neg": "negative_iou",
    "score_r": "box_scores",
    "score_c": "class_scores",
    "cls_top": "class_top",
    "cls_score": "class_score",
    "cls_scope": "class_scope",
    "combine": "combine",
    "key_mode": "key",
    "key_top": "key_top",
    "key_outside": "key_outside",
    "weak_top": "weak_top",
    "weak_value": "weak_value",
    "weak_scope": "weak_scope",
    "weak_nms": "nms",
    "weak_nms_iou": "nms_iou",
    "info_margin": "ring",
    "info_decay": "decay",
    "tiers": "tiers",
    "tier_gain": "gains",
    "alpha": "tier_weights",
    "norm": "normaliser",
    "distance": "distance",
    "loss_weight": "weight",
}
VALUES = {
    "class_score": {"gt_classes": "present", "max": "any"},
    "key": {"topk": "top"},
    "decay": {"decreasing": "inward", "literal": "outward"},
}


class Verbatim:
    """A coder whose numbers are the boxes."""

    numbers = 4

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:  # noqa: ARG002
        return raw


def tid(case: Case) -> Mapping[str, Tensor]:
    method = cast("TID", combine.build("tid", _settings(case)))
    student = _output(case, "s", case.leaf_levels("feat_s"))
    teacher = _output(case, "t", case.levels("feat_t"))
    spec = Spec(
        family="dense",
        classes=tuple(map(str, range(case["prob_t_0"].shape[2]))),
        strides=student.dense.strides,
        channels=case["feat_t_0"].shape[1],
        priors_per_cell=case["prob_t_0"].shape[1],
    )
    combine.setup({"tid": method}, spec, spec)
    step = Step(
        truth=_truth(case),
        student=student,
        teacher=teacher,
        targets=cast("Targets", None),
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )
    terms = method(step)
    return {"loss": torch.stack(list(terms.values())).sum(), **_maps(method, step)}


def _settings(case: Case) -> dict[str, Any]:
    ours = {SETTINGS[name]: case.setting(name) for name in case.settings if name in SETTINGS}
    return {
        name: VALUES[name].get(value, value) if name in VALUES else value
        for name, value in ours.items()
    }


def _output(case: Case, role: str, neck: tuple[Tensor, ...]) -> DetectorOutput:
    """What one of the two said; logits are exact in float64."""
    logits = tuple(p.double().logit().flatten(1, 2) for p in case.levels(f"prob_{role}"))
    boxes = tuple(b.permute(0, 1, 4, 2, 3).flatten(1, 2) for b in case.levels(f"boxes_{role}"))
    count = case["prob_t_0"].shape[1]
    points = (c.reshape(-1, 1, 2).repeat(1, count, 2).flatten(0, 1) for c in case.levels("centers"))
    return DetectorOutput(
        neck=neck,
        predictions=DensePredictions(
            logits=logits,
            boxes=boxes,
            priors=tuple(points),
            strides=tuple(case.setting("strides")),
            coder=Verbatim(),
        ),
    )


def _truth(case: Case) -> Truth:
    labels = case.levels("gt_labels")
    valid = pad_sequence([torch.ones_like(l, dtype=torch.bool) for l in labels], batch_first=True)
    return Truth(
        boxes=pad_sequence(list(case.levels("gt_bboxes")), batch_first=True),
        labels=pad_sequence(list(labels), batch_first=True),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.zeros(len(labels), 2),
    )


def _maps(method: TID, step: Step) -> dict[str, Tensor]:
    """The intermediate maps of each image."""
    values = method.values(step)
    maps = {
        "score_t": values.teacher.score,
        "score_s": values.student.score,
        "iou_t": values.teacher.quality.iou,
        "iou_s": values.student.quality.iou,
        "cls_t": values.teacher.quality.score,
        "cls_s": values.student.quality.score,
        "key": values.key,
        "info": values.near,
        "value": values.value,
        "mask": values.mask,
        "weak": values.weak,
        "tier": values.tier,
    }
    return {f"{name}_{i}": image for name, images in maps.items() for i, image in enumerate(images)}
