"""CrossKD with PKD, and LD: what passes between teacher and student, losses and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tests.parity_cases.dense import LOSSES
from tests.parity_cases.recording import Folder, Recording
from torch import Tensor

from detdistill.detectors.dense import DenseDetector
from detdistill.methods import Method, combine
from detdistill.methods.crosskd import CrossKD
from detdistill.methods.ld import LD
from detdistill.methods.pkd import PKD
from detdistill.structures import EVERYTHING, DensePredictions, Reads, Step

NAMES = {
    **{f"task/{ours}": theirs for ours, theirs in LOSSES.items()},
    "crosskd/cls": "loss_cls_kd",
    "crosskd/box": "loss_reg_kd",
    "crosskd/centerness": "losses_center_kd",
    "ld/main": "loss_ld",
}
"""What MMDetection and CrossKD's repository call our losses."""
RELEASED_FLOOR = 1e-6


@dataclass(frozen=True)
class Pair:
    """Teacher and student."""

    teacher: DenseDetector
    student: DenseDetector


def run(folder: Folder, case: str) -> None:
    """Compares all of one case with the released behaviour; the defaults must be finite."""
    weights = folder.config["weights"]
    pair = Pair(*(folder.load(weights[role]) for role in ("teacher", "student")))
    recording = Recording(folder, case)
    _between(recording, pair)
    losses = _step(recording, pair, _methods(folder.config, released=True))
    recording.same_losses(losses)
    recording.same_gradients(pair.student)
    _finite(recording, _step(recording, pair, _methods(folder.config, released=False)), pair)
    recording.finish()


def _methods(config: Mapping[str, Any], *, released: bool) -> dict[str, Method]:
    """The methods that the settings describe; released, or finite whatever the batch."""
    if config.get("kd_cfg") is None:
        head = config["model"]["bbox_head"]["loss_ld"]
        main = {"main_weight": head["loss_weight"], "temperature": float(head["T"])}
        return {"ld": LD(**main, valuable_weight=0.0, cls_weight=0.0)}
    settings = config["kd_cfg"]
    box = settings["loss_reg_kd"]
    center = settings.get("loss_center_kd", {})
    crosskd = CrossKD(
        cut=settings["reused_teacher_head_idx"],
        cls_weight=settings["loss_cls_kd"]["loss_weight"],
        beta=float(settings["loss_cls_kd"]["beta"]),
        box_weight=box["loss_weight"],
        temperature=float(box.get("T", 1)),
        centerness_weight=center.get("loss_weight", 1.0),
        lone=not released,
        **({"floor": RELEASED_FLOOR} if released else {}),
    )
    if "loss_feat_kd" not in settings:
        return {"crosskd": crosskd}
    weight = settings["loss_feat_kd"]["loss_weight"]
    return {"crosskd": crosskd, "pkd": PKD(weight=weight, lone=not released)}


def _between(recording: Recording, pair: Pair) -> None:
    """Necks, predictions and the features at the cut, on both sides."""
    settings = recording.folder.config.get("kd_cfg") or {}
    cut = settings.get("reused_teacher_head_idx", 0)
    reads = EVERYTHING | Reads(towers=frozenset({cut}))
    sizes = recording.truth().sizes
    for side, detector in (("tea", pair.teacher.eval()), ("stu", pair.student.train())):
        with torch.no_grad():
            output = detector(recording.images(detector), sizes, reads)
        recording.same_levels(f"{side}_fpn", output.neck)
        recording.same_levels(f"{side}_cls_hold", output.towers.cls[cut])
        recording.same_levels(f"{side}_reg_hold", output.towers.reg[cut])
        _same_predictions(recording, side, output.dense)


def _same_predictions(recording: Recording, side: str, said: DensePredictions) -> None:
    recording.same_levels(f"{side}_cls", said.logits)
    recording.same_levels(f"{side}_reg", said.boxes)
    recording.same_levels(f"{side}_ctr", said.quality)


def _step(recording: Recording, pair: Pair, methods: dict[str, Method]) -> dict[str, Tensor]:
    """All losses of a training step by MMDetection's names; gradients are in the student."""
    reads = combine.setup(methods, pair.teacher.spec, pair.student.spec) | EVERYTHING
    truth = recording.truth()
    student = pair.student.train()
    student.zero_grad()
    output = student(recording.images(student), truth.sizes, reads)
    task, targets = student.criterion(output, truth)
    with torch.no_grad():
        taught = pair.teacher.eval()(recording.images(pair.teacher), truth.sizes, reads)
    step = Step(
        truth=truth,
        student=output,
        teacher=taught,
        targets=targets,
        student_head=student.head,
        teacher_head=pair.teacher.requires_grad_(requires_grad=False).head,
    )
    if "crosskd" in methods:
        _same_predictions(recording, "reused", methods["crosskd"].predicted(step))
    losses = {NAMES[f"task/{term}"]: loss for term, loss in task.items()}
    for name, method in methods.items():
        for term, loss in method(step).items():
            named = NAMES.get(f"{name}/{term}", "loss_feat_kd" if name == "pkd" else term)
            losses[named] = losses.get(named, 0) + loss
    torch.stack([*losses.values()]).sum().backward()
    return losses


def _finite(recording: Recording, losses: Mapping[str, Tensor], pair: Pair) -> None:
    """Whatever the released code does, the defaults must give numbers."""
    terms = {**losses, **{n: p.grad for n, p in pair.student.named_parameters()}}
    infinite = [n for n, t in terms.items() if t is not None and not t.isfinite().all()]
    if infinite:
        recording.differences.append(f"with our defaults {infinite[0]} is not finite")
