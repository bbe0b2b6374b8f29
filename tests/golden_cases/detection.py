"""The detectors' own losses: `qfl_`, `dfl_`, `giou_`, `iou_log_`."""

from __future__ import annotations

from collections.abc import Mapping

from tests.golden_cases.case import Case, reduced
from torch import Tensor

from detdistill import focal, losses


def quality_focal(case: Case) -> Mapping[str, Tensor]:
    pred = case.leaf("pred")
    case.fixed(bg_label=pred.shape[1])
    loss = focal.quality_focal_loss(pred, case["label"], case["score"], case.setting("beta"))
    return {"none": loss, "loss": case.setting("loss_weight") * reduced(case, loss)}


def distribution_focal(case: Case) -> Mapping[str, Tensor]:
    pred = case.leaf("pred")
    case.fixed(reg_max=pred.shape[1] - 1)
    return _weighted(case, losses.distribution_focal_loss(pred, case["label"]))


def giou(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6)
    return _weighted(case, losses.giou_loss(case.leaf("pred"), case["target"]))


def log_iou(case: Case) -> Mapping[str, Tensor]:
    case.fixed(eps=1e-6)
    return _weighted(case, losses.log_iou_loss(case.leaf("pred"), case["target"]))


def _weighted(case: Case, loss: Tensor) -> Mapping[str, Tensor]:
    weight = case.setting("loss_weight")
    return {"none": weight * loss, "loss": weight * reduced(case, loss)}
