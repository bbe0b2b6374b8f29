"""Detectors against numbers that MMDetection 3.3 produced on narrow nets with random weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.detectors.recorded import SETTINGS, Recording, numbers, padded
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from detdistill import losses
from detdistill.boxes import DeltaCoder, DistanceCoder, to_distances
from detdistill.detectors import assign
from detdistill.detectors.dense import Assigner
from detdistill.structures import DetectorOutput, Targets

CASES = {"A": "two images", "B": "odd size", "C": "one smaller, without objects"}
OBJECTS = ("n0", "n1", "n7", "n30", "hard", "degenerate")
LOSSES = {"cls": "loss_cls", "box": "loss_bbox", "dfl": "loss_dfl", "centerness": "loss_centerness"}
SAME = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=sorted(SETTINGS))
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording(request.param)


@pytest.fixture(params=CASES, ids=list(CASES.values()))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def output_of(recording: Recording, case: str, *, training: bool = False) -> DetectorOutput:
    detector = recording.detector().train(training)
    return detector(recording.batch(case), recording.truth(case).sizes)


@pytest.mark.parametrize("case", "AB")
@pytest.mark.parametrize("training", [False, True])
def test_raw_outputs_are_the_same(recording: Recording, case: str, training: bool) -> None:
    output = output_of(recording, case, training=training)
    maps = {
        "fpn": output.neck,
        "eval.cls": output.dense.logits,
        "eval.reg": output.dense.boxes,
        "eval.ctr": output.dense.quality,
    }
    for name, found in maps.items():
        for actual, expected in zip(found or (), recording.levels(case, name), strict=case == "A"):
            SAME(actual, expected)


def test_detections_are_the_same(recording: Recording, case: str) -> None:
    sizes = recording.truth(case).sizes
    found = recording.detector().detect(output_of(recording, case), sizes)
    for i, count in enumerate(found.counts.tolist()):
        boxes, scores, labels = (
            recording.numbers[f"{case}.det.{i}.{key}"] for key in ("boxes", "scores", "labels")
        )
        assert count == len(labels)
        assert torch.equal(found.labels[i, :count], labels)
        torch.testing.assert_close(found.boxes[i, :count], boxes, rtol=0, atol=0.01)
        torch.testing.assert_close(found.scores[i, :count], scores, rtol=0, atol=1e-4)


def test_assignment_losses_and_gradient_are_the_same(recording: Recording, case: str) -> None:
    detector, truth = recording.detector().train(), recording.truth(case)
    found, targets = detector.criterion(detector(recording.batch(case), truth.sizes), truth)
    labels = torch.cat(recording.levels(case, "targets.labels"), dim=1)
    assert torch.equal(targets.labels, labels.long())
    weights = recording.levels(case, "targets.label_weights") or [torch.ones(labels.shape)]
    assert torch.equal(targets.weights, torch.cat(weights, dim=1).float())
    for name, value in found.items():
        expected = recording.numbers[f"{case}.loss.{LOSSES[name]}"]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=0, check_dtype=False)
    total = torch.stack(list(found.values())).sum()
    expected = recording.numbers[f"{case}.loss.total"]
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=0, check_dtype=False)
    total.backward()
    gradient = detector.neck.fpn.inner_blocks[0][0].weight.grad
    expected = recording.numbers[f"{case}.grad.fpn_lateral0"].view_as(gradient)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_a_batch_without_any_object_loses_the_same(recording: Recording) -> None:
    detector, truth = recording.detector().train(), recording.truth("A")
    truth.valid[:] = False
    found, _ = detector.criterion(detector(recording.batch("A"), truth.sizes), truth)
    expected = recording.numbers["D.loss.total"]
    total = torch.stack(list(found.values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=0, check_dtype=False)


def assigned(assigner: Assigner, file: str, priors: str, objects: str) -> Targets:
    recorded = numbers(file)
    boxes = recorded[f"gt.{objects}.boxes"].reshape(-1, 4)
    places = recorded[f"priors.{priors}"]
    return assigner(
        places,
        tuple(recorded[f"priors.{priors}.n_per_level"].tolist()),
        padded([boxes], [recorded[f"gt.{objects}.labels"]], torch.tensor([[256, 320]])),
        inside=torch.ones(1, len(places), dtype=torch.bool),
        num_classes=80,
        world_mean=lambda count: count,
    )


def owners_agree(targets: Targets, owner: Tensor, boxes: Tensor) -> None:
    """`owner` is 0 for background, -1 for ignored, else the number of the object from 1."""
    assert torch.equal(targets.labels[0] < 80, owner > 0)
    assert torch.equal(targets.weights[0] > 0, owner >= 0)
    expected = torch.cat([torch.zeros(1, 4), boxes.reshape(-1, 4)])[owner.clamp(min=0).long()]
    assert torch.equal(targets.boxes[0], expected)


@pytest.mark.parametrize("objects", OBJECTS)
def test_atss_assigns_the_same_objects(objects: str) -> None:
    recorded = numbers("assign_atss")
    targets = assigned(assign.atss, "assign_atss", "atss", objects)
    owners_agree(targets, recorded[f"atss.{objects}.gt_inds"], recorded[f"gt.{objects}.boxes"])


RPN = partial(assign.max_iou, positive_iou=0.7, negative_iou=0.3, low_quality=0.3)
RCNN = partial(assign.max_iou, positive_iou=0.5, negative_iou=0.5, low_quality=None)


@pytest.mark.parametrize("objects", OBJECTS)
@pytest.mark.parametrize(
    ("name", "priors", "assigner"),
    [("retina", "retina", assign.max_iou), ("rpn", "rpn", RPN), ("rcnn", "rpn", RCNN)],
)
def test_max_iou_assigns_the_same_objects(
    name: str, priors: str, assigner: Assigner, objects: str
) -> None:
    recorded = numbers("assign_maxiou")
    targets = assigned(assigner, "assign_maxiou", priors, objects)
    owners_agree(targets, recorded[f"{name}.{objects}.gt_inds"], recorded[f"gt.{objects}.boxes"])


@pytest.mark.parametrize(
    ("name", "coder"), [("unit", DeltaCoder()), ("atss", DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)))]
)
def test_deltas_are_coded_the_same(name: str, coder: DeltaCoder) -> None:
    recorded, prefix = numbers("ops"), f"coder.delta_{name}"
    priors, stride = recorded["coder.priors"], torch.tensor(8)
    SAME(coder.encode(recorded["coder.gts"], priors), recorded[f"{prefix}.encode"])
    boxes = coder.decode(recorded["coder.deltas"], priors, stride)
    SAME(boxes, recorded[f"{prefix}.decode"])
    SAME(clip_boxes_to_image(boxes, (256, 320)), recorded[f"{prefix}.decode_clip"])


def test_distances_are_coded_the_same() -> None:
    recorded = numbers("ops")
    points, raw = recorded["coder.points"], recorded["coder.dist"]
    boxes = DistanceCoder().decode(raw, torch.cat([points, points], dim=1), torch.tensor(8))
    SAME(boxes, recorded["coder.point.decode"])
    SAME(clip_boxes_to_image(boxes, (256, 320)), recorded["coder.point.decode_clip"])
    SAME(to_distances(points, recorded["coder.gts"]), recorded["coder.point.encode"])


@pytest.mark.parametrize("name", ["qfl", "focal", "dfl", "giou", "iou_log", "bce"])
def test_base_losses_are_the_same(name: str) -> None:
    recorded = numbers("ops")
    given = {key.removeprefix("loss.in."): value for key, value in recorded.items()}
    logits, edges, boxes = (
        given[key].clone().requires_grad_() for key in ("logit", "dist_logit", "pred_boxes")
    )
    whole, parts, labels, quality = (
        given[key] for key in ("weight", "weight_f", "labels", "quality")
    )
    cases = {
        "qfl": (logits, losses.quality_focal_loss(logits, labels, quality), whole, 7.0, 1.0),
        "focal": (logits, losses.sigmoid_focal_loss(logits, labels), whole, 7.0, 1.0),
        "dfl": (edges, losses.distribution_focal_loss(edges, given["dist_target"]), parts, 4, 0.25),
        "giou": (boxes, losses.giou_loss(boxes, given["gt_boxes"]), parts, 3.0, 2.0),
        "iou_log": (boxes, losses.log_iou_loss(boxes, given["gt_boxes"]), parts, 3.0, 1.0),
        "bce": (logits, losses.soft_bce(logits[:, 0], quality), None, 7.0, 1.0),
    }
    leaf, each, weight, divisor, factor = cases[name]
    loss = factor * losses.weighted_mean(each, weight, divisor)
    loss.backward()
    expected = recorded[f"loss.{name}.grad"]
    SAME(loss, recorded[f"loss.{name}.value"])
    SAME(leaf.grad if expected.ndim > 1 else leaf.grad[:, 0], expected)
