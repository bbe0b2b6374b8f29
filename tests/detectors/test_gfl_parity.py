"""GFL against numbers that MMDetection 3.3 produced, on a narrow net with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detdistill.detectors import Architecture, Detector, from_architecture
from detdistill.detectors.architecture import Preprocessing
from detdistill.detectors.assign import atss
from detdistill.detectors.backbones import Backbone
from detdistill.structures import Truth

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
CASES = ("two images", "one image of odd size", "one image smaller and without objects")
LEVELS = range(5)


@cache
def recorded(name: str = "gfl_r18_narrow") -> dict[str, Tensor]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@pytest.fixture
def detector() -> Detector:
    narrow = from_architecture(
        Architecture(
            family="gfl",
            backbone=Backbone(
                name="resnet18", width=8, stages=(2, 3, 4), frozen_stages=1, frozen_norm=True
            ),
            classes=tuple("abcde"),
            neck_channels=16,
            tower_channels=16,
            norm_groups=4,
            preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        )
    )
    prefix = "weight."
    weights = {
        key.removeprefix(prefix): value
        for key, value in recorded().items()
        if key.startswith(prefix)
    }
    narrow.load_state_dict(weights)
    return narrow


@pytest.fixture(params="ABC", ids=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def levels_of(case: str, name: str) -> list[Tensor]:
    return [recorded()[f"{case}.{name}.{level}"] for level in LEVELS]


def padded(boxes: list[Tensor], labels: list[Tensor], sizes: Tensor) -> Truth:
    valid = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(image), dtype=torch.bool) for image in boxes], batch_first=True
    )
    return Truth(
        boxes=torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True),
        labels=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=sizes,
    )


def truth_of(case: str) -> Truth:
    numbers = recorded()
    images = range(len(numbers[f"{case}.inputs"]))
    return padded(
        [numbers[f"{case}.gt_boxes.{i}"].reshape(-1, 4) for i in images],
        [numbers[f"{case}.gt_labels.{i}"] for i in images],
        numbers[f"{case}.sizes"],
    )


@pytest.mark.parametrize("case", "AB")
def test_raw_outputs_are_the_same(detector: Detector, case: str) -> None:
    output = detector.eval()(recorded()[f"{case}.inputs"], truth_of(case).sizes)
    maps = {"eval.cls": output.dense.logits, "eval.reg": output.dense.boxes, "fpn": output.neck}
    for name, found in maps.items():
        if f"{case}.{name}.0" in recorded():
            for actual, expected in zip(found, levels_of(case, name), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_detections_are_the_same(detector: Detector, case: str) -> None:
    truth = truth_of(case)
    found = detector.eval().detect(detector(recorded()[f"{case}.inputs"], truth.sizes), truth.sizes)
    for i, count in enumerate(found.counts.tolist()):
        expected = {k: recorded()[f"{case}.det.{i}.{k}"] for k in ("boxes", "scores", "labels")}
        assert count == len(expected["labels"])
        assert torch.equal(found.labels[i, :count], expected["labels"])
        torch.testing.assert_close(found.boxes[i, :count], expected["boxes"], rtol=0, atol=0.01)
        torch.testing.assert_close(found.scores[i, :count], expected["scores"], rtol=0, atol=1e-4)


def test_assignment_losses_and_gradient_are_the_same(detector: Detector, case: str) -> None:
    truth = truth_of(case)
    output = detector.train()(recorded()[f"{case}.inputs"], truth.sizes)
    losses, targets = detector.criterion(output, truth)
    assert torch.equal(targets.labels, torch.cat(levels_of(case, "targets.labels"), dim=1))
    weights = torch.cat(levels_of(case, "targets.label_weights"), dim=1)
    assert torch.equal(targets.weights, weights)
    names = {"cls": "loss_cls", "box": "loss_bbox", "dfl": "loss_dfl"}
    for name, theirs in names.items():
        expected = recorded()[f"{case}.loss.{theirs}"]
        torch.testing.assert_close(losses[name], expected, rtol=1e-4, atol=0, check_dtype=False)
    sum(losses.values()).backward()
    gradient = detector.neck.fpn.inner_blocks[0][0].weight.grad
    expected = recorded()[f"{case}.grad.fpn_lateral0"].view_as(gradient)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objects", ["n0", "n1", "n7", "n30", "hard", "degenerate"])
def test_atss_assigns_the_same_objects(objects: str) -> None:
    numbers = recorded("assign_atss")
    priors, boxes = numbers["priors.atss"], numbers[f"gt.{objects}.boxes"].reshape(-1, 4)
    truth = padded([boxes], [numbers[f"gt.{objects}.labels"]], torch.tensor([[256, 320]]))
    targets = atss(
        priors,
        tuple(numbers["priors.atss.n_per_level"].tolist()),
        truth,
        inside=torch.ones(1, len(priors), dtype=torch.bool),
        num_classes=80,
    )
    owner = numbers[f"atss.{objects}.gt_inds"]
    assert torch.equal(targets.labels[0] < 80, owner > 0)
    for prior in owner.nonzero().flatten().tolist():
        assert torch.equal(targets.boxes[0, prior], boxes[owner[prior] - 1])
