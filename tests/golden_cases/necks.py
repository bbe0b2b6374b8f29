"""Methods that compare necks: `pkd_`, `defeat_neck_all`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tests.golden_cases.case import Case, MismatchError
from torch import Tensor

from detdistill.methods import combine
from detdistill.structures import DetectorOutput, Head, Levels, Spec, Step, Targets, Truth


def pkd(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6, unbiased=True)
    settings = {"weight": case.setting("loss_weight")}
    terms = _run("pkd", settings, (case.leaf("pred"),), (case["target"],), strides=(8,))
    return {"loss": terms["level0"]}


def pkd_resize(case: Case) -> Mapping[str, Tensor]:
    settings = {
        "weight": case.setting("loss_weight"),
        "resize": "student" if case.setting("resize_stu") else "teacher",
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


def _run(
    name: str,
    settings: dict[str, object],
    student: Levels,
    teacher: Levels,
    strides: tuple[int, ...],
) -> Mapping[str, Tensor]:
    """The terms of a method that reads only the necks."""
    method = combine.build(name, settings)
    specs = [
        Spec(family="dense", classes=("a",), strides=strides, channels=neck[0].shape[1])
        for neck in (teacher, student)
    ]
    combine.setup({name: method}, *specs)
    step = Step(
        truth=cast("Truth", None),
        student=DetectorOutput(neck=student),
        teacher=DetectorOutput(neck=teacher),
        targets=cast("Targets", None),
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )
    return method(step)
