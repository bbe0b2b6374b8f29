"""Methods on the predictions of a GFL head: `bckd_`, `ld_`, through the library's assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from tests.golden_cases.case import Case, MismatchError, reduced
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detdistill import boxes, focal, losses, masks
from detdistill.detectors.assign import atss
from detdistill.levels import Levels, level_sums
from detdistill.methods import Method, combine
from detdistill.methods.bckd import BCKD
from detdistill.methods.regions import Regions
from detdistill.structures import (
    DensePredictions,
    DetectorOutput,
    Head,
    Spec,
    Step,
    Targets,
    Truth,
)

LARGE = 2**14
"""Side of an image that holds every prior."""


class Verbatim:
    """A coder whose numbers are the boxes."""

    numbers = 4

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:  # noqa: ARG002
        return raw


def truth_of(case: Case, sizes: Tensor | None = None) -> Truth:
    """The recorded objects, image by image."""
    recorded = list(case.levels("gt_bboxes"))
    sizes = torch.full((len(recorded), 2), LARGE) if sizes is None else sizes
    labels = case.levels("gt_labels") or [one.new_zeros(len(one)).long() for one in recorded]
    real = [torch.ones(len(one), dtype=torch.bool) for one in recorded]
    valid = pad_sequence(real, batch_first=True)
    return Truth(
        boxes=pad_sequence(recorded, batch_first=True),
        labels=pad_sequence(list(labels), batch_first=True),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=sizes,
    )


# One head of a kind


@dataclass
class Scene:
    """A method, a step of two GFL heads, and what was made on the way."""

    case: Case
    method: Method
    step: Step
    spec: Spec

    @property
    def student(self) -> DensePredictions:
        return self.step.student.dense

    def by_level(self, values: Tensor) -> dict[int, Tensor]:
        return dict(enumerate(level_sums(values, self.student.priors)))


def _scene(case: Case, name: str, settings: dict[str, object]) -> Scene:
    """The step that was recorded, with the library's own assignment."""
    bins = case.setting("reg_max") + 1
    strides, coder = tuple(case.setting("strides")), boxes.DistributionCoder(bins)
    classes = case.setting("num_classes")
    spec = Spec(
        family="dense",
        classes=tuple(map(str, range(classes))),
        strides=strides,
        channels=case["x_0"].shape[1] if "x_0" in case else 1,
        coder=coder,
        bins=bins,
    )
    method = combine.build(name, settings)
    combine.setup({name: method}, spec, spec)
    anchors = case.levels("anchors")
    shared = {"priors": anchors, "strides": strides, "coder": coder}
    student = DensePredictions(
        logits=case.leaf_levels("cls"), boxes=case.leaf_levels("reg"), **shared
    )
    teacher = DensePredictions(
        logits=case.levels("tea_cls"), boxes=case.levels("tea_reg"), **shared
    )
    truth = truth_of(case)
    case.fixed(images=len(truth.boxes), levels=len(anchors))
    targets = _assigned(anchors, truth, classes, case.setting("atss_topk"))
    step = Step(
        truth=truth,
        student=DetectorOutput(neck=case.leaf_levels("x"), predictions=student),
        teacher=DetectorOutput(neck=case.levels("tea_x"), predictions=teacher),
        targets=targets,
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )
    return Scene(case, method, step, spec)


def _assigned(anchors: Levels, truth: Truth, classes: int, topk: int) -> Targets:
    """The library's assignment, which is in float32 in every run."""
    priors = torch.cat(anchors)
    targets = atss(
        priors.float(),
        tuple(map(len, anchors)),
        dataclasses.replace(truth, boxes=truth.boxes.float()),
        inside=torch.ones(len(truth.boxes), len(priors), dtype=torch.bool),
        num_classes=classes,
        topk=topk,
    )
    return dataclasses.replace(targets, boxes=targets.boxes.to(priors))


def _around(scene: Scene, extra_weight: float = 0.0) -> dict[str, Tensor]:
    """The assignment, the regions and the detector's own losses, level by level."""
    step, student = scene.step, scene.student
    targets, logits = step.targets, student.flat_logits()
    positive = targets.labels < logits.shape[-1]
    score = (logits.detach().sigmoid().amax(dim=-1) + extra_weight) * positive
    predicted, raw = student.decoded(), student.flat_boxes().unflatten(-1, (4, -1))
    quality = boxes.iou(predicted.detach(), targets.boxes) * positive
    edges = boxes.to_distances(boxes.centers(student.flat_priors()), targets.boxes)
    edges = (edges / student.flat_strides().unsqueeze(-1)).clamp(0, raw.shape[-1] - 1 - 0.1)
    elements = {
        "det_cls": focal.quality_focal_loss(logits, targets.labels, quality)
        * targets.weights
        / targets.positives,
        "det_bbox_unnorm": 2 * losses.giou_loss(predicted, targets.boxes) * score,
        "det_dfl_unnorm": losses.distribution_focal_loss(raw, edges).mean(dim=-1) * score / 4,
    }
    terms = {
        f"{name}_{level}": value
        for name, values in elements.items()
        for level, value in scene.by_level(values).items()
    }
    return terms | {
        "det_avg_factor": score.sum(),
        "num_total_samples": targets.positives,
        "labels": targets.labels,
        "label_weights": targets.weights,
        "vlr_region": _valuable(scene.case, student, step.truth),
        "im_region": _imitated(scene.case, student, step.truth).to(logits),
    }


def _valuable(case: Case, student: DensePredictions, truth: Truth) -> Tensor:
    priors = student.flat_priors()
    ratio = case.setting("vlr_ratio") if "vlr_ratio" in case.settings else 0.25
    return masks.valuable_region(
        priors,
        tuple(map(len, student.priors)),
        truth,
        inside=torch.ones(len(truth.boxes), len(priors), dtype=torch.bool),
        ratio=ratio,
    )


def _imitated(case: Case, student: DensePredictions, truth: Truth) -> Tensor:
    """Where the recorded code would imitate features."""
    if case.setting("imitation_method") != "finegrained":
        return masks.inside_objects(boxes.centers(student.flat_priors()), truth)
    return masks.fine_grained(student.priors, truth, scope="image")


def valuable_region(case: Case) -> Mapping[str, Tensor]:
    """The region alone, and the overlaps that it is made from."""
    case.setting("strides")
    anchors = case.levels("anchors")
    priors, objects = torch.cat(anchors), case["gt_bboxes"]
    valid = torch.ones(1, len(objects), dtype=torch.bool)
    truth = Truth(
        boxes=objects[None],
        labels=torch.zeros(1, len(objects), dtype=torch.long),
        valid=valid,
        crowd=~valid,
        sizes=torch.zeros(1, 2),
    )
    settings = {
        "counts": tuple(map(len, anchors)),
        "inside": torch.ones(1, len(priors), dtype=torch.bool),
        "ratio": case.setting("ratio"),
        "topk": case.setting("topk"),
    }
    targets = _assigned(anchors, truth, 1, settings["topk"])
    owner = (targets.boxes[0].unsqueeze(1) == objects).all(dim=-1).long().argmax(dim=-1) + 1
    overlap = boxes.iou(priors.unsqueeze(1), objects)
    distance = boxes.center_distance(priors.unsqueeze(1), objects)
    region = masks.valuable_region(priors, truth=truth, **settings)[0]
    intended = masks.valuable_region(priors, truth=truth, nearness="iou", **settings)[0]
    covered = boxes.intersection_over_first(priors.unsqueeze(1), objects)
    if not torch.allclose(intended, case["vlr_region_true_diou"], rtol=1e-4, atol=1e-6):
        raise MismatchError("vlr_region_true_diou differs")
    return {
        "vlr_region": region,
        "assigned_gt_inds": owner * (targets.labels[0] < 1),
        "iou": overlap,
        "max_overlaps": _claimed(overlap, owner, targets),
        "diou_official": covered - distance,
    }


def _claimed(overlap: Tensor, owner: Tensor, targets: Targets) -> Tensor:
    """IoU of positives with their object, -1 * huge elsewhere."""
    own = overlap.gather(1, (owner - 1).unsqueeze(1)).squeeze(1)
    return torch.where(targets.labels[0] < 1, own, -1e8)


# BCKD


def bckd(case: Case) -> Mapping[str, Tensor]:
    kinds = case.setting("loss_kd"), case.setting("loss_score_kd")
    settings = {
        "cls_weight": kinds[0]["loss_weight"],
        "box_weight": kinds[1]["loss_weight"],
        "beta": case.setting("kd_beta"),
    }
    scene = _scene(case, "bckd", settings)
    terms = scene.method(scene.step)
    return _around(scene, extra_weight=2e-4) | {
        "kd": terms["cls"],
        "score_kd": terms["box"],
        "loss": terms["cls"] + terms["box"],
    }


def bckd_box(case: Case) -> Mapping[str, Tensor]:
    """The box term alone, of boxes that stand for themselves."""
    case.fixed(giou_eps=1e-6)
    names = ("cls_s", "box_s"), ("cls_t", "box_t")
    count, classes = case["cls_s"].shape
    for name in names[0]:
        case.leaf(name)

    def said(logits: Tensor, corners: Tensor) -> DetectorOutput:
        maps = [flat.T.reshape(1, -1, 1, count) for flat in (logits, corners)]
        priors = torch.zeros(count, 4).to(logits)
        predictions = DensePredictions(
            logits=(maps[0],), boxes=(maps[1],), priors=(priors,), strides=(1,), coder=Verbatim()
        )
        return DetectorOutput(neck=(), predictions=predictions)

    student = said(case.leaves["cls_s"], case.leaves["box_s"])
    teacher = said(case["cls_t"], case["box_t"])
    spec = Spec(family="dense", classes=tuple(map(str, range(classes))), strides=(1,), channels=1)
    settings = {"box_weight": case.setting("loss_weight"), "levels": "all"}
    method = cast("BCKD", combine.build("bckd", settings))
    combine.setup({"bckd": method}, spec, spec)
    weights = case["label_weights"][None]
    step = Step(
        truth=cast("Truth", None),
        student=student,
        teacher=teacher,
        targets=Targets(
            labels=torch.full(weights.shape, classes),
            boxes=torch.zeros(*weights.shape, 4),
            weights=weights,
            positives=torch.tensor(case.setting("avg_factor")),
        ),
        student_head=cast("Head", None),
        teacher_head=cast("Head", None),
    )
    apart = method.disagreement(step)
    return {"loss": method(step)["box"], "weight": (weights * apart)[0]}


# LD and the regions of its comparison

REGIONS = {"fitnet": "inside", "finegrained": "fine", "gibox": "different"}


def ld(case: Case) -> Mapping[str, Tensor]:
    case.fixed(ld_avg_factor=4.0)
    main, valuable, classes, features = (
        case.setting(f"loss_{name}") for name in ("ld", "ld_vlr", "kd", "im")
    )
    settings = {
        "main_weight": main["loss_weight"],
        "valuable_weight": valuable["loss_weight"] * 4 / case.setting("ld_vlr_avg_factor"),
        "cls_weight": classes["loss_weight"],
        "temperature": float(main["T"]),
        "cls_temperature": float(classes["T"]),
        "ratio": case.setting("vlr_ratio"),
    }
    scene = _scene(case, "ld", settings)
    terms = scene.method(scene.step)
    region = {
        "weight": features["loss_weight"],
        "region": REGIONS[case.setting("imitation_method")],
        "jointly": True,
    }
    imitation, known = _imitation(scene, region)
    return (
        _around(scene)
        | known
        | {
            "ld": terms["main"],
            "ld_vlr": terms["valuable"],
            "kd": terms["cls"],
            "im": imitation,
            "loss": terms["main"] + terms["valuable"] + terms["cls"] + imitation,
        }
    )


def _imitation(scene: Scene, settings: dict[str, object]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss on features, and, where cells are ranked, which were chosen, best first."""
    method = cast("Regions", combine.build("regions", settings))
    combine.setup({"regions": method}, scene.spec, scene.spec)
    terms = method(scene.step)
    known = {}
    if settings["region"] == "different":
        sizes = [len(level) for level in scene.student.priors]
        apart, _ = method.difference(scene.step)
        chosen = method.chosen(scene.step)
        levels = zip(apart.split(sizes, dim=1), chosen.split(sizes, dim=1), strict=True)
        for i, (gap, mask) in enumerate(levels):
            order = gap.flatten().argsort(descending=True)
            known[f"gi_idx_{i}"] = order[mask.flatten()[order]]
    return torch.stack(list(terms.values())).sum(), known


def divergence(case: Case) -> Mapping[str, Tensor]:
    """`ld_kl_`."""
    pred = case.leaf("pred")
    rows = losses.kl_divergence(pred, case["soft_label"], case.setting("T"))
    if case.setting("class_reduction") == "mean":
        rows = rows / pred.shape[1]
    rows = rows * case.setting("loss_weight")
    return {"none": rows, "loss": reduced(case, rows)}
