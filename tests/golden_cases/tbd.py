"""TBD, as read here: `tbd_`, on recorded positives and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import cast

import torch
from tests.golden_cases.case import Case
from tests.golden_cases.heads import Verbatim
from torch import Tensor

from detdistill.levels import Levels
from detdistill.masks import ObjectQuality
from detdistill.methods import combine
from detdistill.methods.tbd import TBD
from detdistill.structures import (
    DensePredictions,
    DetectorOutput,
    Head,
    Spec,
    Step,
    Targets,
    Truth,
)


class Recorded(TBD):
    """With recorded overlaps, which belong to no recorded object, and recorded masks."""

    overlaps: Mapping[int, Tensor] = field(default_factory=dict)
    """By the identity of the predictions."""
    recorded: tuple[Levels, Levels] = ((), ())

    def quality(self, predictions: DensePredictions, step: Step) -> ObjectQuality:
        score = super().quality(predictions, step).score
        return ObjectQuality(score, self.overlaps[id(predictions)])

    def named_and_found(self, teacher: ObjectQuality, step: Step) -> tuple[Levels, Levels]:  # noqa: ARG002
        return self.recorded


def tbd(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6)
    labels = _with_background(case["labels"])
    classes = case["logit_t"].shape[1]
    labels[:, -1] = classes
    student, teacher = _output(case, "s"), _output(case, "t")
    method = Recorded(
        harmony=case.setting("hs"),
        exponent=case.setting("hs_alpha"),
        box_weight=case.setting("hd_reg_weight"),
        harmony_weight=case.setting("hd_weight"),
        feature_weight=case.setting("tfd_weight"),
        balance=case.setting("balance"),
        overlaps={
            id(output.dense): _with_background(case[f"iou_{role}"])
            for output, role in ((student, "s"), (teacher, "t"))
        },
        recorded=(case.levels("mask_cls"), case.levels("mask_reg")),
    )
    spec = Spec(
        family="dense",
        classes=tuple(map(str, range(classes))),
        strides=tuple(8 * 2**i for i in range(len(student.neck))),
        channels=student.neck[0].shape[1],
    )
    combine.setup({"tbd": method}, spec, spec)
    step = Step(
        truth=cast("Truth", None),
        student=student,
        teacher=teacher,
        targets=Targets(
            labels=labels,
            boxes=torch.zeros(*labels.shape, 4, dtype=case.dtype),
            weights=torch.ones(labels.shape),
            positives=torch.ones(()),
        ),
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )
    return _results(method, step)


def _results(method: TBD, step: Step) -> dict[str, Tensor]:
    terms = dict(method(step))
    harmony = terms.pop("cls") + terms.pop("box")
    features = torch.stack(list(terms.values())).sum()
    found = [method.quality(output.dense, step) for output in (step.teacher, step.student)]
    shares = method.task_shares(found[0], found[1], step)
    return {
        "loss": harmony + features,
        "hd": harmony,
        "tfd": features,
        "lambda_cls": shares[0],
        "lambda_reg": shares[1],
        "hs": method.counts(found[0], step)[0, :-1],
    }


def _output(case: Case, role: str) -> DetectorOutput:
    """The positives of one of the two as priors of one image, and a prior of the background."""
    read, levels = (case.leaf, case.leaf_levels) if role == "s" else (case.__getitem__, case.levels)
    logits, boxes = (_with_background(read(f"{name}_{role}")) for name in ("logit", "box"))
    return DetectorOutput(
        neck=levels(f"feat_{role}"),
        predictions=DensePredictions(
            logits=(logits.mT.unsqueeze(-1),),
            boxes=(boxes.mT.unsqueeze(-1),),
            priors=(torch.zeros(logits.shape[1], 4),),
            strides=(8,),
            coder=Verbatim(),
        ),
    )


def _with_background(values: Tensor) -> Tensor:
    """(P, ...) -> (1, P + 1, ...), so that there is a prior even where nothing is positive."""
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])]).unsqueeze(0)
