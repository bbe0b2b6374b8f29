from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from detdistill.evaluate import facts
from detdistill.evaluate.run import PREDICTIONS
from detdistill.evaluate.speed import peak_tensor_bytes
from detdistill.structures import Detections, DetectorOutput, Reads, Spec


class OneConvolution(nn.Module):
    """A detector that is a single 3 x 3 convolution, so that its facts are known."""

    spec = Spec(family="dense", classes=("a",), strides=(1,), channels=4)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,  # noqa: ARG002
        reads: Reads = PREDICTIONS,  # noqa: ARG002
    ) -> DetectorOutput:
        return DetectorOutput(neck=(self.conv(images.float()),))

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:  # noqa: ARG002
        batch = len(output.neck[0])
        return Detections(
            boxes=torch.zeros(batch, 0, 4),
            scores=torch.zeros(batch, 0),
            labels=torch.zeros(batch, 0, dtype=torch.long),
            counts=torch.zeros(batch, dtype=torch.long),
        )


def test_parameters_and_operations_are_those_one_counts_by_hand() -> None:
    known = facts(OneConvolution(), (10, 20), repeats=3)

    assert known["parameters"] == 4 * 3 * 9
    assert known["flops"] == 2 * (10 * 20) * 4 * 3 * 9
    assert known["flops_per_multiply_add"] == 2


def test_latency_has_a_spread_around_its_median() -> None:
    latency = facts(OneConvolution(), (10, 20), repeats=5)["latency_ms"]

    assert 0 < latency["low"] <= latency["median"] <= latency["high"]


def test_one_repeat_is_enough() -> None:
    latency = facts(OneConvolution(), (10, 20), repeats=1)["latency_ms"]

    assert latency["low"] == latency["median"] == latency["high"]


def test_memory_is_that_of_the_tensors_alive_at_once() -> None:
    known = facts(OneConvolution(), (100, 200), repeats=1)

    images_as_float, features = 3 * 100 * 200 * 4, 4 * 100 * 200 * 4
    assert known["peak_tensor_mb"] == pytest.approx((images_as_float + features) / 1e6, rel=1e-3)


def test_memory_that_was_freed_is_not_counted_twice() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            torch.ones(1000).add_(1).view(10, 100)

    assert peak_tensor_bytes(one_after_the_other, []) == 4000


def test_what_was_known_before_is_not_counted() -> None:
    weights = torch.ones(1000)

    assert peak_tensor_bytes(lambda: weights.view(10, 100).mul_(2), [weights]) == 0


def test_the_facts_are_json_and_say_how_they_were_measured() -> None:
    known = facts(OneConvolution(), (10, 20), repeats=2)

    assert json.loads(json.dumps(known)) == known
    assert known["image_size"] == [10, 20]
    assert known["batch_size"] == 1
    assert known["device"]


def test_the_detector_is_left_in_training_mode() -> None:
    detector = OneConvolution().train()

    facts(detector, (10, 20), repeats=1)

    assert detector.training
